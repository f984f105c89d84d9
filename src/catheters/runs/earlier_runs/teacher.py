"""The teacher of a run: another run, whose probabilities the models of this one learn beside the labels.

The model of a fold learns from the teacher's model of the same fold, which has seen no patient whom the fold validates
on. What that model has memorised of a patient can reach no model that is scored on the patient. A model of all data
is scored on nothing; of each image of the label table it learns what the model says that has not seen its patient.
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
from catheters.data.cache.index import CacheError
from catheters.data.cache.row_checks import RowChecks
from catheters.data.input_maps import damaged_outputs
from catheters.data.line_targets import DrawnLines
from catheters.errors import UserError, counted, listed
from catheters.models.weight_sources import find_weights
from catheters.runs.earlier_runs.folds import load_folds, read_folds_of_run, read_run
from catheters.runs.earlier_runs.outputs import Work, check_finite, outputs_of, read_outputs, write_outputs
from catheters.runs.earlier_runs.teacher_lines import LINE, MAX_LINES, SURENESS, find_rows, with_lines_of_teacher
from catheters.runs.earlier_runs.weights import warn_of_leak
from catheters.runs.run_data import Pseudolabels, RunData, training_images
from catheters.runtime.console import say, warn


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """A run whose probabilities are learnt.

    Attributes:
        folder: its run folder.
        checkpoints: fold -> its best model.
        folds: (N,) the fold whose model did not see the patient of each image of the label table.
        columns: (K,) where the run's labels stand among the teacher's.
        finds_lines: whether the run learns lines, and the teacher finds them.
        files: fold -> the cache of what its model says of all images; None: of what a model of all data learns.
        fingerprints: the same -> of the models and the images.
        fingerprint: of all folds' models, whichever of them this run trains.
    """

    folder: Path
    checkpoints: Mapping[int, Checkpoint]
    folds: npt.NDArray[np.int8]
    columns: npt.NDArray[np.intp]
    finds_lines: bool
    files: Mapping[int | None, Path]
    fingerprints: Mapping[int | None, str]
    fingerprint: str

    @property
    def row(self) -> np.dtype[np.void]:
        """What the cache has of an image."""
        lines = [("lines", LINE, (MAX_LINES,))] if self.finds_lines else []
        return np.dtype([("probabilities", "<f4", (len(self.columns),)), *lines])


def find_teacher(settings: Settings, data: RunData) -> Teacher:
    """Open the run that `teacher` names, and make sure that no fold is taught by a model that saw its images.

    Args:
        settings: of the run that wants it.
        data: its images, with those of `extra_tables`.

    Raises:
        UserError: it is no such run, not finished, or of other images, folds, patients, sizes or labels.
    """
    assert settings.teacher is not None, "the caller asks"
    folder = Path(settings.teacher)
    where = f"teacher={folder}"
    run = read_run(settings, folder, where, "a finished run of the same images and folds")
    if run.all_data:
        raise UserError(f"{where}: its models have seen every image (all_data=True); train it on folds")
    if isinstance(run.pretrained, str) and "{fold}" not in run.pretrained:
        _warn_of_its_weights(settings, run.pretrained, where)
    missing = [label for label in settings.label_columns if label not in run.label_columns]
    if missing:
        raise UserError(f"{where}: does not predict {listed(map(repr, missing))}; its label_columns need every label")
    if settings.exclusive and dict(run.exclusive) != dict(settings.exclusive):
        raise UserError(f"{where}: has other groups of exclusive labels; set exclusive as there")
    wanted, made = (build_preprocessing(of_run).describe() for of_run in (settings, run))
    for name, value in wanted.items():
        if made[name] != value:
            raise UserError(f"{where}: its images have {name}={made[name]!r}, here {name}={value!r}; set them alike")
    finds_lines = settings.learns_lines and run.learns_lines
    if finds_lines and list(run.device_types.items()) != list(settings.device_types.items()):
        raise UserError(
            f"{where}: its device types ({', '.join(run.device_types)}) or their labels are others than those of the "
            "settings; set heads as there"
        )
    if settings.learns_lines and not finds_lines:
        say(f"{where}: finds no lines (lines={run.lines!r}), so those that nobody has drawn stay unknown")
    folds = read_folds_of_run(settings, data, folder, where)
    models = load_folds(folder, folds, where)
    numbers: list[int | None] = [None] if settings.all_data else list(settings.folds_to_train)
    tables = [[of.pixels_hash, of.uids.tolist()] for of in (data, *data.extra)]
    of_lines = [["lines", *SURENESS]] if finds_lines else []
    files, fingerprints = {}, {}
    for number in numbers:
        of_models = [models.digests, folds.tolist()] if number is None else models.digests[number]
        content = json.dumps([tables, list(settings.label_columns), of_models, *of_lines])
        fingerprint = fingerprints[number] = hashlib.sha256(content.encode()).hexdigest()
        name = f"{settings.cache_file.stem}_{folder.resolve().name}_{fingerprint[:8]}.npy"
        files[number] = settings.cache_file.with_name(name)
    return Teacher(
        folder=folder,
        checkpoints=models.checkpoints,
        folds=folds,
        finds_lines=finds_lines,
        columns=np.array([run.label_columns.index(label) for label in settings.label_columns]),
        files=files,
        fingerprints=fingerprints,
        fingerprint=hashlib.sha256(
            json.dumps([models.digests, *of_lines] if of_lines else models.digests).encode()
        ).hexdigest(),
    )


def _warn_of_its_weights(settings: Settings, pretrained: str, where: str) -> None:
    """Warn of what the teacher started from, where that is still on this disk."""
    try:
        source = find_weights(pretrained, may_download=False)
    except UserError:
        return
    if source.file.is_file():
        warn_of_leak(settings, source.file, f"{where}: its pretrained={source.origin}")


def write_probabilities(settings: Settings, data: RunData, teacher: Teacher, device: torch.device) -> None:
    """Write what the teacher says of all images, unless it is there; what was killed is resumed.

    With the lines that it sees, if both runs know lines.

    Raises:
        UserError: see `write_outputs`.
    """
    label_columns = settings.label_columns

    def rows_of(checkpoints: Sequence[Checkpoint], images: Tensor) -> npt.NDArray[np.void]:
        of_models = [outputs_of(checkpoint, images, with_lines=teacher.finds_lines) for checkpoint in checkpoints]
        probabilities = [
            checkpoint.model.probabilities(outputs).float()
            for checkpoint, outputs in zip(checkpoints, of_models, strict=True)
        ]
        for checkpoint, of_model in zip(checkpoints, probabilities, strict=True):
            check_finite(checkpoint, of_model)
        mean = probabilities[0] if len(probabilities) == 1 else torch.stack(probabilities).mean(dim=0)
        rows = np.zeros(len(images), dtype=teacher.row)
        rows["probabilities"] = mean.cpu().numpy()[:, teacher.columns]
        if teacher.finds_lines:
            rows["lines"] = find_rows(checkpoints, of_models, images, rows["probabilities"], label_columns)
        return rows

    for number, file in teacher.files.items():
        write_outputs(
            settings,
            _works(data, teacher, number),
            rows_of,
            file=file,
            row_shape=(1, teacher.row.itemsize),
            fingerprint=teacher.fingerprints[number],
            what=f"{'probabilities and lines' if teacher.finds_lines else 'probabilities'} of {teacher.folder}",
            device=device,
        )


def _works(data: RunData, teacher: Teacher, number: int | None) -> list[Work]:
    """Which of the teacher's models say something of which images."""
    works = []
    if number is None:
        works = [
            Work(data=data, is_chosen=teacher.folds == fold, first_row=0, checkpoints=[checkpoint])
            for fold, checkpoint in teacher.checkpoints.items()
        ]
    first_row = 0 if number is not None else len(data.rows)
    models = list(teacher.checkpoints.values()) if number is None else [teacher.checkpoints[number]]
    for of in (data, *data.extra) if number is not None else data.extra:
        everything = np.full(len(of.rows), True)
        works.append(Work(data=of, is_chosen=everything, first_row=first_row, checkpoints=models))
        first_row += len(of.rows)
    return works


