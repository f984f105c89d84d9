"""The first stage of a run with lines="input": another run, whose out-of-fold maps the classifier sees.

For each image they are those of the model that did not see its patient, in training and in validation. They are written
once, into a cache of their own. A checkpoint of this run gets the model of its own fold along, to predict new images.
"""

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from catheters.checkpoints.checkpoint import Checkpoint, load_checkpoint
from catheters.checkpoints.finished import check_finished, is_finished
from catheters.checkpoints.parts import build_preprocessing
from catheters.config.loading import read_run_settings
from catheters.config.settings import Settings
from catheters.data.cache.cache import CacheError, CacheFile, CacheRow
from catheters.data.cache.index import FORMAT_VERSION, MADE_BY, CacheIndex, index_file, read_index
from catheters.data.cache.partial import CachePart
from catheters.data.cache.row_checks import RowChecks
from catheters.data.input_maps import InputMaps, damaged_maps
from catheters.errors import UserError, counted
from catheters.io.files import sha256_of
from catheters.io.locks import exclusive_lock
from catheters.models.first_stage import maps_of
from catheters.runs.datasets import RunData, create_valid_loader, plain_samples
from catheters.runs.earlier_runs import read_folds_of_run
from catheters.runs.run_folder import SETTINGS_FILE
from catheters.runtime.console import say
from catheters.runtime.precision import autocast
from catheters.runtime.progress import track

BATCH_SIZE = 16
"""Images at a time, unless the settings say how many validation has."""


@dataclass(frozen=True, kw_only=True)
class FirstStageRun:
    """A run that finds lines, as another run's first stage.

    Attributes:
        folder: its run folder.
        checkpoints: fold -> its best model.
        folds: (N,) the fold whose model did not see the patient of each image of the other run.
        cache_file: the maps' `.npy`.
        fingerprint: of the models, the images and the folds that they have there.
        is_all_data: whether the other run's models learn from all images.
    """

    folder: Path
    checkpoints: Mapping[int, Checkpoint]
    folds: npt.NDArray[np.int8]
    cache_file: Path
    fingerprint: str
    is_all_data: bool

    def members(self, number: int) -> tuple[Checkpoint, ...]:
        """What finds the maps of new images for the model of a fold, or of a seed, whose maps come from all folds."""
        return tuple(self.checkpoints.values()) if self.is_all_data else (self.checkpoints[number],)


def bytes_of(first: FirstStageRun | None) -> int:
    """Of the weights that go into each checkpoint, of the fold that has most; 0 without a first stage."""
    if first is None:
        return 0
    of_folds = [
        sum(value.nbytes for value in of_fold.model.state_dict().values()) for of_fold in first.checkpoints.values()
    ]
    return sum(of_folds) if first.is_all_data else max(of_folds)


def find_first_stage(settings: Settings, data: RunData) -> FirstStageRun:
    """Open the run that `first_stage` names, and make sure that none of its maps is of a model that saw the patient.

    Args:
        settings: of the run that wants it.
        data: its images.

    Raises:
        UserError: it is no such run, not finished, or of other images, folds, patients, sizes, device types or mixed
            precision.
    """
    assert settings.first_stage is not None, "the settings were checked"
    folder = Path(settings.first_stage)
    where = f"first_stage={folder}"
    if not (folder / SETTINGS_FILE).is_file():
        raise UserError(
            f"{where}: no run folder; a finished run with lines='auxiliary' or 'pooled' is expected"
            f"{_run_folder_hint(folder)}"
        )
    if folder.resolve() == settings.run_folder.resolve():
        raise UserError(f"{where}: is this very run; name another one, or set another run_name")
    first = read_run_settings(folder / SETTINGS_FILE)
    if not first.learns_lines:
        raise UserError(f"{where}: finds no lines (lines={first.lines!r}); train it with lines='auxiliary' or 'pooled'")
    if first.all_data:
        raise UserError(f"{where}: its models have seen every image (all_data=True); out-of-fold maps need folds")
    wanted, made = (build_preprocessing(of_run).describe() for of_run in (settings, first))
    for name, value in wanted.items():
        if made[name] != value:
            raise UserError(f"{where}: its images have {name}={made[name]!r}, here {name}={value!r}; set them alike")
    if list(first.device_types) != list(settings.device_types):
        raise UserError(
            f"{where}: finds lines of {', '.join(first.device_types)}, the settings have "
            f"{', '.join(settings.device_types)}; set heads as there"
        )
    precisions = [(of_run.use_amp, of_run.amp_dtype if of_run.use_amp else None) for of_run in (settings, first)]
    if precisions[0] != precisions[1]:  # a checkpoint of this run holds both models, and computes both alike
        mixed, full = f"use_amp=True, amp_dtype='{first.amp_dtype}'", "use_amp=False"
        raise UserError(
            f"{where}: was trained with another mixed precision, which finds other maps; set "
            f"{mixed if first.use_amp else full} as there"
        )
    for name in settings.landmarks:
        if name not in first.landmarks:
            raise UserError(f"{where}: finds no '{name}', which measurements name; train it with them, or leave it out")
    folds = read_folds_of_run(settings, data, folder, where)
    checkpoints, sums = {}, {}
    for fold in np.unique(folds).tolist():
        of_fold = folder / f"fold{fold}"
        if not is_finished(of_fold):
            raise UserError(f"{where}: fold {fold} is not finished; run train.py for it until it is")
        check_finished(of_fold, names=("best.pt",))
        checkpoints[fold] = load_checkpoint(of_fold / "best.pt")
        sums[fold] = sha256_of(of_fold / "best.pt")
    # Of what the maps depend on alone: runs of other labels, folds or weights of images see the same ones.
    content = json.dumps([data.pixels_hash, data.uids.tolist(), sums, folds.tolist()])
    fingerprint = hashlib.sha256(content.encode()).hexdigest()
    name = f"{settings.cache_file.stem}_{folder.resolve().name}_{fingerprint[:8]}.npy"
    return FirstStageRun(
        folder=folder,
        checkpoints=checkpoints,
        folds=folds,
        cache_file=settings.cache_file.with_name(name),
        fingerprint=fingerprint,
        is_all_data=settings.all_data,
    )


