"""Training of one model, from batches to the best checkpoint, going on where a snapshot was taken."""

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from pytorch_pfn_extras.reporting import report
from pytorch_pfn_extras.training import ExtensionsManager
from pytorch_pfn_extras.writing import Writer

from catheters.data.batch import Batch
from catheters.data.loader import EpochLoader, Loader
from catheters.host import release_free_memory
from catheters.interrupts import deferred_interrupts
from catheters.models.classifier import create_classifier
from catheters.progress import duration, track
from catheters.settings import Settings
from catheters.training.distributed import Processes
from catheters.training.log import TrainingLog
from catheters.training.losses import total
from catheters.training.snapshots import Snapshots
from catheters.training.step import TrainStep, convert_batch_norm
from catheters.training.validation import KeepLast, Validation


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What training a model needs besides settings and batches.

    Attributes:
        device: where it computes.
        processes: those that train it together.
        environment: see `describe_environment`, with the `data_fingerprint`; goes into checkpoints and snapshots.
        mean: grey mean of the images, in 0..1.
        std: their standard deviation, in 0..1.
        num_models_left: models of the run that come after this one, for the time left.
    """

    device: torch.device
    processes: Processes
    environment: Mapping[str, Any]
    mean: float
    std: float
    num_models_left: int


@dataclass(frozen=True, kw_only=True)
class FoldResult:
    """What the best epoch of a fold gave on its validation images.

    Attributes:
        epoch: the best epoch, from 1.
        macro_auc: its macro ROC AUC.
        probabilities: (n, K) float32, in the order of the validation images.
    """

    epoch: int
    macro_auc: float
    probabilities: npt.NDArray[np.float32]


def train_fold(
    settings: Settings, fold: int, train_loader: EpochLoader, valid_loader: Loader, around: Surroundings, folder: Path
) -> FoldResult:
    """Train until the last epoch, or until `early_stop` epochs brought nothing better.

    Args:
        settings: the run's settings.
        fold: the validation fold.
        train_loader: batches of the other folds, shuffled.
        valid_loader: batches of this fold, in order.
        around: where it trains.
        folder: gets `best.pt`, with averaged weights also `best_raw.pt`, `log.jsonl`, and snapshots in `last/`.

    Raises:
        UserError: a loss is NaN or infinite, memory or the disk does not suffice; what the folder holds is kept.
        Interrupted: a signal asked for it, and a snapshot is written.
    """
    seed = int(np.random.SeedSequence((settings.seed, fold)).generate_state(1)[0])
    step = create_step(settings, seed, len(train_loader), around)
    validation = Validation(settings, fold, step, valid_loader, around.environment, folder)
    _train(settings, f"fold {fold}", train_loader, step, validation, around, folder)
    return FoldResult(
        epoch=validation.best_epoch,
        macro_auc=validation.best_macro_auc,
        probabilities=validation.best_probabilities,
    )


def train_on_all(settings: Settings, train_loader: EpochLoader, around: Surroundings, folder: Path) -> None:
    """Train every epoch without validation and keep the last weights.

    Args:
        settings: the run's settings, with the seed of this model.
        train_loader: batches of all images, shuffled.
        around: where it trains.
        folder: gets `log.jsonl`, snapshots in `last/`, `last.pt` after each epoch, `final.pt` in its place after the
            last one, and with averaged weights `final_raw.pt`.

    Raises:
        UserError: as in `train_fold`, or an answer is NaN or infinite.
        Interrupted: a signal asked for it, and a snapshot is written.
    """
    step = create_step(settings, settings.seed, len(train_loader), around)
    keep_last = KeepLast(settings, step, train_loader.samples, around.environment, folder)
    _train(settings, f"seed {settings.seed}", train_loader, step, keep_last, around, folder)
    keep_last.finish()


class _NoWriter(Writer):
    """The manager's writer would make the folder, on machines too that need none; no extension here uses it."""

    def initialize(self, out_dir: str) -> None:
        """Make nothing."""


def is_over(settings: Settings, num_epochs: int, best_epoch: int) -> bool:
    """Whether a model is trained after so many epochs, the best of which is `best_epoch`, counted from 1."""
    return num_epochs >= settings.num_epochs or 0 < settings.early_stop <= num_epochs - best_epoch


def create_step(settings: Settings, seed: int, num_batches: int, around: Surroundings) -> TrainStep:
    """A new model with all that it needs to learn, its weights drawn by the seed."""
    if around.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(around.device)  # what was tried before is not what the log shows
    torch.manual_seed(seed)
    model = create_classifier(settings, around.mean, around.std).to(around.device)
    if settings.sync_batch_norm and around.processes.count > 1:
        model = convert_batch_norm(model, around.device)
    return TrainStep(settings, model, num_batches, around.device, around.processes)


