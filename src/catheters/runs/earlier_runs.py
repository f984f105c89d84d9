"""Runs that another one learns from: never by a model that has seen a patient whom the other one validates on."""

import dataclasses
from pathlib import Path

import numpy as np
import numpy.typing as npt

from catheters.checkpoints.finished import check_finished
from catheters.config.settings import Settings
from catheters.data.tables.folds import in_several_folds
from catheters.errors import UserError, counted
from catheters.evaluation.predictions import read_predictions
from catheters.io.files import parse_json
from catheters.models.weight_files import read_weight_file
from catheters.runs.datasets import RunData
from catheters.runs.run_folder import SETTINGS_FILE
from catheters.runtime.console import warn

TABLE_SETTINGS = ("dataset_folder", "label_table")
"""The settings that say which images a run may have learnt from."""


def with_weights_of(settings: Settings, number: int) -> Settings:
    """The settings with the file of weights that the model of a fold, or of a seed, starts from."""
    if not isinstance(settings.pretrained, str):
        return settings
    numbers = {"{seed}": number} if settings.all_data else {"{fold}": number, "{seed}": settings.seed}
    file = settings.pretrained
    for name, value in numbers.items():
        file = file.replace(name, str(value))
    return dataclasses.replace(settings, pretrained=file)


def check_weights(settings: Settings, data: RunData) -> None:
    """Refuse weights of a fold's model that have seen the images which the fold validates on; warn of others.

    Raises:
        UserError: weights with {fold} in their name are missing, or of a run with other folds or patients.
    """
    if not isinstance(settings.pretrained, str) or settings.all_data:  # without folds nothing is validated
        return
    if "{fold}" not in settings.pretrained:
        _warn_of_leak(settings, Path(str(with_weights_of(settings, settings.folds_to_train[0]).pretrained)))
        return
    checked: set[Path] = set()
    for fold in settings.folds_to_train:
        file = Path(str(with_weights_of(settings, fold).pretrained))
        where = f"pretrained={settings.pretrained}"
        if not file.is_file():
            raise UserError(f"{where}: {file}: no such file; each fold needs its own")
        folder = next((parent for parent in file.parents if (parent / SETTINGS_FILE).is_file()), None)
        if folder is None:
            _warn_of_leak(settings, file)
            continue
        if f"fold{fold}" not in file.relative_to(folder).parts:
            raise UserError(
                f"{where}: {file} is not of fold {fold} of {folder}, so its model has seen that fold's images"
            )
        if folder not in checked:
            read_folds_of_run(settings, data, folder, where)
            checked.add(folder)


def _warn_of_leak(settings: Settings, weights: Path) -> None:
    """A `best.pt` of the same label table has learnt from images that other folds validate on."""
    own = read_weight_file(weights).own
    if own is None:
        return
    try:  # not as settings, of which another version may have others
        earlier = parse_json(own["settings"])
        is_same = [earlier[name] for name in TABLE_SETTINGS] == [getattr(settings, name) for name in TABLE_SETTINGS]
    except (ValueError, TypeError, KeyError):
        return
    if is_same:
        warn(
            f"pretrained={weights} was trained on images of the same label table; a fold that validates on "
            "images which it has seen scores too well: pretrained='RUN/fold{fold}/best.pt' gives each fold its own"
        )


def read_folds_of_run(settings: Settings, data: RunData, folder: Path, where: str) -> npt.NDArray[np.int8]:
    """(N,) the fold of each image in an earlier run, whose model has not seen its patient.

    Args:
        settings: of the run that learns from the earlier one.
        data: its images.
        folder: the earlier run's.
        where: the setting that names it, for messages.

    Raises:
        UserError: an image is not there, or another fold's or patient's.
    """
    file = folder / "predictions.csv"
    if not file.is_file():
        raise UserError(f"{where}: has no predictions.csv, so no fold is finished; run train.py until it is")
    check_finished(folder, f"run train.py for {folder} again", names=(file.name,))
    uid_column, frame, _ = read_predictions(file)
    found = frame.set_index(uid_column)[["fold", "patient"]]
    uids, patient_ids = data.uids, data.patient_ids
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
    shared = sorted(set(leaking) & set(patient_ids.tolist())) or in_several_folds(folds, data.pixel_ids)
    if shared:
        raise UserError(f"{where}: its folds leak: the images of {shared[0]} are in several; train it on others")
    if not settings.all_data and (folds != data.folds).any():
        image = int(np.flatnonzero(folds != data.folds)[0])
        raise UserError(
            f"{where}: its folds are others: {uids[image]} is in fold {folds[image]} there, in {data.folds[image]} "
            "here; set num_folds, fold_seed (its seed, if that was not set) and fold_column as there"
        )
    return folds
