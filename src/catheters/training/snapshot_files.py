"""Snapshots on the disk: which there are, and reading them without trust.

A snapshot is a folder `last/<number>/`; see `snapshots`.
"""

import contextlib
import json
import pickle
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from catheters.errors import UserError, one_line
from catheters.files import link_or_copy

FORMAT_VERSION = 1
STATE_FILE = "state.pt"
PROGRESS_FILE = "progress.json"


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
    """`epoch`, `best_epoch` and `iteration` of the newest snapshot in a model's folder; None where none says so."""
    for name in reversed(snapshot_names(folder / "last")):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            progress = json.loads((folder / "last" / name / PROGRESS_FILE).read_text())
            return {key: int(progress[key]) for key in ("epoch", "best_epoch", "iteration")}
    return None


def read_state(snapshot: Path) -> dict[str, Any]:
    """Read the state of a snapshot, and nothing but tensors and plain data.

    Every byte of it and of its checkpoints is compared with a checksum: torch.load compares none.

    Raises:
        DamagedSnapshotError: says which file, and what is wrong with it.
    """
    file = snapshot / STATE_FILE
    for checked in (file, *sorted(snapshot.glob("*.pt"))):
        try:
            with zipfile.ZipFile(checked) as archive:
                damaged = archive.testzip()
        except (OSError, ValueError, RuntimeError, EOFError, zipfile.BadZipFile) as error:
            raise DamagedSnapshotError(f"{checked}: damaged ({one_line(error, 120)})") from None
        if damaged is not None:
            raise DamagedSnapshotError(f"{checked}: damaged ({damaged} is not what was written)")
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, EOFError, ValueError, KeyError, RuntimeError) as error:
        raise DamagedSnapshotError(f"{file}: damaged ({one_line(error, 120)})") from None
    except pickle.UnpicklingError:
        raise DamagedSnapshotError(f"{file}: refused, it holds more than tensors and plain data") from None
    if not isinstance(state, dict) or state.get("format_version") != FORMAT_VERSION:
        raise DamagedSnapshotError(f"{file}: no snapshot that this version of the program wrote")
    return state


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
