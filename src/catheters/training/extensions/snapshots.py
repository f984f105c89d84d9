"""Snapshots: all that a killed run needs to be resumed with the result of an uninterrupted run.

A snapshot is a folder `last/<number>/`: `state.pt`, the whole state; `progress.json`, how far it is, for people and for
a quick look; and second names of the checkpoints that were the best by then, which later epochs may replace. It is
written under another name and renamed when it is whole. The two newest are kept.
"""

import io
import json
import pickle
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pytorch_pfn_extras.training.extension import PRIORITY_SNAPSHOT, Extension

from catheters.checkpoints.checkpoint import save_tensors
from catheters.checkpoints.snapshots import (
    FORMAT_VERSION,
    PROGRESS_FILE,
    STATE_FILE,
    DamagedSnapshotError,
    put_back_checkpoints,
    read_state,
    snapshot_names,
    upgrade,
)
from catheters.errors import SettingsError, UserError
from catheters.io.files import DiskFullError, clear_end_when_full, link_or_copy, sync_folder, write_text, write_whole
from catheters.runtime.console import say, warn
from catheters.runtime.interrupts import Interrupted, interrupt_signal
from catheters.training.context import TrainContext
from catheters.training.environment_changes import report_environment_changes
from catheters.training.extensions.checkpoints import BestCheckpoint, LastCheckpoint
from catheters.training.extensions.epochs import Stopping
from catheters.training.extensions.log import TrainingLog
from catheters.training.manager import Manager
from catheters.training.step import TrainStep

NUM_KEPT = 2
NOT_DUE, DUE, STOP = 0, 1, 100
"""What a rank asks of all; STOP has the number of the signal added."""