def _run_folder_hint(path: Path) -> str:
    """What to name in place of a checkpoint, or of a fold's folder, as the end of a message; empty for other paths."""
    folder = next((parent for parent in path.parents if (parent / SETTINGS_FILE).is_file()), None)
    if folder is None:
        return "; name the run's folder, not a checkpoint" if path.suffix == ".pt" else ""
    return f"; name the run's folder, {folder}, not a checkpoint or a folder in it"


def with_input_maps(settings: Settings, data: RunData, first: FirstStageRun) -> RunData:
    """The data with the maps of a first stage; see `write_maps`.

    Raises:
        UserError: they are damaged.
    """
    try:
        index = read_index(first.cache_file)
    except CacheError as error:
        raise damaged_maps(first.cache_file, error.found) from None
    uids = [row.uid for row in index.rows]
    if index.preprocessing.get(MADE_BY) != first.fingerprint or uids != data.uids.tolist():
        raise damaged_maps(first.cache_file, f"{first.cache_file}: holds other maps than those of {first.folder}")
    checks = RowChecks(
        first.cache_file, np.array([np.frombuffer(bytes.fromhex(row.digest), dtype=np.uint8) for row in index.rows])
    )
    maps = InputMaps(CacheFile.of(first.cache_file), checks, np.arange(len(uids)), settings.num_input_maps)
    digest = hashlib.sha256(f"{data.fingerprint} {first.fingerprint}".encode()).hexdigest()
    return dataclasses.replace(data, input_maps=maps, fingerprint=digest)


def write_maps(settings: Settings, data: RunData, first: FirstStageRun, device: torch.device) -> None:
    """Write the maps of all images, unless they are there; an unfinished cache is resumed.

    Args:
        settings: of the run that wants them.
        data: its images.
        first: what finds them.
        device: where to compute.

    Raises:
        UserError: no room on the disk, another process is at it, or a model gives NaN.
    """
    file = first.cache_file
    if file.is_file() and index_file(file).is_file():
        return
    height, width = next(iter(first.checkpoints.values())).settings.map_shape
    shape = (len(data.rows), settings.num_input_maps * height, width)
    say(f"maps of {first.folder} -> {file} ({np.prod(shape) / 1e9:.2f} GB), once for all runs that see them")
    refusal = f"{file}: another process is writing it; wait until it has finished"
    with (
        exclusive_lock(file.with_suffix(".lock"), refusal, remove=True),
        contextlib.closing(CachePart(file, shape, first.fingerprint)) as part,
    ):
        part.keep_valid(lambda row, entry: True)
        try:
            for fold, checkpoint in first.checkpoints.items():
                _write_fold(settings, data, part, np.flatnonzero(first.folds == fold), checkpoint, device)
        except KeyboardInterrupt:
            say(f"maps of {len(part.done)} of {counted(len(data.rows), 'image')} done; the same command resumes there")
            raise
        rows = [part.done[row] for row in range(len(data.rows))]
        made_of = {MADE_BY: first.fingerprint}
        part.finish(
            CacheIndex(
                format_version=FORMAT_VERSION, shape=shape, preprocessing=made_of, decoders={}, mean=0, std=0, rows=rows
            )
        )


@torch.inference_mode()
def _write_fold(
    settings: Settings,
    data: RunData,
    part: CachePart,
    rows: npt.NDArray[np.intp],
    checkpoint: Checkpoint,
    device: torch.device,
) -> None:
    """Write the maps of the images of a fold that are not there yet."""
    waiting = [row for row in rows.tolist() if row not in part.done]
    is_waiting = np.zeros(len(data.rows), dtype=np.bool_)
    is_waiting[waiting] = True
    by_batch = dataclasses.replace(settings, valid_batch_size=settings.valid_batch_size or BATCH_SIZE)
    samples = plain_samples(by_batch, data, is_waiting)
    model = checkpoint.model.to(device)
    uids, todo = data.uids, iter(waiting)
    with contextlib.closing(create_valid_loader(by_batch, samples, device)) as loader:
        for batch in track(loader, f"maps of {checkpoint.file.parent.name}", len(loader), unit="batch", leave=False):
            with autocast(device, checkpoint.dtype_on(device)):
                maps = maps_of(model(batch.images.to(device, non_blocking=True), with_lines=True))
            if not bool(maps.isfinite().all()):
                raise UserError(f"{checkpoint.file}: gives NaN or infinity, so it cannot be a first stage")
            for of_image in (maps * 255).round().to(torch.uint8).cpu().numpy():
                row, pixels = next(todo), of_image.tobytes()
                digest = hashlib.sha256(pixels).hexdigest()
                entry = CacheRow(
                    uid=str(uids[row]), file=str(checkpoint.file), size=0, mtime_ns=0, digest=digest, notes={}
                )
                part.write(row, entry, pixels)
    model.cpu()
