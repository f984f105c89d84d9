"""The run folder: one process at a time, and whether a resumed run is still the same."""

import contextlib
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from catheters.checkpoints.finished import adopt
from catheters.checkpoints.snapshots import has_snapshot
from catheters.config.compatibility import check_same_settings
from catheters.config.loading import read_run_settings, settings_to_json
from catheters.config.settings import Settings
from catheters.errors import UserError
from catheters.io.files import sha256_of, write_text
from catheters.io.locks import exclusive_lock
from catheters.io.run_record import FILE_NAME, read_record, recorded_annotations, write_record
from catheters.runtime.console import say, warn

STAGE = re.compile(r"stage\d+(_debug)?(\.\w+)?$")
"""Names of an earlier stage's run folder, of its lock, and of one that was moved aside."""
SETTINGS_FILE = "settings.json"
"""Written last, so that a folder with it is a run's."""


def run_folder_of(file: Path) -> Path | None:
    """The nearest folder around a file that is a run's; None: it lies in none."""
    return next((parent for parent in file.parents if (parent / SETTINGS_FILE).is_file()), None)


@contextlib.contextmanager
def only_process(run_folder: Path) -> Iterator[None]:
    """Keep other processes out of a run folder; the system forgets the lock of a process that is killed.

    Raises:
        UserError: another process is at it, or nothing can be written there.
    """
    lock_file = run_folder.with_name(f"{run_folder.name}.lock")  # beside it, since --fresh moves the folder
    refusal = (
        f"{run_folder}: another process is training this run; wait until it has finished, or choose another run_name"
    )
    with contextlib.ExitStack() as stack:
        try:
            run_folder.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(exclusive_lock(lock_file, refusal))
        except OSError as error:
            raise UserError(
                f"{run_folder.parent}: cannot be written ({error.strerror}); set saved_models_folder to another folder"
            ) from None
        yield


def enter_run_folder(settings: Settings, data_fingerprint: str, environment: Mapping[str, Any]) -> None:
    """Create the run folder, or make sure that what it holds is the same run.

    Args:
        settings: the run's settings.
        data_fingerprint: hash of the images, ids, labels, folds and weights that it trains on.
        environment: see `describe_environment`.

    Raises:
        UserError: the folder holds a run of other settings or data, or something else.
    """
    folder = settings.run_folder
    environments = [dict(environment)]
    annotations = _annotations_sha256(settings)
    check_run_folder(settings)
    if holds_run(folder):
        environments = _continue_record(folder, data_fingerprint, environment)
        annotations = _continue_annotations(folder, annotations)
        adopt(folder)
        say(f"continuing the run in {folder}")
    else:  # a new run, or one that failed before its first checkpoint and may have its settings corrected
        folder.mkdir(parents=True, exist_ok=True)
    write_record(folder, data_fingerprint, environments, annotations)
    write_text(folder / SETTINGS_FILE, settings_to_json(settings))


def check_run_folder(settings: Settings) -> None:
    """Refuse a folder that a run of these settings cannot enter, as far as settings and files tell.

    Raises:
        UserError: it holds a run of other settings, or something else.
    """
    folder = settings.run_folder
    settings_file = folder / SETTINGS_FILE
    if holds_run(folder):
        check_same_settings(read_run_settings(settings_file), settings, f"{folder}: holds a run")
    elif not settings_file.exists() and folder.exists() and _holds_foreign_files(folder):
        raise UserError(f"{folder}: holds files but no run; choose another run_name or delete it")


def holds_run(folder: Path) -> bool:
    """Whether a run was started there whose settings can no longer change: it has a checkpoint or a snapshot."""
    if not (folder / SETTINGS_FILE).exists():
        return False
    return any(folder.glob("*/*.pt")) or any(map(has_snapshot, folder.iterdir()))


def _holds_foreign_files(folder: Path) -> bool:
    """Whether a folder has files that are none of those that a new run's folder gets first, or a kill's rest of one.

    What stands beside an earlier stage of ours came with it, as trackers' files; settings.json, which was not there a
    moment ago, with a process that has just started the run.
    """
    paths = list(folder.iterdir())
    if any(STAGE.match(path.name) and (path / SETTINGS_FILE).is_file() for path in paths):
        return False
    ours = (FILE_NAME, SETTINGS_FILE)
    return any(path.name not in ours and path.suffix != ".part" and not STAGE.match(path.name) for path in paths)


def _continue_record(folder: Path, data_fingerprint: str, environment: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The run's environments, with this one if it is another; refuses a run of other data, names other versions."""
    try:
        fingerprint, environments = read_record(folder)
    except UserError as error:
        raise UserError(f"{error}; choose another run_name or --fresh") from None
    if fingerprint != data_fingerprint:
        raise UserError(
            f"{folder}: was trained on other images, labels, folds, weights, lines or teacher; choose another run_name "
            "or --fresh"
        )
    latest = environments[-1]
    for package, version in environment["versions"].items():
        if latest["versions"].get(package) != version:
            warn(f"the run was started with {package} {latest['versions'].get(package)}, is resumed with {version}")
    return environments if latest == environment else [*environments, dict(environment)]


def _annotations_sha256(settings: Settings) -> str | None:
    """Of the annotation table's content, since its name may change as that of `dataset_folder` may."""
    if settings.annotation_table is None:
        return None
    file = Path(settings.dataset_folder) / settings.annotation_table
    return sha256_of(file) if file.is_file() else None


def _continue_annotations(folder: Path, annotations: str | None) -> str | None:
    """The hash to keep on record; refuses another table than the run was started with.

    One may be added or left out: whether a run learns from it is for its other settings to say, which are compared.
    """
    earlier = recorded_annotations(folder)
    if earlier is not None and annotations is not None and annotations != earlier:
        raise UserError(
            f"{folder}: was started with another content of annotation_table; restore it, or choose another run_name "
            "or --fresh"
        )
    return earlier or annotations


@contextlib.contextmanager
def explain_removed_folder(folder: Path, what: str) -> Iterator[None]:
    """Raise a UserError where what is done in here fails because the run folder is no longer there."""
    try:
        yield
    except OSError as error:
        if folder.is_dir():
            raise
        raise UserError(
            f"{folder}: was removed or renamed while {what} was trained ({error.strerror}); put it back, or start the "
            "run again"
        ) from None


def check_space(settings: Settings, num_bytes: int, of_first_stage: int = 0) -> None:
    """Refuse to start where the disk has no room for one snapshot and its checkpoints.

    Args:
        settings: the run's settings.
        num_bytes: of model, EMA weights and optimizer.
        of_first_stage: bytes of the models that each checkpoint gets along.
    """
    folder = next(path for path in (settings.run_folder, *settings.run_folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(folder).free
    num_checkpoints = 1 if settings.ema_decay is None else 2  # of the raw weights too
    needed = 2 * num_bytes + num_checkpoints * of_first_stage
    if free < needed:
        raise UserError(
            f"{folder}: snapshots and checkpoints need {needed / 1e9:.2f} GB, {free / 1e9:.2f} GB are free; make room "
            "or set saved_models_folder to another disk"
        )


def move_aside(folder: Path) -> Path:
    """Rename an earlier run, since nothing that took hours to compute is deleted; returns its new name."""
    number = 1
    while (aside := folder.with_name(f"{folder.name}.old{number}")).exists():
        number += 1
    return folder.rename(aside)
