"""What else happens after an epoch, each as an extension of pytorch-pfn-extras; `loop` has them in their order."""

from collections.abc import Mapping
from typing import Any

from pytorch_pfn_extras.training.extension import Extension

from catheters.console import say
from catheters.data.loader import EpochLoader
from catheters.progress import duration
from catheters.training.checkpointing import BestCheckpoint
from catheters.training.log import TrainingLog
from catheters.training.step import TrainStep
from catheters.training.validation import Validation


class LoadNextEpoch(Extension):
    """Lets the DataLoader's workers begin with the next epoch before this one is validated.

    The score may end the training; mostly it does not.
    """

    name = "load_next_epoch"
    trigger = (1, "epoch")

    def __init__(self, loader: EpochLoader, num_epochs: int) -> None:
        """Begin each of `num_epochs` epochs but the first."""
        self._loader = loader
        self._num_epochs = num_epochs

    def __call__(self, manager: Any) -> None:
        """Begin the next epoch, if there is one."""
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
        """Log the epoch that has ended."""
        scores = {} if self._best is None else self._best.scores
        entry = self._log.end_epoch(manager.iteration, self._step.learning_rate, scores)
        if self._step.processes.is_first:
            is_best = self._best is not None and self._best.best_epoch == manager.epoch
            line = _describe(f"{self._what} epoch {manager.epoch}/{self._num_epochs}", entry)
            say(f"{line}  best so far" if is_best else line)


class PlateauSchedule(Extension):
    """Tells the learning rate's schedule an epoch's score, for which "plateau" lowers the rate."""

    name = "plateau_schedule"
    trigger = (1, "epoch")

    def __init__(self, step: TrainStep, validation: Validation) -> None:
        """Move the schedule of a step by the scores of the validation."""
        self._step = step
        self._validation = validation

    def __call__(self, manager: Any) -> None:
        """Tell it the score of the epoch that has ended."""
        self._step.schedule.end_epoch(self._validation.macro_auc)


class EarlyStopping(Extension):
    """Ends the training where `patience` epochs brought nothing better."""

    name = "early_stopping"
    trigger = (1, "epoch")

    def __init__(self, best: BestCheckpoint, patience: int, what: str, *, says_so: bool) -> None:
        """Stop by what `best` knows.

        Args:
            best: counts the epochs.
            patience: 0: never stop.
            what: the model, for the message.
            says_so: whether this process prints.
        """
        self._best = best
        self._patience = patience
        self._what = what
        self._says_so = says_so

    @property
    def asks_to_stop(self) -> bool:
        """Read by the manager after each iteration."""
        return has_stalled(self._patience, self._best.num_epochs, self._best.best_epoch)

    def __call__(self, manager: Any) -> None:
        """Nothing: whether to stop follows from the epochs so far."""

    def finalize(self, manager: Any) -> None:
        """Say so where it was this that ended the training."""
        if self._says_so and self.asks_to_stop and manager.epoch < manager.max_epochs:
            say(f"{self._what}: no better macro AUC in {self._patience} epochs, stopped early")


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
