"""Training of one model, from batches to the best checkpoint, resumed where a snapshot was taken."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Protocol

from pytorch_pfn_extras.reporting import report

from catheters.data.batch import Batch
from catheters.data.loader import EpochLoader, Loader
from catheters.runtime.interrupts import deferred_interrupts
from catheters.runtime.progress import track
from catheters.training.context import TrainContext
from catheters.training.extensions.chance import ChanceCheck
from catheters.training.extensions.checkpoints import BestCheckpoint, LastCheckpoint
from catheters.training.extensions.epochs import EpochLog, LoadNextEpoch, PlateauSchedule, Stopping
from catheters.training.extensions.log import TrainingLog
from catheters.training.extensions.snapshots import Snapshots
from catheters.training.extensions.trackers import create_trackers
from catheters.training.manager import AnyExtension, Manager
from catheters.training.step import TrainStep
from catheters.training.validation import Validation


def train_fold(
    step: TrainStep,
    train_loader: EpochLoader,
    valid_loader: Loader,
    context: TrainContext,
    fold: int,
    extensions: Sequence[AnyExtension] = (),
) -> BestCheckpoint:
    """Train until the last epoch, or until `early_stop` epochs brought nothing better (early stopping).

    Args:
        step: learns from each batch; of a new model.
        train_loader: batches of the other folds, shuffled.
        valid_loader: batches of this fold, in order.
        context: the run; its folder gets `best.pt`, with EMA weights also `best_raw.pt`, `log.jsonl`, and snapshots in
            `last/`.
        fold: the validation fold.
        extensions: the user's own, of pytorch-pfn-extras; their state is kept in snapshots.

    Raises:
        UserError: a loss is NaN or infinite, memory or the disk does not suffice; what the folder holds is kept.
        Interrupted: a signal asked for it, and a snapshot is written.
    """
    log = TrainingLog.of(context, step, len(train_loader))
    validation = Validation(step, valid_loader, context.label_columns, context.folder)
    best = BestCheckpoint(step, validation, context, fold)
    stopping = Stopping(extensions, context.num_epochs, context.what, step.processes, best, context.early_stop)
    chance_check = ChanceCheck(
        validation,
        stopping,
        context.num_epochs,
        context.warmup_epochs,
        context.what,
        context.advice_at_chance,
        step.processes,
    )
    snapshots = Snapshots(context, step, log, best, stopping, len(train_loader))
    in_order = [
        log,
        LoadNextEpoch(train_loader, context.num_epochs),
        validation,
        best,
        EpochLog(log, context.what, context.num_epochs, step, best),
        PlateauSchedule(step, validation),  # lowers the learning rate after it is logged
        *create_trackers(context, log, step.processes),
        *extensions,
        stopping,
        chance_check,  # knows by now whether this epoch is the last
        snapshots,
    ]
    _train(step, train_loader, context, log, in_order, stopping, snapshots)
    return best


def train_on_all(
    step: TrainStep,
    train_loader: EpochLoader,
    context: TrainContext,
    seed: int,
    extensions: Sequence[AnyExtension] = (),
) -> None:
    """Train every epoch without validation and keep the last weights.

    Args:
        step: as in `train_fold`.
        train_loader: batches of all images, shuffled.
        context: the run; its folder gets `log.jsonl`, snapshots in `last/`, `last.pt` after each epoch, `final.pt` in
            its place after the last one, and with EMA weights `final_raw.pt`.
        seed: of this model.
        extensions: as in `train_fold`.

    Raises:
        UserError: as in `train_fold`, or an output is NaN or infinite.
        Interrupted: a signal asked for it, and a snapshot is written.
    """
    log = TrainingLog.of(context, step, len(train_loader))
    last_checkpoint = LastCheckpoint(step, train_loader.samples, context, seed)
    stopping = Stopping(extensions, context.num_epochs, context.what, step.processes)
    snapshots = Snapshots(context, step, log, last_checkpoint, stopping, len(train_loader))
    in_order = [
        log,
        LoadNextEpoch(train_loader, context.num_epochs),
        last_checkpoint,
        EpochLog(log, context.what, context.num_epochs, step, None),
        *create_trackers(context, log, step.processes),
        *extensions,
        stopping,
        snapshots,
    ]
    _train(step, train_loader, context, log, in_order, stopping, snapshots)


def _train(
    step: TrainStep,
    loader: EpochLoader,
    context: TrainContext,
    log: TrainingLog,
    extensions: Sequence[AnyExtension],
    stopping: Stopping,
    snapshots: Snapshots,
) -> None:
    """All epochs of a model that are not done yet."""
    num_batches, num_epochs = len(loader), context.num_epochs
    manager = Manager(
        step, extensions, num_epochs=num_epochs, num_batches=num_batches, folder=context.folder, stopping=stopping
    )
    with deferred_interrupts(), closing(manager):
        if not snapshots.restore(manager):
            log.truncate()  # lines of a process that was killed before its first snapshot
        manager.finish_iteration()
        while not manager.is_over:
            epoch, num_done = divmod(manager.iteration, num_batches)
            loader.go_to(epoch, num_done)
            train_epoch(loader, step, manager, log, f"{context.what} epoch {epoch + 1}/{num_epochs}", num_done)
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
    log.start_epoch()
    waited_for = log.wait_for_each(batches)
    for batch in track(waited_for, what, len(batches), unit="batch", leave=False, num_done=num_done):
        with manager.run_iteration():
            result = step(batch)
            log.take(result)
            report({"train/loss": result.loss, "lr": result.learning_rate})  # for the user's extensions
