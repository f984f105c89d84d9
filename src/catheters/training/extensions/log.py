"""`log.jsonl`: a line of JSON for every group of batches and every epoch.

A run that is resumed from a snapshot truncates the file where the snapshot was taken and writes the same lines again:
they differ from an uninterrupted run's in what a clock measured, which stands under "speed".
"""

import json
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pytorch_pfn_extras.training.extension import PRIORITY_READER, Extension
from torch import Tensor

from catheters.io.files import clear_end_when_full, parse_json
from catheters.runtime.console import warn
from catheters.runtime.distributed import Processes
from catheters.runtime.host import release_free_memory
from catheters.training.context import TrainContext
from catheters.training.guards import MAX_SKIPPED_STEPS, BatchValues, check_batches, check_skipped
from catheters.training.step import StepResult, TrainStep

FILE_NAME = "log.jsonl"
LINE_EVERY = 50
"""Batches of a line. Only then are losses read from a GPU: reading each one at once would make it wait."""


class _Span:
    """A stretch of training in this process: how long it took, and how much of it was waiting for batches."""

    def __init__(self, started: float) -> None:
        self.started = started
        self.stopped = started
        self.num_batches = 0
        self.seconds_waited = 0.0

    def stop(self) -> None:
        self.stopped = time.monotonic()

    @property
    def seconds(self) -> float:
        return max(self.stopped - self.started, 1e-9)