def with_teacher(settings: Settings, data: RunData, teacher: Teacher) -> RunData:
    """The data with what the teacher says of it; see `write_probabilities`.

    Raises:
        UserError: it is damaged.
    """
    tables = (data, *data.extra)
    uids = [uid for of in tables for uid in of.uids.tolist()]
    ends = np.cumsum([len(of.rows) for of in tables])
    of_tables: list[dict[int | None, npt.NDArray[np.void]]] = [{} for _ in tables]
    what = f"the probabilities of {teacher.folder}"
    for number, file in teacher.files.items():
        digests = read_outputs(file, uids, teacher.fingerprints[number], what)
        try:
            content = CacheFile.of(file).load()
            checks = RowChecks(file, digests)
            for row, of_image in enumerate(content):
                checks.check(row, of_image)
        except CacheError as error:
            raise damaged_outputs(file, error.found) from None
        rows = np.ascontiguousarray(content[:, 0]).view(teacher.row)[:, 0]
        for of_table, part in zip(of_tables, np.split(rows, ends[:-1]), strict=True):
            of_table[number] = part
    exclusive = tuple(
        tuple(settings.label_columns.index(label) for label in group) for group in settings.exclusive.values()
    )
    taught = [
        dataclasses.replace(
            of,
            pseudo_labels=Pseudolabels(
                probabilities={number: np.array(rows["probabilities"]) for number, rows in of_table.items()},
                soft_weight=settings.soft_weight,
                kind=settings.pseudo_labels,
                confidence=settings.pseudo_label_confidence,
                exclusive=exclusive,
                lines=_lines_of(settings, of, of_table) if teacher.finds_lines else None,
            ),
        )
        for of, of_table in zip(tables, of_tables, strict=True)
    ]
    digest = hashlib.sha256(f"{data.fingerprint} {teacher.fingerprint}".encode()).hexdigest()
    whole = dataclasses.replace(taught[0], extra=tuple(taught[1:]), fingerprint=digest)
    _tell_pseudo_labels(settings, whole)
    if teacher.finds_lines:
        _tell_lines(settings, whole)
    return whole


