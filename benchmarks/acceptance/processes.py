"""Work in a forked process of its own, so that what it does to a GPU, or dies of, is no matter to the rest.

A process that has used a GPU cannot be forked. So the one that forks here never does.
"""

import contextlib
import io
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

SECONDS_BETWEEN_LOOKS = 0.2
_fork = multiprocessing.get_context("fork")


class Died(Exception):
    """Work whose process gave no result."""


def run_apart(work: Callable[[], T], log: Path, limit_s: float) -> T:
    """What some work returns, done in a process of its own; the processes that it starts end with it.

    Args:
        work: returns what can be pickled.
        log: gets what it prints.
        limit_s: seconds after which it is stopped.

    Raises:
        Died: it was stopped, or has died of something.
    """
    receiver, sender = _fork.Pipe(duplex=False)
    process = _fork.Process(target=_lead, args=(work, sender, log))
    process.start()
    sender.close()
    deadline = time.monotonic() + limit_s
    try:
        while not receiver.poll(SECONDS_BETWEEN_LOOKS):
            # Processes that it has started may hold the other end open, so that its death alone ends no waiting.
            if process.exitcode is not None and not receiver.poll():
                raise Died(f"its process died ({_cause(process.exitcode)}); {log} has what it printed")
            if time.monotonic() > deadline:
                raise Died(f"not done after {limit_s:.0f} s (--limit); {log} has what it printed")
        try:
            result: T = receiver.recv()
        except EOFError:
            process.join()
            raise Died(f"its process died ({_cause(process.exitcode)}); {log} has what it printed") from None
        return result
    finally:
        assert process.pid is not None
        started = _descendants(process.pid)  # torchrun's ranks lead groups of their own
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()
        for pid in started:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.join()
        receiver.close()


def _descendants(pid: int) -> list[int]:
    found: list[int] = []
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for child in map(int, file.read_text().split()):
                found += [child, *_descendants(child)]
    return found


def start(work: Callable[[], object], log: Path, environment: dict[str, str] | None = None) -> ForkProcess:
    """A process that does some work, to be waited for or killed.

    Args:
        work: its exit status is 1 where it raises, or that of a SystemExit.
        log: gets what it prints.
        environment: is added to this process's own.
    """
    process = _fork.Process(target=_work, args=(work, log, environment or {}))
    process.start()
    return process


def _lead(work: Callable[[], Any], sender: Connection, log: Path) -> None:
    os.setsid()  # a group of processes of its own, which can be stopped at once
    _print_to(log)
    sender.send(work())


def _work(work: Callable[[], object], log: Path, environment: dict[str, str]) -> None:
    os.environ.update(environment)
    _print_to(log)
    work()


def _print_to(log: Path) -> None:
    with log.open("ab") as file:
        for number in (1, 2):
            os.dup2(file.fileno(), number)
    sys.stdout, sys.stderr = (
        io.TextIOWrapper(io.FileIO(number, "wb", closefd=False), write_through=True) for number in (1, 2)
    )


def _cause(status: int | None) -> str:
    if status is None or status >= 0:
        return f"exit status {status}"
    return signal.Signals(-status).name
