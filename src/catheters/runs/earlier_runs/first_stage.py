"""The first stage of a run with lines="input": another run, whose out-of-fold maps the classifier sees.

For each image they are those of the model that did not see its patient, in training and in validation. They are written
once, into a cache of their own. A checkpoint of this run gets the model of its own fold along, to predict new images.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from catheters.checkpoints.checkpoint import Checkpoint
from catheters.checkpoints.parts import build_preprocessing
from catheters.config.settings import Settings
from catheters.data.cache.cache import CacheFile
from catheters.data.cache.row_checks import RowChecks
from catheters.data.input_maps import InputMaps
from catheters.errors import UserError
from catheters.models.first_stage import maps_of
from catheters.runs.earlier_runs.folds import load_folds, read_folds_of_run, read_run
from catheters.runs.earlier_runs.outputs import Work, check_finite, outputs_of, read_outputs, write_outputs
from catheters.runs.run_data import RunData


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
    first = read_run(settings, folder, where, "a finished run with lines='auxiliary' or 'pooled'")
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
    models = load_folds(folder, folds, where)
    # Of what the maps depend on alone: runs of other labels, folds or weights of images see the same ones.
    content = json.dumps([data.pixels_hash, data.uids.tolist(), models.digests, folds.tolist()])
    fingerprint = hashlib.sha256(content.encode()).hexdigest()
    name = f"{settings.cache_file.stem}_{folder.resolve().name}_{fingerprint[:8]}.npy"
    return FirstStageRun(
        folder=folder,
        checkpoints=models.checkpoints,
        folds=folds,
        cache_file=settings.cache_file.with_name(name),
        fingerprint=fingerprint,
        is_all_data=settings.all_data,
    )


def with_input_maps(settings: Settings, data: RunData, first: FirstStageRun) -> RunData:
    """The data with the maps of a first stage; see `write_maps`.

    Raises:
        UserError: they are damaged.
    """
    uids = data.uids.tolist()
    digests = read_outputs(first.cache_file, uids, first.fingerprint, f"the maps of {first.folder}")
    checks = RowChecks(first.cache_file, digests)
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
    height, width = next(iter(first.checkpoints.values())).settings.map_shape
    works = [
        Work(data=data, is_chosen=first.folds == fold, first_row=0, checkpoints=[checkpoint])
        for fold, checkpoint in first.checkpoints.items()
    ]

    def rows_of(checkpoints: Sequence[Checkpoint], images: Tensor) -> npt.NDArray[np.uint8]:
        (checkpoint,) = checkpoints
        maps = maps_of(outputs_of(checkpoint, images, with_lines=True))
        check_finite(checkpoint, maps)
        bytes_of_maps: npt.NDArray[np.uint8] = (maps * 255).round().to(torch.uint8).cpu().numpy()
        return bytes_of_maps

    write_outputs(
        settings,
        works,
        rows_of,
        file=first.cache_file,
        row_shape=(settings.num_input_maps * height, width),
        fingerprint=first.fingerprint,
        what=f"maps of {first.folder}",
        device=device,
    )