def _lines_of(
    settings: Settings, data: RunData, rows: Mapping[int | None, npt.NDArray[np.void]]
) -> dict[int | None, DrawnLines]:
    """Fold -> the lines of a table's images, the teacher's among them."""
    assert data.lines is not None, "the run learns lines"
    columns = [[settings.label_columns.index(label) for label in of_type] for of_type in settings.device_types.values()]
    return {
        number: with_lines_of_teacher(data.lines, of_fold["lines"], data.targets, of_fold["probabilities"], columns)
        for number, of_fold in rows.items()
    }


def _tell_pseudo_labels(settings: Settings, data: RunData) -> None:
    """Say of how many unknown labels in the images that a fold learns from its teacher fills in something."""
    assert data.pseudo_labels is not None, "the caller has put them there"
    for fold in data.pseudo_labels.probabilities:
        model = "" if fold is None else f" of fold {fold}"
        num_unknown, num_filled = 0, 0
        for of, is_chosen in training_images(data, fold):
            is_unknown = np.isnan(of.targets[is_chosen])
            num_unknown += int(is_unknown.sum())
            num_filled += int((is_unknown & ~np.isnan(of.learnt_targets(fold)[is_chosen])).sum())
        if num_unknown:
            say(f"labels, by the teacher{model}: {num_filled} of {counted(num_unknown, 'unknown one')} learnt")
        if not num_filled and settings.soft_weight == 0:
            why = "it is sure of none that is unknown" if num_unknown else "no label is unknown"
            warn(f"teacher={settings.teacher} teaches no label{model}, since soft_weight=0 and {why}")


def _tell_lines(settings: Settings, data: RunData) -> None:
    """Say in how many of the images that a fold learns from its teacher's lines are learnt."""
    assert data.pseudo_labels is not None and data.pseudo_labels.lines is not None, "the caller has put them there"
    for fold in data.pseudo_labels.lines:
        model = "" if fold is None else f" of fold {fold}"
        chosen = [(of.lines, of.learnt_lines(fold), is_chosen) for of, is_chosen in training_images(data, fold)]
        pairs = [(own.take(rows), learnt.take(rows)) for own, learnt, rows in chosen if own and learnt]
        for number, name in enumerate(settings.device_types):
            before, after = np.array([[of.count(number) for of in pair] for pair in pairs]).sum(axis=0)
            drawn, absent, _ = (after - before).tolist()
            say(
                f"lines of {name}, by the teacher{model}: seen in {counted(drawn, 'image')} more, absent in {absent} "
                f"more, still unknown in {after[2]}"
            )
