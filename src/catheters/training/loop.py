"""Training of one model, from batches to the best checkpoint, resumed where a snapshot was taken."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Protocol

import numpy as np
from pytorch_pfn_extras.reporting import report

from catheters.config.settings import Settings
from catheters.data.batch import Batch
from catheters.data.loader import EpochLoader, Loader
from catheters.runtime.interrupts import deferred_interrupts
from catheters.runtime.progress import track
from catheters.training.context import TrainContext, create_log, create_step
from catheters.training.extensions.checkpoints import BestCheckpoint, LastCheckpoint
from catheters.training.extensions.epochs import EpochLog, LoadNextEpoch, PlateauSchedule, Stopping
from catheters.training.extensions.log import TrainingLog
from catheters.training.extensions.snapshots import Snapshots
from catheters.training.extensions.trackers import create_trackers
from catheters.training.manager import AnyExtension, Manager
from catheters.training.step import TrainStep
from catheters.training.validation import Validation


def train_fold(
    settings: Settings,
    fold: int,
    train_loader: EpochLoader,
    valid_loader: Loader,
    context: TrainContext,
    folder: Path,
    extensions: Sequence[AnyExtension] = (),
) -> BestCheckpoint:
    """Train until the last epoch, or until `early_stop` epochs brought nothing better.

    Args:
        settings: the run's settings.
        fold: the validation fold.
        train_loader: batches of the other folds, shuffled.
        valid_loader: batches of this fold, in order.
        context: where it trains.
        folder: gets `best.pt`, with averaged weights also `best_raw.pt`, `log.jsonl`, and snapshots in `last/`.
        extensions: the user's own, of pytorch-pfn-extras; their state is kept in snapshots.

    Raises:
        UserError: a loss is NaN or infinite, memory or the disk does not suffice; what the folder holds is kept.
        Interrupted: a signal asked for it, and a snapshot is written.
    """
    what, num_batches = f"fold {fold}", len(train_loader)
    seed = int(np.random.SeedSequence((settings.seed, fold)).generate_state(1)[0])
    step = create_step(settings, seed, num_batches, context)
    log = create_log(settings, what, num_batches, step, context, folder)
    validation = Validation(step, valid_loader, settings.label_columns, folder)
    best = BestCheckpoint(settings, fold, step, validation, context.environment, folder)
    stopping = Stopping(extensions, settings.num_epochs, what, context.processes, best, settings.early_stop)
    snapshots = Snapshots(folder, what, settings, context.environment, step, log, best, stopping, num_batches)
    in_order = [
        log,
        LoadNextEpoch(train_loader, settings.num_epochs),
        validation,
        best,
        EpochLog(log, what, settings.num_epochs, step, best),  # with the learning rate before a plateau lowers it
        PlateauSchedule(step, validation),
        *create_trackers(settings, what, log, context, folder),
        *extensions,
        stopping,
        snapshots,
    ]
    _train(settings, what, train_loader, step, log, in_order, stopping, snapshots, folder)
    return best


def train_on_all(
    settings: Settings,
    train_loader: EpochLoader,
    context: TrainContext,
    folder: Path,
    extensions: Sequence[AnyExtension] = (),
) -> None:
    """Train every epoch without validation and keep the last weights.

    Args:
        settings: the run's settings, with the seed of this model.
        train_loader: batches of all images, shuffled.
        context: where it trains.
        folder: gets `log.jsonl`, snapshots in `last/`, `last.pt` after each epoch, `final.pt` in its place after the
            last one, and with averaged weights `final_raw.pt`.
        extensions: as in `train_fold`.

    Raises:
        UserError: as in `train_fold`, or an answer is NaN or infinite.
        Interrupted: a signal asked for it, and a snapshot is written.
    """
    what, num_batches = f"seed {settings.seed}", len(train_loader)
    step = create_step(settings, settings.seed, num_batches, context)
    log = create_log(settings, what, num_batches, step, context, folder)
    last_checkpoint = LastCheckpoint(settings, step, train_loader.samples, context.environment, folder)
    stopping = Stopping(extensions, settings.num_epochs, what, context.processes)
    snapshots = Snapshots(
        folder, what, settings, context.environment, step, log, last_checkpoint, stopping, num_batches
    )
    in_order = [
        log,
        LoadNextEpoch(train_loader, settings.num_epochs),
        last_checkpoint,
        EpochLog(log, what, settings.num_epochs, step, None),
        *create_trackers(settings, what, log, context, folder),
        *extensions,
        stopping,
        snapshots,
    ]
    _train(settings, what, train_loader, step, log, in_order, stopping, snapshots, folder)


def _train(
    settings: Settings,
    what: str,
    loader: EpochLoader,
    step: TrainStep,
    log: TrainingLog,
    extensions: Sequence[AnyExtension],
    stopping: Stopping,
    snapshots: Snapshots,
    folder: Path,
) -> None:
    """All epochs of a model that are not done yet; `what` names it."""
    num_batches = len(loader)
    manager = Manager(
        step, extensions, num_epochs=settings.num_epochs, num_batches=num_batches, folder=folder, stopping=stopping
    )
    with deferred_interrupts(), closing(manager):
        if not snapshots.restore(manager):
            log.cut()  # lines of a process that was killed before its first snapshot
        manager.finish_iteration()
        while not manager.is_over:
            epoch, num_done = divmod(manager.iteration, num_batches)
            loader.go_to(epoch, num_done)
            train_epoch(loader, step, manager, log, f"{what} epoch {epoch + 1}/{settings.num_epochs}", num_done)
        manager.finalize()


class Batches(Protocol):
    """What an epoch goes through: a number of batches, each what a `TrainStep` takes."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Batch]: ...


def train_epoch(
    batches: Batches, step: TrainStep, manager: Manager, log: TrainingLog, what: str, num_done: int = 0
) -> None:
    """One pass over the batches of an epoch.

    Args:
        batches: those that are left of it, their number being that of the whole epoch.
        step: learns from each.
        manager: runs the extensions after each.
        log: measures how long each batch is waited for, and takes in what each gave.
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
            result = step(batch)
            log.take(result)
            report({"train/loss": result.loss, "lr": result.learning_rate})  # for the user's extensions
