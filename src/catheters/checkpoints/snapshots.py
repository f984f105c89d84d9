"""Snapshots on the disk: which there are, and reading them without trust.

A snapshot is a folder `last/<number>/`; see `training.extensions.snapshots`.
"""

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from catheters.errors import UserError
from catheters.io.files import UnreadableFileError, link_or_copy, read_json
from catheters.io.torch_files import check_archive, read_torch_file

FORMAT_VERSION = 2
STATE_FILE = "state.pt"
PROGRESS_FILE = "progress.json"
OF_EPOCH = (
    "validation",
    "best_checkpoint",
    "last_checkpoint",
    "epoch_log",
    "plateau_schedule",
    "stopping",
    "chance_check",
    "snapshots",
)
"""Extensions that do what version 0.2.0 did after the last batch of an epoch."""


class DamagedSnapshotError(UserError):
    """A snapshot that cannot be read, or is none."""


def snapshot_names(last_folder: Path) -> Sequence[str]:
    """Names of the snapshots, oldest first; their order is counted, not taken from a clock."""
    if not last_folder.is_dir():
        return []
    return sorted(path.name for path in last_folder.iterdir() if path.name.isdecimal() and path.is_dir())


def has_snapshot(folder: Path) -> bool:
    """Whether a model's folder holds a snapshot, whole or not."""
    return bool(snapshot_names(folder / "last"))


def read_progress(folder: Path) -> dict[str, int] | None:
    """`epoch`, `best_epoch`, `iteration` of the newest snapshot in a model's folder; None where none says so.

    And `num_epochs_when_asked_to_stop`, 0 where no extension did.
    """
    for name in reversed(snapshot_names(folder / "last")):
        with contextlib.suppress(UnreadableFileError, ValueError, KeyError, TypeError):
            progress = read_json(folder / "last" / name / PROGRESS_FILE)
            numbers = {key: int(progress[key]) for key in ("epoch", "best_epoch", "iteration")}
            when_asked = "num_epochs_when_asked_to_stop"
            return {**numbers, when_asked: int(progress.get(when_asked, 0))}
    return None


def read_state(snapshot: Path) -> dict[str, Any]:
    """Read the state of a snapshot, and nothing but tensors and plain data.

    Every byte of it and of its checkpoints is compared with a checksum.

    Raises:
        DamagedSnapshotError: says which file, and what is wrong with it.
    """
    file = snapshot / STATE_FILE
    try:
        state: dict[str, Any] = read_torch_file(file)
        for checkpoint in sorted(snapshot.glob("*.pt")):
            if checkpoint != file:
                check_archive(checkpoint)
    except UnreadableFileError as error:
        raise DamagedSnapshotError(str(error)) from None
    version = state.get("format_version") if isinstance(state, dict) else None
    if version not in (1, FORMAT_VERSION):
        raise DamagedSnapshotError(f"{file}: no snapshot that this version of the program wrote")
    return state


def upgrade(state: Mapping[str, Any], num_batches: int) -> Mapping[str, Any]:
    """A snapshot of version 0.2.0 as one of now, for epochs of so many batches.

    There, what validated and kept checkpoints was no extension.
    """
    if state["format_version"] == FORMAT_VERSION:
        return state
    manager = state["manager"]
    state_objects = dict(manager["state_objects"])
    keeper = state_objects.pop("scorer")
    log = dict(manager["extensions"]["log"]["extension"])
    log["batches"] = [(*batch, {}) for batch in log["batches"]]
    if "latest_norms" not in log:  # steps skipped in the epochs before are not known
        log["latest_norms"] = [norm for _, _, norm, _ in log["batches"] if norm is not None]
    log["latest"] = []
    is_scored = keeper["num_epochs"] == manager["_start_iteration"] // num_batches
    return {
        **state,
        "format_version": FORMAT_VERSION,
        "manager": {
            **manager,
            "state_objects": state_objects,
            "extensions": {
                **manager["extensions"],
                "log": {**manager["extensions"]["log"], "extension": log},
                **{name: {"extension": keeper} for name in ("best_checkpoint", "last_checkpoint")},
            },
            "extensions_left": [] if is_scored else list(OF_EPOCH),
            "observation": {},
        },
    }


def put_back_checkpoints(snapshot: Path, folder: Path) -> None:
    """Let a model's folder hold the checkpoints of a snapshot: epochs after it, which are lost, may have had better."""
    for kept in snapshot.glob("*.pt"):
        checkpoint = folder / kept.name
        if kept.name == STATE_FILE or (checkpoint.exists() and checkpoint.samefile(kept)):
            continue
        part = checkpoint.with_name(f"{checkpoint.name}.part")
        part.unlink(missing_ok=True)
        link_or_copy(kept, part)
        part.replace(checkpoint)
