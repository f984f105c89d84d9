"""Worker processes for untrusted files: one that crashes, hangs or eats up the memory costs its file, not the run."""

import contextlib
import gc
import math
import multiprocessing
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Generic, TypeVar

from catheters.runtime.host import keep_freed_memory, start_method
from catheters.runtime.interrupts import end_with_this_process, interrupts_held_back, leave_interrupts_to_parent

Task = TypeVar("Task")
Result = TypeVar("Result")

MAX_SECONDS = 60.0
"""Time that one task may take."""
MAX_BYTES = 1 << 30
"""Memory that a worker may take beyond what it starts with."""
SECONDS_OF_ORPHANS = 10
"""After its time a worker that nobody is left to stop ends by itself: it holds its parent's files, and their locks."""
SECONDS_BETWEEN_LOOKS = 1.0
"""How soon a worker notices that the process which started it was killed."""


@dataclass(frozen=True)
class Failure:
    """What became of a task that its worker could not finish: the reason, for the user."""

    reason: str


def map_guarded(
    function: Callable[[Task], Result],
    tasks: Iterable[Task],
    num_workers: int,
    max_seconds: float = MAX_SECONDS,
    max_bytes: int = MAX_BYTES,
) -> Iterator[tuple[Task, Result | Failure]]:
    """Apply `function` to every task in worker processes.

    Args:
        function: called in a worker; an exception that it raises is raised here. Its result is pickled.
        tasks: its arguments.
        num_workers: processes.
        max_seconds: a task that takes longer is given up.
        max_bytes: a task that needs more memory is given up (on Linux).

    Yields:
        (task, result) as they are done, in no order; a `Failure` in place of the result where the worker crashed, hung
        or ran out of memory.
    """
    waiting = deque(tasks)
    idle: list[_Worker[Task, Result]] = []
    busy: list[_Worker[Task, Result]] = []
    done: list[tuple[Task, Result | Failure]] = []
    try:
        while waiting or busy or done:
            while waiting and len(busy) < num_workers:
                worker = idle.pop() if idle else _Worker(function, max_bytes)
                worker.give(waiting.popleft(), max_seconds)
                busy.append(worker)
            yield from done  # with the workers at work meanwhile
            done = []
            for worker in _wait_for_some(busy):
                done.append((worker.task, worker.outcome()))
                busy.remove(worker)
                if worker.is_alive:
                    idle.append(worker)
    finally:
        for worker in busy + idle:
            worker.stop()


class _Worker(Generic[Task, Result]):
    """A process that does one task after another."""

    task: Task
    deadline: float
    max_seconds: float

    def __init__(self, function: Callable[[Task], Result], max_bytes: int) -> None:
        context: Any = multiprocessing.get_context(start_method())
        self.connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(function, theirs, self.connection, max_bytes), daemon=True)
        with interrupts_held_back():
            self._process.start()
        end_with_this_process([self._process])
        theirs.close()
        self.is_alive = True

    def give(self, task: Task, max_seconds: float) -> None:
        self.task = task
        self.max_seconds = max_seconds
        self.deadline = time.monotonic() + max_seconds
        # A worker that has just died is noticed when its result is asked for.
        with contextlib.suppress(BrokenPipeError):
            self.connection.send((task, max_seconds))

    def outcome(self) -> Result | Failure:
        """Of the task: what came, or why nothing did."""
        if not self.connection.poll():
            self.stop()
            return Failure(f"given up after {self.max_seconds:.0f} s")
        try:
            outcome: Result | Failure | Exception = self.connection.recv()
        except (EOFError, ConnectionResetError):
            self._process.join()
            self.stop()
            return Failure(f"the decoder crashed ({_describe_exit(self._process.exitcode)})")
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def stop(self) -> None:
        self.is_alive = False
        self._process.kill()
        self._process.join()
        self.connection.close()


def _wait_for_some(busy: "list[_Worker[Task, Result]]") -> "list[_Worker[Task, Result]]":
    """Those that have a result, died or ran out of time; waits for the first."""
    if not busy:
        return []
    timeout = min(worker.deadline for worker in busy) - time.monotonic()
    ready = wait([worker.connection for worker in busy], max(0.0, timeout))
    now = time.monotonic()
    return [worker for worker in busy if worker.connection in ready or worker.deadline <= now]


def _describe_exit(exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        return signal.strsignal(-exit_code) or f"signal {-exit_code}"
    return f"exit status {exit_code}"


def _serve(function: Callable[[Task], Result], connection: Connection, parents_end: Connection, max_bytes: int) -> None:
    """A worker's life: tasks in, outcomes out, until it is killed or whoever started it is gone."""
    leave_interrupts_to_parent()  # the parent stops its workers
    parent = os.getppid()
    # Else the pipe would stay open when the parent is killed, and a result that it cannot hold wait for ever.
    parents_end.close()
    gc.freeze()  # a collection here would write to every object of the parent, and free its tensors on a GPU
    _limit_memory(max_bytes)
    keep_freed_memory(64 << 20)  # allocated again for each image, its pages took a seventh of the time here
    while True:
        # Workers that were forked later hold the parent's end open too, until they notice in the same way.
        while not connection.poll(SECONDS_BETWEEN_LOOKS):
            if os.getppid() != parent:
                return
        try:
            task, max_seconds = connection.recv()
            signal.alarm(math.ceil(max_seconds) + SECONDS_OF_ORPHANS)
            outcome: Result | Failure | Exception = function(task)
        except MemoryError:
            outcome = Failure(f"decoding it takes more than {max_bytes >> 20} MB of memory")
        except Exception as error:
            outcome = error
        signal.alarm(0)
        try:
            connection.send(outcome)
        except BrokenPipeError:
            return


def _limit_memory(max_bytes: int) -> None:
    if sys.platform != "linux":
        return
    import resource

    pages_now = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages_now * resource.getpagesize() + max_bytes
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))
