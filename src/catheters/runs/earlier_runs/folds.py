"""Folds of an earlier run, which another one learns from: each image by a model that has not seen its patient."""

import dataclasses
from collections.abc import Collection
from pathlib import Path

import numpy as np
import numpy.typing as npt

from catheters.checkpoints.checkpoint import Checkpoint, load_checkpoint
from catheters.checkpoints.finished import check_finished, is_finished
from catheters.config.loading import read_run_settings
from catheters.config.settings import Settings
from catheters.data.tables.folds import in_several_folds
from catheters.errors import UserError, counted
from catheters.evaluation.predictions import read_predictions
from catheters.io.files import sha256_of
from catheters.runs.run_data import RunData
from catheters.runs.run_folder import SETTINGS_FILE, run_folder_of
from catheters.runtime.console import warn


def read_folds_of_run(
    settings: Settings,
    data: RunData,
    folder: Path,
    where: str,
    folds_asked: Collection[int] | None = None,
    *,
    may_leak: bool = False,
) -> npt.NDArray[np.int8]:
    """(n,) the fold of each image in an earlier run, whose model has not seen its patient.

    Args:
        settings: of the run that learns from the earlier one.
        data: its images.
        folder: the earlier run's.
        where: the setting that names it, for messages.
        folds_asked: folds of this run whose images are asked for, the others may be missing; None: all.
        may_leak: only warn of patients or images in several of its folds.

    Raises:
        UserError: an image is not there, or another fold's or patient's.
    """
    file = folder / "predictions.csv"
    if not file.is_file():
        raise UserError(f"{where}: has no predictions.csv, so no fold is finished; run train.py until it is")
    check_finished(folder, f"run train.py for {folder} again", names=(file.name,))
    uid_column, frame, _ = read_predictions(file)
    found = frame.set_index(uid_column)[["fold", "patient"]]
    is_asked = np.full(len(data.rows), True) if folds_asked is None else np.isin(data.folds, list(folds_asked))
    uids, patient_ids = data.uids[is_asked], data.patient_ids[is_asked]
    missing = sorted(set(uids.tolist()) - set(found.index))
    if missing:
        raise UserError(
            f"{where}: has no prediction of {counted(len(missing), 'image')} of this run, {missing[0]} for one: it is "
            "of another label table, or not all of its folds are finished"
        )
    of_images = found.loc[uids.tolist()]
    folds: npt.NDArray[np.int8] = of_images["fold"].astype(int).to_numpy().astype(np.int8)
    is_other = of_images["patient"].to_numpy() != patient_ids
    if is_other.any():
        image = int(np.flatnonzero(is_other)[0])
        raise UserError(
            f"{where}: has another patient for {uids[image]}, {of_images['patient'].iloc[image]} in place of "
            f"{patient_ids[image]}; set patient_column and patient_pattern alike"
        )
    # Of all its images, since its models have learnt from those too that this run leaves out.
    all_folds = found["fold"].astype(int).to_numpy().astype(np.int8)
    leaking = in_several_folds(all_folds, found["patient"].to_numpy().astype(np.str_))
    shared = sorted(set(leaking) & set(patient_ids.tolist())) or in_several_folds(folds, data.pixel_ids[is_asked])
    if shared:
        leak = f"{where}: its folds leak: the images of {shared[0]} are in several"
        if not may_leak:
            raise UserError(f"{leak}; train it on others")
        warn(f"{leak}; allow_leaking_folds=True")
    own = data.folds[is_asked]
    if not settings.all_data and (folds != own).any():
        image = int(np.flatnonzero(folds != own)[0])
        raise UserError(
            f"{where}: its folds are others: {uids[image]} is in fold {folds[image]} there, in {own[image]} "
            "here; set label_table, num_folds, fold_seed (its seed, if that was not set) and fold_column as there"
        )
    return folds


def read_run(settings: Settings, folder: Path, where: str, wanted: str) -> Settings:
    """The settings of an earlier run that another one learns from.

    Args:
        settings: of the run that does.
        folder: the earlier run's.
        where: the setting that names it, for messages.
        wanted: what run is expected, for a message.

    Raises:
        UserError: it is no run folder, or the run's own.
    """
    if not (folder / SETTINGS_FILE).is_file():
        raise UserError(f"{where}: no run folder; {wanted} is expected{_run_folder_hint(folder)}")
    if folder.resolve() == settings.run_folder.resolve():
        raise UserError(f"{where}: is this very run; name another one, or set another run_name")
    return read_run_settings(folder / SETTINGS_FILE)


def _run_folder_hint(path: Path) -> str:
    """What to name in place of a checkpoint, or of a fold's folder, as the end of a message; empty for other paths."""
    folder = run_folder_of(path)
    if folder is None:
        return "; name the run's folder, not a checkpoint" if path.suffix == ".pt" else ""
    return f"; name the run's folder, {folder}, not a checkpoint or a folder in it"


@dataclasses.dataclass(frozen=True, kw_only=True)
class FoldModels:
    """The best model of each fold of a finished run.

    Attributes:
        checkpoints: fold -> its best model.
        digests: fold -> SHA-256 of its file.
    """

    checkpoints: dict[int, Checkpoint]
    digests: dict[int, str]


def load_folds(folder: Path, folds: npt.NDArray[np.int8], where: str) -> FoldModels:
    """The models of all folds that occur.

    Args:
        folder: the run's.
        folds: (N,) folds.
        where: the setting that names the run, for messages.

    Raises:
        UserError: a fold is not finished, or its model is not what was written.
    """
    checkpoints, digests = {}, {}
    for fold in np.unique(folds).tolist():
        of_fold = folder / f"fold{fold}"
        if not is_finished(of_fold):
            raise UserError(f"{where}: fold {fold} is not finished; run train.py for it until it is")
        check_finished(of_fold, names=("best.pt",))
        checkpoints[fold] = load_checkpoint(of_fold / "best.pt")
        digests[fold] = sha256_of(of_fold / "best.pt")
    return FoldModels(checkpoints=checkpoints, digests=digests)
