"""Runs the extensions of a training after each iteration, and knows when it is over."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import gettempdir
from typing import Any

from pytorch_pfn_extras.training import ExtensionsManager
from pytorch_pfn_extras.training.extension import PRIORITY_SNAPSHOT, Extension, ExtensionEntry
from torch import Tensor

from catheters.training.step import TrainStep

AnyExtension = Extension | ExtensionEntry
"""What may stand in a list of extensions; `ExtensionEntry` gives one another trigger or priority."""


class Manager(ExtensionsManager):
    """That of pytorch-pfn-extras, whose state may be taken in the middle of an iteration's extensions.

    Validation takes long: a signal that comes meanwhile ends the process with a snapshot. Which extensions the
    iteration has left by then is part of the state, and `finish_iteration` runs them in the process that resumes.

    An extension whose attribute `asks_to_stop` is true ends the training after the iteration.
    """

    def __init__(
        self,
        step: TrainStep,
        extensions: Sequence[AnyExtension],
        *,
        num_epochs: int,
        num_batches: int,
        folder: Path,
    ) -> None:
        """Manage a model's training.

        Args:
            step: whose model, optimizer and state are part of the state.
            extensions: run in this order, but for other priorities.
            num_epochs: of the training.
            num_batches: of an epoch.
            folder: the model's, for extensions that write by the manager's writer; of several processes only the first
                one's has it.
        """
        self._left: list[str] = []  # names of the extensions that the iteration has before it
        self._num_epochs = num_epochs
        super().__init__(
            step.model,
            step.optimizer,
            num_epochs,
            iters_per_epoch=num_batches,
            extensions=list(extensions),  # type: ignore[arg-type]  # its annotation leaves out what it takes besides
            out_dir=str(folder if step.processes.is_first else gettempdir()),
            stop_trigger=lambda _: self.is_over,
            state_objects={"step": step},
        )

    @property
    def is_over(self) -> bool:
        """Whether all epochs are trained, or an extension asks to stop."""
        return self.epoch >= self._num_epochs or any(
            getattr(entry.extension, "asks_to_stop", False) for _, entry in self.extensions
        )

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
        """Let the extensions close what they hold open, however the training ends."""
        for entry in self._extensions.values():
            close = getattr(entry.extension, "close", None)
            if close is not None:
                close()

    def state_dict(self) -> dict[str, Any]:
        """All of it; of an iteration in whose middle it is, what was reported and which extensions are left."""
        reported = {
            name: float(value) for name, value in self.observation.items() if isinstance(value, int | float | Tensor)
        }
        return {
            **super().state_dict(),
            "extensions_left": list(self._left),
            "observation": reported if self._left else {},
        }

    def load_state_dict(self, to_load: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`; an extension that it does not know begins anew."""
        of_extensions = {name: entry.state_dict() for name, entry in self._extensions.items()}
        super().load_state_dict({**to_load, "extensions": {**of_extensions, **to_load["extensions"]}})
        self._left = [name for name in to_load["extensions_left"] if name in self._extensions]
        self.observation = dict(to_load["observation"])