class Snapshots(Extension):
    """Writes a snapshot of a model's training after each epoch and when one is due; finds the newest whole one."""

    name = "snapshots"
    trigger = (1, "iteration")
    priority = PRIORITY_SNAPSHOT  # after everything that takes part in the iteration

    def __init__(
        self,
        context: TrainContext,
        step: TrainStep,
        log: TrainingLog,
        keeper: BestCheckpoint | LastCheckpoint,
        stopping: Stopping,
        num_batches: int,
    ) -> None:
        """Keep snapshots in `last/` of the model's folder.

        Args:
            context: the run, with the model's folder, where its checkpoints are.
            step: to be asked whether gradients wait for further batches; its rank 0 writes and reads.
            log: to be read before each snapshot, so that none holds weights after a loss that is not finite.
            keeper: knows the checkpoints and how many epochs are done.
            stopping: knows whether an extension asked to stop.
            num_batches: batches of an epoch.
        """
        self._context = context
        self._folder = context.folder
        self._what = context.what
        self._processes = step.processes
        self._step = step
        self._log = log
        self._keeper = keeper
        self._stopping = stopping
        self._num_batches = num_batches
        self._is_checked = False
        self._iteration_of_last = 0
        self._seconds_of_last = time.monotonic()

    def __call__(self, manager: Any) -> None:
        """Write a snapshot if one is due; stop if a signal asks this rank, or another one, to stop.

        Raises:
            Interrupted: the snapshot is written.
        """
        if not self._step.is_whole:
            return
        asked = self._processes.highest(self._what_is_due(manager.iteration))
        if asked >= STOP:
            self._stop(manager, asked - STOP)
        elif asked == DUE or manager.iteration % self._num_batches == 0:
            self.write(manager)

    def stop_if_asked(self, manager: Manager) -> None:
        """In long work after an iteration: stop, with a snapshot, if a signal asks for it. All ranks have to ask."""
        signal_number = interrupt_signal()
        asked = self._processes.highest(NOT_DUE if signal_number is None else STOP + signal_number)
        if asked >= STOP:
            self._stop(manager, asked - STOP)

    def _stop(self, manager: Manager, signal_number: int) -> None:
        is_written = self.write(manager)
        self._processes.broadcast(None)  # the others wait for the first one's file
        state = f"{self._what}, {self._where(manager.iteration)}" if is_written else "the last snapshot"
        how_to_resume = f"the same command resumes from {state}" if self._processes.is_first else ""  # one says so
        raise Interrupted(how_to_resume, signal_number)

    def write(self, manager: Manager) -> bool:
        """Write a snapshot of the current state. A full disk is only warned of; training continues.

        Returns:
            Whether it is written.

        Raises:
            UserError: a loss since the last look is NaN or infinite.
        """
        self._log.read()
        self._iteration_of_last = manager.iteration
        is_written = True
        if self._processes.is_first:
            try:
                self._write(manager)
            except DiskFullError as error:
                is_written = False
                warn(f"{error}; until then the last snapshot is the one to resume from")
        self._seconds_of_last = time.monotonic()
        return is_written

    def restore(self, manager: Manager) -> bool:
        """Bring everything into the state of the newest whole snapshot, if there is one.

        Returns:
            Whether there is one.

        Raises:
            UserError: it is of other settings or data.
        """
        found = self._processes.broadcast(self._read_newest() if self._processes.is_first else None)
        if found is None:
            return False
        manager.load_state_dict(upgrade(found, self._num_batches)["manager"])
        self._iteration_of_last = manager.iteration
        if self._processes.is_first:
            report_environment_changes(
                found["environment"], self._context.environment, self._context.sync_batch_norm, self._step
            )
            say(f"{self._what}: resumes from its snapshot, {self._where(manager.iteration)}")
        return True

    def finalize(self, manager: Any) -> None:
        """After the last epoch, keep only the newest snapshot: a longer run can be resumed from it."""
        if self._processes.is_first:
            self._prune(1)

    @property
    def _last_folder(self) -> Path:
        return self._folder / "last"

    def _what_is_due(self, iteration: int) -> int:
        signal_number = interrupt_signal()
        if signal_number is not None:
            return STOP + signal_number
        minutes, iterations = self._context.snapshot_minutes, self._context.snapshot_iterations
        is_due = (minutes is not None and time.monotonic() - self._seconds_of_last >= 60 * minutes) or (
            iterations is not None and iteration - self._iteration_of_last >= iterations
        )
        return DUE if is_due else NOT_DUE

    def _where(self, iteration: int) -> str:
        epoch = self._keeper.num_epochs
        num_done = iteration - epoch * self._num_batches
        if num_done == 0:
            return f"after epoch {epoch} of {self._context.num_epochs}"
        return f"epoch {epoch + 1} of {self._context.num_epochs}, batch {num_done} of {self._num_batches}"

    def _write(self, manager: Manager) -> None:
        number = max(map(int, snapshot_names(self._last_folder)), default=0) + 1
        part = self._last_folder / f"{number:06d}.part"
        try:
            with clear_end_when_full(part):
                self._last_folder.mkdir(exist_ok=True)  # not its parents: a run folder that was removed stays away
                part.mkdir(exist_ok=True)
                self._fill(part, manager)
                sync_folder(part)
                part.rename(part.with_suffix(""))
                sync_folder(self._last_folder)  # before older ones go
                self._prune(NUM_KEPT)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise

    def _fill(self, part: Path, manager: Manager) -> None:
        if not self._is_checked:
            _check_states(manager)
            self._is_checked = True
        for name in self._keeper.checkpoint_names:
            (part / name).unlink(missing_ok=True)  # of a process that was killed
            if (self._folder / name).exists():
                link_or_copy(self._folder / name, part / name)
        state = {
            "format_version": FORMAT_VERSION,
            "settings": self._context.settings_json,
            "environment": dict(self._context.environment),
            "manager": manager.state_dict(),
        }
        write_whole(part / STATE_FILE, lambda file: save_tensors(file, state))
        progress = {
            "epoch": self._keeper.num_epochs,
            "best_epoch": self._keeper.best_epoch,
            "iteration": manager.iteration,
            "iterations_per_epoch": self._num_batches,
            "num_epochs_when_asked_to_stop": self._stopping.num_epochs_when_asked,
        }
        write_text(part / PROGRESS_FILE, json.dumps(progress) + "\n")

    def _prune(self, num_kept: int) -> None:
        """Delete all but the newest snapshots, and what is left of others."""
        if not self._last_folder.is_dir():
            return
        kept = set(snapshot_names(self._last_folder)[-num_kept:])
        for path in self._last_folder.iterdir():
            if path.name not in kept and path.is_dir():
                if path.suffix == "":  # so that a kill leaves no half of one under a whole one's name
                    path = path.rename(path.with_suffix(".part"))
                shutil.rmtree(path)

    def _read_newest(self) -> dict[str, Any] | None:
        is_any_damaged = False
        for name in reversed(snapshot_names(self._last_folder)):
            snapshot = self._last_folder / name
            try:
                state = read_state(snapshot)
            except DamagedSnapshotError as error:
                warn(f"{error}; the snapshot before it is looked for")
                snapshot.rename(snapshot.with_suffix(".damaged"))
                is_any_damaged = True
                continue
            self._check(state, snapshot)
            put_back_checkpoints(snapshot, self._folder)
            return state
        if is_any_damaged:
            warn(f"{self._what} has no whole snapshot and starts from its first epoch")
        return None

    def _check(self, state: Mapping[str, Any], snapshot: Path) -> None:
        written_by = state["environment"]["versions"]["catheters"]
        self._context.check_settings(state["settings"], written_by, str(snapshot))
        if state["environment"]["data_fingerprint"] != self._context.environment["data_fingerprint"]:
            raise SettingsError(
                f"{snapshot}: a snapshot of a run on other images, labels, folds, weights, lines or teacher; delete it"
            )


def _check_states(manager: Manager) -> None:
    """Raise a UserError where an extension's state cannot be read again: every snapshot would be lost to it."""
    for name, entry in manager.extensions:
        content = io.BytesIO()
        try:
            torch.save(entry.extension.state_dict(), content)
            content.seek(0)
            torch.load(content, weights_only=True)
        except (pickle.UnpicklingError, pickle.PicklingError, AttributeError, TypeError):  # whose texts are about files
            raise UserError(
                f"extension '{name}': its state_dict cannot be kept in a snapshot; Python's own numbers, texts, lists "
                "and dicts, and tensors can"
            ) from None
