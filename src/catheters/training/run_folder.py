"""The run folder: what was run, on what, with which versions; and whether a run that goes on is still the same."""

import dataclasses
import json
import platform
import sys
from pathlib import Path

from catheters.errors import SettingsError, UserError
from catheters.files import write_text
from catheters.settings import Settings
from catheters.settings_file import settings_from_json, settings_to_json
from catheters.training.checkpoint import package_versions
from catheters.training.step import choose_device, device_name

MAY_CHANGE = (
    *("folds", "seeds", "num_workers", "valid_batch_size", "device", "cache_folder", "dataset_folder"),
    "annotation_table",
)
"""Settings that may differ when a run goes on: where it runs, how fast and what is drawn, not what it computes,
although another kind of device rounds otherwise."""


def enter_run_folder(settings: Settings, data_fingerprint: str) -> None:
    """Create the run folder, or make sure that what it holds is the same run.

    Args:
        settings: the run's settings.
        data_fingerprint: hash of the images, ids, labels and folds that it trains on.

    Raises:
        UserError: the folder holds a run of other settings or data, or something else.
    """
    folder = settings.run_folder
    settings_file = folder / "settings.json"  # written last, so that a folder with it is a run's
    environment_file = folder / "environment.json"
    is_run = settings_file.exists()
    if is_run and any(folder.glob("*/*.pt")):
        _check_same_settings(settings, settings_file)
        _check_environment(data_fingerprint, environment_file)
        print(f"continuing the run in {folder}")
    elif not is_run and folder.exists() and any(path != environment_file for path in folder.iterdir()):
        raise UserError(f"{folder}: holds files but no run; choose another run_name or delete it")
    else:  # a new run, or one that ended before its first checkpoint and may have its settings mended
        folder.mkdir(parents=True, exist_ok=True)
        environment = {
            "data_fingerprint": data_fingerprint,
            "command": sys.argv,
            "python": platform.python_version(),
            "platform": platform.platform(),
            "device": device_name(choose_device(settings.device)),
            "versions": package_versions(),
        }
        write_text(environment_file, json.dumps(environment, indent=2) + "\n")
    write_text(settings_file, settings_to_json(settings))


def _check_environment(data_fingerprint: str, environment_file: Path) -> None:
    """Refuse a run of other data; warn where other versions trained its earlier folds."""
    try:
        environment = json.loads(environment_file.read_text(encoding="utf-8"))
        fingerprint, versions = environment["data_fingerprint"], environment["versions"]
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{environment_file}: missing or damaged; choose another run_name or --fresh") from None
    if fingerprint != data_fingerprint:
        raise UserError(
            f"{environment_file.parent}: was trained on other images, labels or folds; "
            "choose another run_name or --fresh"
        )
    for package, version in package_versions().items():
        if versions.get(package) != version:
            print(
                f"warning: the run was begun with {package} {versions.get(package)}, goes on with {version}",
                file=sys.stderr,
            )


def _check_same_settings(settings: Settings, settings_file: Path) -> None:
    earlier = settings_from_json(settings_file.read_text(encoding="utf-8"), str(settings_file))
    # Through JSON, since a list and a tuple in a transform's parameters are the same there.
    old, new = json.loads(settings_to_json(earlier)), json.loads(settings_to_json(settings))
    differences = [
        f"{field.name} was {old[field.name]!r}, is {new[field.name]!r}"
        for field in dataclasses.fields(Settings)
        if field.name not in MAY_CHANGE and old[field.name] != new[field.name]
    ]
    if differences:
        raise SettingsError(
            f"{settings_file.parent}: holds a run of other settings: {'; '.join(differences)}; "
            "choose another run_name, or --fresh to start over"
        )


def move_aside(folder: Path) -> Path:
    """Rename an earlier run, since nothing that took hours to compute is deleted; returns its new name."""
    number = 1
    while (aside := folder.with_name(f"{folder.name}.old{number}")).exists():
        number += 1
    return folder.rename(aside)
