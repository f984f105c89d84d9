"""Batches: rows of the cache, shuffled and augmented as (seed, epoch, image) alone decide."""

import contextlib
import gc
import multiprocessing
import multiprocessing.connection
import signal
from collections.abc import Collection, Iterator
from multiprocessing.process import BaseProcess
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from catheters.data.batch import Batch, Sample
from catheters.runtime.host import available_cores, num_local_processes, release_free_memory, start_method
from catheters.runtime.interrupts import end_with_this_process, interrupts_held_back, leave_interrupts_to_parent
from catheters.runtime.opencv_threads import end_opencv_threads

MAX_DEFAULT_WORKERS = 8
"""More workers than this rarely help and cost memory."""
MAX_SECONDS_OF_END = 1.0
"""How long the system may need, from the last sign of a process that dies, until its end is known."""


class WorkerDied(Exception):
    """A DataLoader worker died before its batches were there; the message says by what."""


class Loader(DataLoader[Sample]):
    """Gives batches of uint8 images.

    A DataLoader worker that dies is found out where a batch of its is waited for, a few seconds later. torch's handler
    of signals would raise at once, wherever the training process is: in the middle of a snapshot's file, or of the
    words about the first error.
    """

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]  # a plain iterator suffices
        """One pass, by DataLoader workers that are started for it, or were by the first one.

        Forked ones are started for each pass. By another start method each would import torch again, for seconds, so
        they are kept until `close`; those of a forkserver import it once for all.

        Raises:
            WorkerDied: one of them died early.
        """
        if self.num_workers == 0:
            return super().__iter__()
        handler = signal.getsignal(signal.SIGCHLD)
        kept: Any = self._iterator
        try:
            with _worker_deaths_named([] if kept is None else kept._workers), interrupts_held_back():
                batches: Any = super().__iter__()
        finally:
            if signal.getsignal(signal.SIGCHLD) is not handler:
                # Where it was ignored, as some launchers have it, the system would never tell how a process ended.
                signal.signal(signal.SIGCHLD, handler if callable(handler) else signal.SIG_DFL)
        # Private, but Python's own list of children has lost one that ended before it was asked.
        workers: list[BaseProcess] = batches._workers
        end_with_this_process(workers)
        return _batches_or_worker_death(batches, workers)

    def close(self) -> None:
        """End the DataLoader workers that are kept from pass to pass."""
        kept: Any = self._iterator
        if kept is not None:
            self._iterator = None
            kept._shutdown_workers()


def _batches_or_worker_death(batches: Iterator[Batch], processes: Collection[BaseProcess]) -> Iterator[Batch]:
    with _worker_deaths_named(processes):
        yield from batches


@contextlib.contextmanager
def _worker_deaths_named(processes: Collection[BaseProcess]) -> Iterator[None]:
    """Raise WorkerDied where what fails in here fails since one of them has died."""
    try:
        yield
    except Exception as error:
        # What a dead process has sent breaks off, in many ways; an error of its own code leaves it alive.
        ended = multiprocessing.connection.wait([process.sentinel for process in processes], MAX_SECONDS_OF_END)
        for process in processes:
            if process.sentinel in ended:
                process.join()
        statuses = [process.exitcode for process in processes if process.exitcode is not None]
        if not statuses:
            raise
        names = [signal.Signals(-status).name if status < 0 else f"exit status {status}" for status in statuses]
        raise WorkerDied(", ".join(names)) from error


class EpochBatches(Sampler[list[tuple[int, int]]]):
    """Batches of (epoch, position) keys; each pass over it is the next epoch, shuffled by (seed, epoch) alone.

    Attributes:
        epoch: the epoch of the next pass, from 0.
        num_done: how many of its batches the next pass leaves out, because they were learnt from before.
    """

    def __init__(
        self,
        num_samples: int,
        batch_size: int,
        seed: int,
        multiple_of: int = 1,
        rank: int = 0,
        num_processes: int = 1,
    ) -> None:
        """Without a last, smaller batch: its gradient and batch norm statistics would be those of a few images.

        Which images are left out differs from epoch to epoch. A data set smaller than one batch is one batch.

        Args:
            num_samples: how many there are.
            batch_size: images in a global batch, of all ranks together.
            seed: the run's seed.
            multiple_of: an epoch has a multiple of so many batches, the images being those of as many times larger
                batches.
            rank: this process, from 0.
            num_processes: world size; each rank gets an equal part of every batch; 1: the whole.
        """
        self._num_samples = num_samples
        self._batch_size = min(batch_size, num_samples)
        self._seed = seed
        self._multiple_of = multiple_of
        assert self._batch_size % num_processes == 0, "every rank has a part of the same size"
        self._part_size = self._batch_size // num_processes
        self._part_start = rank * self._part_size
        self.epoch = 0
        self.num_done = 0

    def __len__(self) -> int:
        return self._num_samples // (self._batch_size * self._multiple_of) * self._multiple_of

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        epoch, num_done = self.epoch, self.num_done
        self.epoch, self.num_done = epoch + 1, 0
        order = np.random.default_rng((self._seed, epoch)).permutation(self._num_samples)
        for batch in range(num_done, len(self)):
            start = batch * self._batch_size + self._part_start
            yield [(epoch, position) for position in order[start : start + self._part_size].tolist()]


