"""Weights of an earlier run that a model starts from: never of a model that has seen what it will be scored on."""

import dataclasses
from pathlib import Path

from catheters.config.settings import FIELDS, Settings
from catheters.errors import UserError
from catheters.io.files import parse_json
from catheters.models.weight_files import read_weight_file
from catheters.models.weight_sources import WeightSource, find_weights
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


def sources_of_weights(settings: Settings) -> dict[int, WeightSource]:
    """Number of each fold, or seed, to train -> the file of weights that its model starts from; from the Hub it is
    downloaded. Nothing where `pretrained` is True or False.

    Raises:
        UserError: see `find_weights`.
    """
    if not isinstance(settings.pretrained, str):
        return {}
    numbers = settings.seeds_to_train if settings.all_data else settings.folds_to_train
    return {number: find_weights(str(with_weights_of(settings, number).pretrained)) for number in numbers}


def check_weights(settings: Settings, data: RunData) -> None:
    """Refuse weights of a fold's model that have seen the images which the fold validates on; warn of others.

    Raises:
        UserError: weights with {fold} in their name are missing, or of a run with other folds or patients.
    """
    sources = sources_of_weights(settings)
    if not sources:
        return
    for other in sorted({source.other_architecture(settings.backbone_model) or "" for source in sources.values()}):
        if other:
            warn(
                f"pretrained={settings.pretrained}: its config.json says backbone_model={other}, here it is "
                f"{settings.backbone_model}, whose tensors have the same names and shapes but may mean something else"
            )
    assert isinstance(settings.pretrained, str), "others have no sources"
    if settings.all_data:  # without folds nothing is validated
        return
    if "{fold}" not in settings.pretrained:
        source = sources[settings.folds_to_train[0]]
        warn_of_leak(settings, source.file, f"pretrained={source.origin}")
        return
    checked: set[Path] = set()
    for fold, source in sources.items():
        file = source.file
        where = f"pretrained={settings.pretrained}"
        if not file.is_file():
            raise UserError(f"{where}: {file}: no such file; each fold needs its own")
        folder = run_folder_of(file)
        if folder is None:
            warn_of_leak(settings, file, f"pretrained={source.origin}")
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
