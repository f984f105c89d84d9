"""Weights of an earlier run that a model starts from: never of a model that has seen what it will be scored on."""

import dataclasses
from pathlib import Path

from catheters.config.settings import FIELDS, Settings
from catheters.errors import UserError
from catheters.io.files import parse_json
from catheters.models.weight_files import read_weight_file
from catheters.runs.earlier_runs.folds import read_folds_of_run
from catheters.runs.run_data import RunData
from catheters.runs.run_folder import run_folder_of
from catheters.runtime.console import warn

NAMES_OF_TABLE = ("dataset_folder", "label_table")
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
        weights = Path(str(with_weights_of(settings, settings.folds_to_train[0]).pretrained))
        warn_of_leak(settings, weights, f"pretrained={weights}")
        return
    checked: set[Path] = set()
    for fold in settings.folds_to_train:
        file = Path(str(with_weights_of(settings, fold).pretrained))
        where = f"pretrained={settings.pretrained}"
        if not file.is_file():
            raise UserError(f"{where}: {file}: no such file; each fold needs its own")
        folder = run_folder_of(file)
        if folder is None:
            warn_of_leak(settings, file, f"pretrained={file}")
            continue
        if f"fold{fold}" not in file.relative_to(folder).parts:
            raise UserError(
                f"{where}: {file} is not of fold {fold} of {folder}, so its model has seen that fold's images"
            )
        if folder not in checked:
            may_leak = settings.allow_leaking_folds
            read_folds_of_run(settings, data, folder, where, settings.folds_to_train, may_leak=may_leak)
            checked.add(folder)


def warn_of_leak(settings: Settings, weights: Path, what: str) -> None:
    """Warn of a `best.pt` that has learnt from images of this label table, which other folds validate on.

    Args:
        settings: of the run that learns from it.
        weights: the file.
        what: uses it, as the start of the message.
    """
    own = read_weight_file(weights).own
    if own is None:
        return
    try:  # not as settings, of which another version may have others
        earlier = parse_json(own["settings"])
        tables = [earlier, *earlier.get("extra_tables", [])]
        wanted = [getattr(settings, name) for name in NAMES_OF_TABLE]
        has_seen = any([of.get(name, FIELDS[name].default) for name in NAMES_OF_TABLE] == wanted for of in tables)
    except (ValueError, TypeError, KeyError, AttributeError):
        return
    if has_seen:
        warn(
            f"{what} was trained on images of the same label table; a fold that validates on images which it has seen "
            "scores too well: pretrained='RUN/fold{fold}/best.pt' gives each fold its own"
        )
