"""Runs the extensions of a training after each iteration, and knows when it is over."""

import copy
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import gettempdir
from typing import Any

import numpy as np
from pytorch_pfn_extras.training import ExtensionsManager
from pytorch_pfn_extras.training.extension import PRIORITY_SNAPSHOT, Extension, ExtensionEntry
from torch import Tensor

from catheters.errors import SettingsError
from catheters.training.extensions.epochs import Stopping
from catheters.training.step import TrainStep

AnyExtension = Extension | ExtensionEntry
"""What may stand in a list of extensions; `ExtensionEntry` gives one another trigger or priority."""


BUILT_IN = (
    *("log", "load_next_epoch", "validation", "best_checkpoint", "last_checkpoint", "epoch_log", "plateau_schedule"),
    *("stopping", "chance_check", "snapshots", "tensorboard", "mlflow", "wandb"),
)
"""Names of extensions that a user's may not have."""


class Manager(ExtensionsManager):
    """That of pytorch-pfn-extras, whose state may be taken in the middle of an iteration's extensions.

    Validation takes long: a signal that comes meanwhile stops the process with a snapshot. Which extensions the
    iteration has left by then is part of the state, and `finish_iteration` runs them in the process that resumes.

    The user's objects serve one training after another: each training has triggers of its own.
    """

    def __init__(
        self,
        step: TrainStep,
        extensions: Sequence[AnyExtension],
        *,
        num_epochs: int,
        num_batches: int,
        folder: Path,
        stopping: Stopping | None = None,
    ) -> None:
        """Manage a model's training.

        Args:
            step: whose model, optimizer and state are part of the state.
            extensions: run in this order, but for other priorities.
            num_epochs: of the training.
            num_batches: of an epoch.
            folder: the model's, for extensions that write by the manager's writer; only rank 0 has it.
            stopping: one of the extensions, which may stop the training before its last epoch; None: nothing does.
        """
        self._left: list[str] = []  # names of the extensions that the iteration has before it
        self._num_epochs = num_epochs
        self._stopping = stopping
        super().__init__(
            step.model,
            step.optimizer,
            num_epochs,
            iters_per_epoch=num_batches,
            extensions=_entries(extensions),  # type: ignore[arg-type]  # its annotation leaves them out
            out_dir=str(folder if step.processes.is_first else gettempdir()),
            stop_trigger=lambda _: self.is_over,
            state_objects={"step": step},
        )

    @property
    def is_over(self) -> bool:
        """Whether all epochs are trained, or `Stopping` stops it."""
        return self.epoch >= self._num_epochs or (self._stopping is not None and self._stopping.is_over)

    def run_extensions(self) -> None:
        """Run those whose triggers fire."""
        self._left = [name for name, _ in self.extensions]
        self._run_left()

    def finish_iteration(self) -> None:
        """Run those that the snapshot which was loaded has left of its iteration."""
        self.start_extensions()
        self._start_time = time.perf_counter()  # extensions may ask how long it takes
        with self.reporter.scope(self.observation):
            self._run_left()

    def _run_left(self) -> None:
        entries = dict(self.extensions)
        while self._left:
            entry = entries[self._left[0]]
            is_snapshot = entry.priority == PRIORITY_SNAPSHOT  # a state that it takes has it behind itself
            if is_snapshot:
                del self._left[0]
            if entry.trigger(self):
                entry.extension(self)
            if not is_snapshot:
                del self._left[0]

    def close(self) -> None:
        """Let the extensions close what they hold open, however the training stops."""
        for entry in self._extensions.values():
            close = getattr(entry.extension, "close", None)
            if close is not None:
                close()

    def _finalize_extensions(self) -> None:
        """As the base class does, which lets no AttributeError out."""
        for _, entry in self.extensions:
            entry.extension.finalize(self)

    def state_dict(self) -> dict[str, Any]:
        """All of it; of an iteration in whose middle it is, what was reported and which extensions are left."""
        observation = self.observation if self._left else {}
        reported = {
            name: float(value)
            for name, value in observation.items()
            if isinstance(value, int | float | np.number) or (isinstance(value, Tensor) and value.numel() == 1)
        }
        return {**super().state_dict(), "extensions_left": list(self._left), "observation": reported}

    def load_state_dict(self, to_load: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`; an extension that it does not know has its first state."""
        self.start_extensions()  # `initialize` makes what `state_dict` reads
        known = to_load["extensions"]
        new = {name: entry.state_dict() for name, entry in self._extensions.items() if name not in known}
        super().load_state_dict({**to_load, "extensions": {**known, **new}})
        self._left = [name for name in to_load["extensions_left"] if name in self._extensions]
        self.observation = dict(to_load["observation"])


def _entries(extensions: Sequence[AnyExtension]) -> list[ExtensionEntry]:
    entries = []
    for extension in extensions:
        given = extension if isinstance(extension, ExtensionEntry) else ExtensionEntry(extension)
        entries.append(
            ExtensionEntry(
                given.extension,
                name=given.name,
                priority=given.priority,
                trigger=copy.deepcopy(given.trigger),  # some remember what they have seen
                call_before_training=given.call_before_training,
            )
        )
    return entries


def check_extensions(extensions: Sequence[AnyExtension]) -> None:
    """Raise a SettingsError where the user's extensions are none, or have not each a name of its own."""
    if isinstance(extensions, str) or not isinstance(extensions, Sequence):
        raise SettingsError(f"extensions: a list of extensions is expected, {type(extensions).__name__} came")
    for extension in extensions:
        if isinstance(extension, type) or not (isinstance(extension, ExtensionEntry) or callable(extension)):
            name = extension.__name__ if isinstance(extension, type) else repr(extension)
            raise SettingsError(
                f"extensions: {name} came, an object of a class like pytorch_pfn_extras.training.extension.Extension "
                "is expected"
            )
    names = [entry.name for entry in _entries(extensions)]
    for name in names:
        if name in BUILT_IN:
            raise SettingsError(f"extensions: '{name}' is the name of a built-in one; give yours another `name`")
        if names.count(name) > 1:
            raise SettingsError(
                f"extensions: {names.count(name)} are named '{name}'; give each a `name` of its own, by which "
                "snapshots keep its state"
            )