class BatchesInOrder(Sampler[list[tuple[int, int]]]):
    """Batches of keys of all samples in order, the last one as small as it comes.

    Attributes:
        counts: how many samples each rank has: parts that follow on one another and overlap nowhere.
    """

    def __init__(self, num_samples: int, batch_size: int, rank: int = 0, num_processes: int = 1) -> None:
        """Go through the part of rank `rank`, of `num_processes` (world size), in batches of `batch_size`."""
        ends = [num_samples * (number + 1) // num_processes for number in range(num_processes)]
        starts = [0, *ends[:-1]]
        self.counts = tuple(end - start for start, end in zip(starts, ends, strict=True))
        self._positions = range(starts[rank], ends[rank])
        self._batch_size = batch_size

    def __len__(self) -> int:
        return -(-len(self._positions) // self._batch_size)

    @property
    def max_length(self) -> int:
        """Batches of the rank that has most."""
        return -(-max(self.counts) // self._batch_size)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for start in range(0, len(self._positions), self._batch_size):
            yield [(0, position) for position in self._positions[start : start + self._batch_size]]


class EpochLoader:
    """Training batches, epoch by epoch, whose DataLoader workers can be started while something else is computed."""

    def __init__(self, loader: Loader) -> None:
        """Go through the epochs of a loader over `EpochBatches`."""
        assert isinstance(loader.batch_sampler, EpochBatches)
        self._loader = loader
        self._batches = loader.batch_sampler
        self._position = (0, 0)
        self._started: Iterator[Batch] | None = None

    def __len__(self) -> int:
        return len(self._loader)

    def close(self) -> None:
        """End what loads; the loader is not used any more."""
        self._started = None
        self._loader.close()

    @property
    def samples(self) -> Dataset[Sample]:
        """What the batches are made of."""
        return self._loader.dataset

    def go_to(self, epoch: int, num_done: int) -> None:
        """Let the next pass be of this epoch, from 0, without the batches of it that were learnt from before."""
        if self._position != (epoch, num_done):
            self._position = (epoch, num_done)
            self._started = None

    def start(self, epoch: int) -> None:
        """Load the first batches of the epoch that comes next."""
        self.go_to(epoch, 0)
        self._started = iter(self)

    def __iter__(self) -> Iterator[Batch]:
        if self._started is not None:
            started, self._started = self._started, None
            return started
        self._batches.epoch, self._batches.num_done = self._position
        return iter(self._loader)


def create_loader(
    samples: Dataset[Sample], batches: EpochBatches | BatchesInOrder, num_workers: int | None, device: torch.device
) -> Loader:
    """Load batches of uint8 images, pinned for a GPU.

    Args:
        samples: where the images come from.
        batches: which images make a batch.
        num_workers: DataLoader workers; None: `default_num_workers`.
        device: where the batches will go.
    """
    if num_workers is None:
        num_workers = default_num_workers(device)
    method = start_method()
    if method == "forkserver":
        # Else each worker would import torch: the server does it once, and its workers are forked from it.
        multiprocessing.set_forkserver_preload(["__main__", __name__])
    return Loader(
        samples,
        batch_sampler=batches,
        collate_fn=Batch.collate,
        num_workers=num_workers,
        multiprocessing_context=method if num_workers else None,
        # Forking one takes some 40 ms, and it shares what the training process has in memory by then.
        persistent_workers=num_workers > 0 and method != "fork",
        pin_memory=device.type == "cuda",
        worker_init_fn=_start_worker if num_workers else None,
    )


def default_num_workers(device: torch.device) -> int:
    """One per core for a GPU, those of a machine shared by its training processes; one for a CPU, whose cores the model
    needs."""
    if device.type == "cpu":
        return 1
    return min(max(1, available_cores() // num_local_processes()), MAX_DEFAULT_WORKERS)


def _start_worker(worker: int) -> None:
    leave_interrupts_to_parent()  # the training process may want some more batches before it ends
    # What a step has freed is used by the next one, in the training process alone: held here it would be there twice.
    release_free_memory()
    gc.freeze()  # what came from the parent stays shared with it: a collection would write to every object of it
    end_opencv_threads()  # the workers are the threads
