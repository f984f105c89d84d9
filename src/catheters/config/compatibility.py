"""Which settings may change when a run is resumed, and an error that names those that may not."""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

from catheters.config.loading import settings_from_json, settings_to_json
from catheters.config.settings import Settings
from catheters.errors import SettingsError

MAY_CHANGE = (
    *("folds", "seeds", "num_workers", "valid_batch_size", "device", "cache_folder", "dataset_folder"),
    *("annotation_table", "landmark_table", "first_stage", "teacher", "saved_models_folder", "run_name"),
    "lr_batch_size",  # what follows from it is compared: the learning rate
    *("snapshot_minutes", "snapshot_iterations", "folds_parallel", "channels_last", "compile_mode", "profile"),
    "trackers",
)
"""Settings that may differ when a run is resumed: where and how fast it runs, what it plots and keeps. They do not
change what it computes, although another device, memory layout or compilation rounds differently. Folders and
tables of lines and landmarks are names; what they hold is compared by its content, see `run_folder`."""
MAY_GROW = ("epochs", "early_stop")
"""Settings that may become larger: a longer run starts as the shorter one did."""
WEIGHTS_OF_STAGE = re.compile(r"stage\d+(_debug)?/(fold\{fold\}/best|seed\{seed\}/final)\.pt")
"""What a stage starts from, in the run folder: see `Settings.in_stages`."""


def check_same_settings(earlier: Settings, settings: Settings, where: str) -> None:
    """Raise a SettingsError that lists what differs, unless a run of `earlier` can be resumed with `settings`.

    Args:
        earlier: what was run.
        settings: what shall be.
        where: what holds the earlier ones, as the start of the message.
    """
    old, new = comparable(earlier), comparable(settings)
    differences = [
        f"{field.name} was {old[field.name]!r}, is {new[field.name]!r}"
        for field in dataclasses.fields(Settings)
        if field.name not in (*MAY_CHANGE, *MAY_GROW, "fold_seed") and old[field.name] != new[field.name]
    ]
    if earlier.seed_of_folds != settings.seed_of_folds and earlier.seed == settings.seed:  # else `seed` is named
        differences.append(f"fold_seed was {earlier.fold_seed}, is {settings.fold_seed}")
    is_one_cycle = settings.schedule == "one_cycle"  # whose learning rates all follow from the number of epochs
    if settings.num_epochs < earlier.num_epochs or (is_one_cycle and settings.num_epochs != earlier.num_epochs):
        may = "change with schedule='one_cycle'" if is_one_cycle else "become fewer"
        differences.append(f"epochs were {earlier.num_epochs}, are {settings.num_epochs}, and may not {may}")
    if _patience(settings) < _patience(earlier):
        differences.append(f"early_stop was {earlier.early_stop}, is {settings.early_stop}, and may not become less")
    if differences:
        raise SettingsError(
            f"{where} of other settings: {'; '.join(differences)}; set them as they were, choose another "
            "run_name, or --fresh to start over"
        )


def comparable(settings: Settings) -> dict[str, Any]:
    """Settings as plain data, equal where a folder that was moved, or whose name may change, is all that differs."""
    # Through JSON, since a list and a tuple in a transform's parameters are the same there.
    values: dict[str, Any] = json.loads(settings_to_json(settings))
    values["extra_tables"] = [
        {name: value for name, value in table.items() if name not in MAY_CHANGE} for table in values["extra_tables"]
    ]
    values["pretrained"] = _weights(settings)
    return values


def _weights(settings: Settings) -> bool | str:
    """`pretrained`; that of a stage, which the run itself has written, relative to the whole run's folder."""
    if not isinstance(settings.pretrained, str) or settings.run_name is None:
        return settings.pretrained
    file = Path(settings.pretrained)
    is_inner = re.fullmatch(r"stage\d+", settings.run_name) is not None
    for folder in (settings.run_folder, settings.run_folder.parent)[: 2 if is_inner else 1]:
        if file.is_relative_to(folder) and WEIGHTS_OF_STAGE.fullmatch(relative := file.relative_to(folder).as_posix()):
            return relative
    return settings.pretrained


def check_resumable(written: str, written_by: str, settings: Settings, snapshot: str) -> None:
    """Raise a SettingsError unless a run with `settings` can be resumed from a snapshot.

    Args:
        written: the settings in the snapshot, as JSON.
        written_by: the version of the program that wrote them.
        settings: what shall be.
        snapshot: where they are from, for the message.
    """
    check_same_settings(settings_from_json(written, snapshot, written_by), settings, f"{snapshot}: a snapshot")


def _patience(settings: Settings) -> float:
    return settings.early_stop or float("inf")