def _train(
    settings: Settings,
    what: str,
    loader: EpochLoader,
    step: TrainStep,
    scorer: Validation | KeepLast,
    around: Surroundings,
    folder: Path,
) -> None:
    """All epochs of a model that are not done yet; `what` names it."""
    num_batches = len(loader)
    release_free_memory()  # reading table and index took many times what is kept of them, and processes fork from here
    log = TrainingLog(
        folder,
        what,
        around.processes,
        around.device,
        num_batches=num_batches,
        num_epochs=settings.num_epochs,
        batch_size=settings.images_per_batch,
        num_models_left=around.num_models_left,
        may_skip=step.scaler.is_enabled(),
    )
    snapshots = Snapshots(folder, what, settings, around.environment, around.processes, step, log, scorer, num_batches)
    manager = ExtensionsManager(
        step.model,
        step.optimizer,
        settings.num_epochs,
        iters_per_epoch=num_batches,
        extensions=[log, snapshots],
        out_dir=str(folder),
        writer=_NoWriter(),
        state_objects={"step": step, "scorer": scorer},
    )
    with deferred_interrupts(), closing(log):
        if not snapshots.restore(manager):
            log.cut()  # lines of a process that was killed before its first snapshot
        while True:
            epoch, num_done = divmod(manager.iteration, num_batches)
            if scorer.num_epochs < epoch:  # its batches are learnt from, its score is not known yet
                if epoch < settings.num_epochs:
                    loader.start(epoch)  # the score may end the fold; mostly it does not
                _end_epoch(settings, what, step, scorer, log, snapshots, manager)
            if is_over(settings, scorer.num_epochs, scorer.best_epoch):
                break
            loader.go_to(epoch, num_done)
            train_epoch(loader, step, manager, log, f"{what} epoch {epoch + 1}/{settings.num_epochs}", num_done)
    snapshots.finish()
    if around.processes.is_first and scorer.num_epochs < settings.num_epochs:
        print(f"{what}: no better macro AUC in {settings.early_stop} epochs, stopped early")


class Batches(Protocol):
    """What an epoch goes through: a number of batches, each what a `TrainStep` takes."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Batch]: ...


def train_epoch(
    batches: Batches, step: TrainStep, manager: ExtensionsManager, log: TrainingLog, what: str, num_done: int = 0
) -> None:
    """One pass over the batches of an epoch.

    Args:
        batches: those that are left of it, their number being that of the whole epoch.
        step: learns from each.
        manager: runs the log and the snapshots after each.
        log: measures how long each batch is waited for.
        what: names the epoch beside the progress bar.
        num_done: batches of the epoch that were learnt from before.

    Raises:
        UserError: a loss or gradient is NaN or infinite.
        Interrupted: a signal asked for it, and a snapshot is written.
    """
    step.model.train()
    log.begin_epoch()
    waited_for = log.wait_for_each(batches)
    for batch in track(waited_for, what, len(batches), unit="batch", leave=False, num_done=num_done):
        with manager.run_iteration():
            learning_rate = step.learning_rate
            losses = step(batch)
            report({"train/loss": total(losses), "lr": learning_rate})
            if step.grad_norm is not None:
                report({"train/grad_norm": step.grad_norm})


def _end_epoch(
    settings: Settings,
    what: str,
    step: TrainStep,
    scorer: Validation | KeepLast,
    log: TrainingLog,
    snapshots: Snapshots,
    manager: ExtensionsManager,
) -> None:
    """Score, log, let the schedule know, take a snapshot: in this order, so that a kill in between loses nothing."""
    scores = scorer.end_epoch(manager.iteration, lambda: snapshots.stop_if_asked(manager))
    entry = log.end_epoch(manager.iteration, step.learning_rate, scores)
    if isinstance(scorer, Validation):
        step.schedule.end_epoch(scorer.macro_auc)
    if step.processes.is_first:
        is_best = isinstance(scorer, Validation) and scorer.best_epoch == scorer.num_epochs
        _print_epoch(f"{what} epoch {scorer.num_epochs}/{settings.num_epochs}", entry, is_best=is_best)
    snapshots.write(manager)


def _print_epoch(what: str, entry: Mapping[str, Any], *, is_best: bool) -> None:
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
    print("  ".join([*parts, "best so far"] if is_best else parts), flush=True)
