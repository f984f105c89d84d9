"""Progress of long work: a bar in a terminal, a line now and then in a log file."""

import sys
import threading
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

from catheters.runtime.console import note
from catheters.runtime.host import process_rank
from catheters.runtime.interrupts import raise_if_interrupted

T = TypeVar("T")

SECONDS_BETWEEN_LOG_LINES = 60.0


class _Bar(tqdm):  # type: ignore[misc]  # the package has no types
    """tqdm's own lock is one of multiprocessing, and would settle its start method, see `start_method`."""


_Bar.set_lock(threading.RLock())


def track(
    items: Iterable[T], what: str, total: int, unit: str = "image", leave: bool = True, num_done: int = 0
) -> Iterator[T]:
    """Yield `items`, showing progress on stderr; only rank 0 shows it.

    A terminal has a bar. A log file has a line every `SECONDS_BETWEEN_LOG_LINES`, and of shorter work nothing.

    Args:
        items: what to go through.
        what: name of the work, shown before the bar.
        total: number of items, those done before included.
        unit: what an item is.
        leave: whether a terminal keeps the finished bar, and a log file gets a last line.
        num_done: items that were done before, and are not among `items`.
    """
    if process_rank() > 0:
        tracked: Iterable[T] = items
    elif sys.stderr.isatty():
        tracked = _Bar(items, desc=what, total=total, initial=num_done, unit=unit, leave=leave, dynamic_ncols=True)
    else:
        tracked = _log(items, what, total, f"{unit}{'es' if unit.endswith('ch') else 's'}", leave, num_done)
    for item in tracked:
        raise_if_interrupted()
        yield item


def _log(items: Iterable[T], what: str, total: int, units: str, leave: bool, num_done: int) -> Iterator[T]:
    started = last_line = time.monotonic()
    count = num_done
    for item in items:
        yield item
        count += 1
        now = time.monotonic()
        if now - last_line >= SECONDS_BETWEEN_LOG_LINES and count < total:
            last_line = now
            seconds_left = (now - started) / (count - num_done) * (total - count)
            note(f"{what}: {count} of {total} {units}, about {duration(seconds_left)} left")
    if leave and last_line > started:
        taken = duration(time.monotonic() - started)
        note(f"{what}: {count} of {total} {units}, in {taken}")


def duration(seconds: float) -> str:
    """A length of time for people: 45 s, 12 min, 3 h 20 min, 2 d 4 h."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"
