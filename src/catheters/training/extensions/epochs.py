"""What else happens after an epoch, each as an extension of pytorch-pfn-extras; `loop` has them in their order."""

from collections.abc import Mapping, Sequence
from typing import Any

from pytorch_pfn_extras.training.extension import Extension, ExtensionEntry

from catheters.data.loader import EpochLoader
from catheters.errors import counted
from catheters.runtime.console import say
from catheters.runtime.distributed import Processes
from catheters.runtime.progress import duration
from catheters.training.extensions.checkpoints import BestCheckpoint
from catheters.training.extensions.log import TrainingLog
from catheters.training.step import TrainStep
from catheters.training.validation import Validation


class LoadNextEpoch(Extension):
    """Lets the DataLoader workers start the next epoch before this one is validated.

    Early stopping may stop the training after that validation; mostly it does not.
    """

    name = "load_next_epoch"
    trigger = (1, "epoch")

    def __init__(self, loader: EpochLoader, num_epochs: int) -> None:
        """Start each of `num_epochs` epochs but the first."""
        self._loader = loader
        self._num_epochs = num_epochs

    def __call__(self, manager: Any) -> None:
        """Start the next epoch, if there is one."""
        if manager.epoch < self._num_epochs:
            self._loader.start(manager.epoch)


class EpochLog(Extension):
    """Writes an epoch's line into the log, and one for people to stdout."""

    name = "epoch_log"
    trigger = (1, "epoch")

    def __init__(
        self, log: TrainingLog, what: str, num_epochs: int, step: TrainStep, best: BestCheckpoint | None
    ) -> None:
        """Log the epochs of a step.

        Args:
            log: has the losses of the epoch's batches.
            what: the model, for the line.
            num_epochs: of the training.
            step: knows the learning rate.
            best: knows the epoch's scores and whether they are the best; None: there is no validation.
        """
        self._log = log
        self._what = what
        self._num_epochs = num_epochs
        self._step = step
        self._best = best

    def __call__(self, manager: Any) -> None:
        """Log the finished epoch."""
        scores = {} if self._best is None else self._best.scores
        entry = self._log.end_epoch(manager.iteration, self._step.learning_rate, scores)
        if self._step.processes.is_first:
            is_best = self._best is not None and self._best.best_epoch == manager.epoch
            line = _describe(f"{self._what} epoch {manager.epoch}/{self._num_epochs}", entry)
            say(f"{line}  best so far" if is_best else line)


class PlateauSchedule(Extension):
    """Tells the learning-rate schedule an epoch's score; "plateau" lowers the learning rate by it."""

    name = "plateau_schedule"
    trigger = (1, "epoch")

    def __init__(self, step: TrainStep, validation: Validation) -> None:
        """Move the schedule of a step by the scores of the validation."""
        self._step = step
        self._validation = validation

    def __call__(self, manager: Any) -> None:
        """Tell it the score of the finished epoch."""
        self._step.schedule.end_epoch(self._validation.macro_auc)


class Stopping(Extension):
    """Stops the training before its last epoch: early stopping, or because a user's extension asks for it.

    It asks after each epoch, when it has been scored: an extension whose attribute `asks_to_stop` is true then, on any
    rank, stops them all.
    """

    name = "stopping"
    trigger = (1, "epoch")

    def __init__(
        self,
        extensions: Sequence[Extension | ExtensionEntry],
        num_epochs: int,
        what: str,
        processes: Processes,
        best: BestCheckpoint | None = None,
        patience: int = 0,
    ) -> None:
        """Stop a training of `num_epochs` epochs.

        Args:
            extensions: the user's, which run before this one; the same on all processes.
            num_epochs: of the training.
            what: the model, for the message.
            processes: the ranks that train it.
            best: knows the best epoch; None: nothing scores.
            patience: of early stopping, epochs without a better one; 0: none.
        """
        self._extensions = [entry.extension if isinstance(entry, ExtensionEntry) else entry for entry in extensions]
        self._num_epochs = num_epochs
        self._what = what
        self._processes = processes
        self._best = best
        self._patience = patience
        self.num_epochs_when_asked = 0

    @property
    def is_over(self) -> bool:
        """Whether the training stops here; early stopping follows from the epochs so far, whatever patience was before.

        What an extension asked for holds for as long a training as it was asked in.
        """
        is_asked = self.num_epochs_when_asked >= self._num_epochs
        return is_asked or self._has_stalled

    @property
    def _has_stalled(self) -> bool:
        return self._best is not None and has_stalled(self._patience, self._best.num_epochs, self._best.best_epoch)

    def __call__(self, manager: Any) -> None:
        """Ask the extensions."""
        asking = [getattr(extension, "asks_to_stop", None) for extension in self._extensions]
        if any(asked is not None for asked in asking) and self._processes.highest(int(any(asking))):
            self.num_epochs_when_asked = self._num_epochs

    def finalize(self, manager: Any) -> None:
        """Print why the training stopped, if this stopped it."""
        if not self._processes.is_first or manager.epoch >= self._num_epochs:
            return
        if self._has_stalled:
            say(f"{self._what}: early stopping, no better macro AUC in {counted(self._patience, 'epoch')}")
        else:
            say(f"{self._what}: an extension asked to stop after epoch {manager.epoch} of {self._num_epochs}")

    def state_dict(self) -> dict[str, Any]:
        """Of how many epochs the training was in which an extension asked; 0: none did."""
        return {"num_epochs_when_asked": self.num_epochs_when_asked}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.num_epochs_when_asked = state["num_epochs_when_asked"]


def has_stalled(patience: int, num_epochs: int, best_epoch: int) -> bool:
    """Whether `patience` epochs, if it is not 0, came after the best of them, counted from 1."""
    return 0 < patience <= num_epochs - best_epoch


def _describe(what: str, entry: Mapping[str, Any]) -> str:
    parts = [what, f"loss {entry['train/loss']:.4f}"]
    if "val/loss" in entry:
        parts += [f"val loss {entry['val/loss']:.4f}", f"macro AUC {entry['val/macro_auc']:.4f}"]
    if "val/raw/macro_auc" in entry:
        parts.append(f"(raw weights {entry['val/raw/macro_auc']:.4f})")
    speed = entry["speed"]
    parts += [
        f"lr {entry['lr']:.2e}",
        f"{speed['images_per_second']:.0f} images/s",
        f"{speed['waiting_share']:.0%} waiting for data",
        *([f"{speed['gpu_memory_gb']:.1f} GB"] if speed["gpu_memory_gb"] is not None else []),
        duration(speed["epoch_seconds"]),
        f"about {duration(speed['seconds_left'])} left",
    ]
    return "  ".join(parts)
