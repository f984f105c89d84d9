"""The log's numbers for TensorBoard, where it is installed."""

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

NEVER = 10**9
"""Seconds."""


class Board:
    """Event files in a folder; without tensorboard, which is an extra, nothing."""

    def __init__(self, folder: Path) -> None:
        """Write to `folder`, from the first entry on."""
        self._folder = folder
        self._is_installed = importlib.util.find_spec("tensorboard") is not None
        self._writer: Any = None

    def show(self, entry: Mapping[str, Any], first_iteration: int) -> None:
        """Show an entry of the log.

        Args:
            entry: a line of `log.jsonl`.
            first_iteration: the first one of this process: what an earlier one, that was killed, had shown from there
                on is hidden.
        """
        if not self._is_installed:
            return
        if self._writer is None:
            # Only now: it takes a second.
            from torch.utils.tensorboard import SummaryWriter

            # Written by `flush` alone: an error in tensorboard's own thread would be a traceback of it.
            self._writer = SummaryWriter(str(self._folder), purge_step=first_iteration, flush_secs=NEVER)
        if entry["kind"] == "batches":
            values = {**entry, **{f"speed/{name}": value for name, value in entry["speed"].items()}}
        else:
            values = {name: value for name, value in entry.items() if name.startswith("val/")}
            values["train/loss_of_epoch"] = entry["train/loss"]
        for name, value in values.items():
            if isinstance(value, float):
                self._writer.add_scalar(name, value, entry["iteration"])
        self._writer.flush()

    def close(self) -> None:
        """Write what is waiting."""
        if self._writer is not None:
            self._writer.close()