class TrainingLog(Extension):
    """Collects what each batch gave, checks that it is finite, and writes lines.

    Attributes:
        latest: the lines that were written in this iteration, for trackers.
    """

    name = "log"
    trigger = (1, "iteration")
    priority = PRIORITY_READER

    def __init__(
        self,
        folder: Path,
        what: str,
        processes: Processes,
        device: torch.device,
        *,
        num_batches: int,
        num_epochs: int,
        batch_size: int,
        num_models_left: int,
        may_skip: bool,
    ) -> None:
        """Start a log, or resume one once a snapshot's state is loaded.

        Args:
            folder: gets `log.jsonl`.
            what: the model, for messages.
            processes: the ranks that train it; rank 0 writes.
            device: where they compute.
            num_batches: of an epoch.
            num_epochs: of the training.
            batch_size: images in a global batch.
            num_models_left: models of the run that are trained after this one, for the time left.
            may_skip: whether a gradient scaler may skip steps.
        """
        self._file = folder / FILE_NAME
        self._what = what
        self._processes = processes
        self._device = device
        self._num_batches = num_batches
        self._num_epochs = num_epochs
        self._batch_size = batch_size
        self._num_models_left = num_models_left
        self._may_skip = may_skip
        self.latest: list[Mapping[str, Any]] = []
        self._unread: list[StepResult] = []
        self._batches: list[BatchValues] = []  # of this epoch
        self._latest_norms: list[float] = []  # of the epochs before as well
        self._num_in_lines = 0  # of them
        self._epoch = 0  # how many are finished
        self._num_bytes = 0
        self._seconds_before = 0.0
        self._started = time.monotonic()  # not the time of day, which may be set back
        self._num_batches_seen = 0  # in this process
        self._group = _Span(self._started)
        self._epoch_span = _Span(self._started)

    @classmethod
    def of(cls, context: TrainContext, step: TrainStep, num_batches: int) -> "TrainingLog":
        """That of a model in its folder, for epochs of so many batches."""
        release_free_memory()  # reading table and index took many times what is kept, and processes fork from here
        return cls(
            context.folder,
            context.what,
            step.processes,
            step.device,
            num_batches=num_batches,
            num_epochs=context.num_epochs,
            batch_size=context.images_per_batch,
            num_models_left=context.num_models_left,
            may_skip=step.scaler.is_enabled(),
        )

    def start_epoch(self) -> None:
        """Start the clocks of the epoch and of its first group."""
        self._group = _Span(time.monotonic())
        self._epoch_span = _Span(self._group.started)

    def wait_for_each(self, batches: Any) -> Iterator[Any]:
        """Yield the batches, measuring how long each lets the training wait."""
        started = time.monotonic()
        for batch in batches:
            waited = time.monotonic() - started
            self._group.seconds_waited += waited
            self._epoch_span.seconds_waited += waited
            yield batch
            started = time.monotonic()

    def take(self, result: StepResult) -> None:
        """Take in what a batch gave, without reading it."""
        self._unread.append(result)
        self._num_batches_seen += 1
        self._group.num_batches += 1
        self._epoch_span.num_batches += 1

    def __call__(self, manager: Any) -> None:
        """Write a line where a group of batches is complete.

        Raises:
            UserError: a loss or gradient is NaN or infinite.
        """
        self.latest = []
        num_done = len(self._batches) + len(self._unread)
        if num_done % LINE_EVERY == 0 or num_done == self._num_batches:
            self.read()
            self._write_group(manager.iteration)

    def read(self) -> None:
        """Read what is still on the device, and check it; all ranks have to.

        Raises:
            UserError: a loss or gradient is NaN or infinite.
        """
        if not self._unread:
            return
        names = _several(self._unread[0].losses)
        scalars = [[result.loss, *(result.losses[name] for name in names)] for result in self._unread]
        losses = self._processes.mean(torch.stack([torch.stack(of_batch) for of_batch in scalars]).float()).tolist()
        norms = iter(_read_all([result.grad_norm for result in self._unread if result.grad_norm is not None]))
        batches = [
            BatchValues(
                learning_rate=result.learning_rate,
                loss=loss,
                terms=dict(zip(names, terms, strict=True)),
                grad_norm=None if result.grad_norm is None else next(norms),
            )
            for result, (loss, *terms) in zip(self._unread, losses, strict=True)
        ]
        self._unread = []
        what = f"{self._what} epoch {self._epoch + 1}/{self._num_epochs}"
        num_before = self._epoch * self._num_batches + len(self._batches)
        check_batches(batches, num_before, what, self._file.parent, may_skip=self._may_skip)
        self._batches += batches
        if self._may_skip:
            self._latest_norms = [*self._latest_norms, *_norms(batches)][-MAX_SKIPPED_STEPS:]
            check_skipped(self._latest_norms, what, self._file.parent, batches[-1].learning_rate)

    def _write_group(self, iteration: int) -> None:
        group = self._batches[self._num_in_lines :]
        self._num_in_lines = len(self._batches)
        norms = _norms(group)
        finite = [norm for norm in norms if math.isfinite(norm)]
        self._group.stop()
        self._epoch_span.stop()
        self._write(
            {
                "kind": "batches",
                "epoch": self._epoch + 1,
                "iteration": iteration,
                **_mean_losses(group),
                "train/grad_norm": _mean(finite) if finite else None,
                **({"skipped_steps": len(norms) - len(finite)} if self._may_skip else {}),
                "lr": group[-1].learning_rate,
                "speed": self._clock(iteration, self._group),
            }
        )
        self._group = _Span(self._group.stopped)

    def end_epoch(self, iteration: int, learning_rate: float, scores: Mapping[str, float]) -> Mapping[str, Any]:
        """Write an epoch's line.

        Args:
            iteration: batches so far.
            learning_rate: of the next step.
            scores: of the validation.

        Returns:
            The line's content.
        """
        self._epoch += 1
        entry = {
            "kind": "epoch",
            "epoch": self._epoch,
            "iteration": iteration,
            **_mean_losses(self._batches),
            **{name: None if math.isnan(value) else value for name, value in scores.items()},  # JSON has no NaN
            "lr": learning_rate,
            "speed": {
                **self._clock(iteration, self._epoch_span),
                "epoch_seconds": round(time.monotonic() - self._epoch_span.started, 2),
            },
        }
        self._batches, self._num_in_lines = [], 0
        self._write(entry)
        return entry

    def state_dict(self) -> dict[str, Any]:
        """Where the log stands; what was written until now is on the disk afterwards."""
        assert not self._unread, "read before"
        if self._processes.is_first and self._file.exists():
            with self._file.open("rb") as written:
                os.fsync(written.fileno())
        return {
            "epoch": self._epoch,
            "num_bytes": self._num_bytes,
            "num_in_lines": self._num_in_lines,
            "seconds": self._seconds(),
            "batches": [(batch.learning_rate, batch.loss, batch.grad_norm, batch.terms) for batch in self._batches],
            "latest_norms": list(self._latest_norms),
            "latest": list(self.latest),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from there; lines that were written later are removed."""
        self._epoch = state["epoch"]
        self._num_in_lines = state["num_in_lines"]
        self._seconds_before = state["seconds"]
        self._batches = [
            BatchValues(learning_rate=learning_rate, loss=loss, terms=terms, grad_norm=norm)
            for learning_rate, loss, norm, terms in state["batches"]
        ]
        self.latest = list(state["latest"])
        self._latest_norms = list(state["latest_norms"][-MAX_SKIPPED_STEPS:])
        self._num_bytes = state["num_bytes"]
        self.truncate()

    def truncate(self) -> None:
        """Remove lines that were written after the state that the log is in."""
        if self._processes.is_first and self._file.exists():
            self._num_bytes = min(self._num_bytes, self._file.stat().st_size)
            os.truncate(self._file, self._num_bytes)

    def _seconds(self) -> float:
        """Of the whole training, however often it was resumed."""
        return self._seconds_before + time.monotonic() - self._started

    def _clock(self, iteration: int, span: "_Span") -> dict[str, float | None]:
        in_all = self._num_batches * self._num_epochs
        num_left = in_all - iteration + in_all * self._num_models_left
        seconds_each = (time.monotonic() - self._started) / max(self._num_batches_seen, 1)
        is_gpu = self._device.type == "cuda"
        return {
            "seconds": round(self._seconds(), 2),
            "seconds_left": round(num_left * seconds_each, 1),
            "images_per_second": round(span.num_batches * self._batch_size / span.seconds, 2),
            "waiting_share": round(min(span.seconds_waited / span.seconds, 1.0), 4),
            "gpu_memory_gb": round(torch.cuda.max_memory_allocated(self._device) / 1e9, 2) if is_gpu else None,
        }

    def _write(self, entry: Mapping[str, Any]) -> None:
        self.latest.append(entry)
        if not self._processes.is_first:
            return
        line = json.dumps(entry).encode() + b"\n"
        with clear_end_when_full(self._file):
            with self._file.open("ab") as file:
                file.write(line)
            self._num_bytes += len(line)


def read_epochs(folder: Path) -> list[dict[str, Any]]:
    """The lines of the epochs in a model's folder, one per epoch; undefined scores are None.

    Lines that are damaged are left out with a warning, as is the whole file where there is none: nothing but curves
    hangs on them.
    """
    file = folder / FILE_NAME
    try:
        lines = file.read_bytes().splitlines()
    except OSError as error:
        warn(f"{file}: cannot be read ({error.strerror}); its epochs are not shown")
        return []
    entries = []
    for number, line in enumerate(lines, start=1):
        entry = _parse_line(line)
        if entry is None:
            warn(f"{file}: line {number} is damaged and left out")
        elif entry["kind"] == "epoch":
            entries.append(entry)
    return entries


def _parse_line(line: bytes) -> dict[str, Any] | None:
    """A line of the log; None where it is not as it was written."""
    try:
        entry = parse_json(line.decode("utf-8"))
        is_whole = entry["kind"] == "batches" or (
            entry["kind"] == "epoch" and {"epoch", "train/loss", "lr", "speed"} <= entry.keys()
        )
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    return entry if is_whole else None


def _read_all(values: Sequence[Tensor]) -> list[float]:
    numbers: list[float] = torch.stack(list(values)).tolist() if values else []
    return numbers


def _several(losses: Mapping[str, Any]) -> Sequence[str]:
    """Names of the losses that have a value of their own in the log: one alone is the sum."""
    return list(losses) if len(losses) > 1 else []


def _mean_losses(batches: Sequence[BatchValues]) -> dict[str, float]:
    """`train/loss`, and `train/loss/<name>` of several."""
    of_terms = {
        f"train/loss/{name}": _mean([batch.terms[name] for batch in batches]) for name in _several(batches[0].terms)
    }
    return {"train/loss": _mean([batch.loss for batch in batches]), **of_terms}


def _norms(batches: Sequence[BatchValues]) -> list[float]:
    return [batch.grad_norm for batch in batches if batch.grad_norm is not None]


def _mean(values: Sequence[float]) -> float:
    """In float64, over the values themselves: the same whenever they were read."""
    return float(np.mean(values))
