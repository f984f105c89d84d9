"""Progress of long work: a bar in a terminal, a line now and then in a log file."""

import sys
from collections.abc import Iterable, Iterator
from typing import TextIO, TypeVar

from tqdm import tqdm

from catheters.host import process_rank
from catheters.interrupts import raise_if_interrupted

T = TypeVar("T")

SECONDS_BETWEEN_LOG_LINES = 60.0


class _LineWriter:
    """Ends each state of the bar with a newline, where a terminal would go back to the line's start."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> None:
        text = text.strip("\r\n ")
        if text:
            self.stream.write(text + "\n")

    def flush(self) -> None:
        self.stream.flush()


def track(
    items: Iterable[T], what: str, total: int, unit: str = "image", leave: bool = True, num_done: int = 0
) -> Iterator[T]:
    """Yield `items`, showing on stderr how far the work has come; of several processes only the first one shows it.

    Args:
        items: what to go through.
        what: name of the work, shown before the bar.
        total: number of items, those done before included.
        unit: what an item is.
        leave: whether a terminal keeps the finished bar. A log file keeps no short-lived bars: it gets a line every
            `SECONDS_BETWEEN_LOG_LINES` and, if `leave`, a last one.
        num_done: items that were done before, and are not among `items`.
    """
    if process_rank() > 0:
        bar = tqdm(items, disable=True)
    elif sys.stderr.isatty():
        bar = tqdm(items, desc=what, total=total, initial=num_done, unit=unit, leave=leave, dynamic_ncols=True)
    else:
        bar = tqdm(
            items,
            desc=what,
            total=total,
            initial=num_done,
            unit=unit,
            leave=leave,
            file=_LineWriter(sys.stderr),
            mininterval=SECONDS_BETWEEN_LOG_LINES,
            maxinterval=2 * SECONDS_BETWEEN_LOG_LINES,
            delay=SECONDS_BETWEEN_LOG_LINES / 2,
            ncols=100,
            ascii=True,
        )
    for item in bar:
        raise_if_interrupted()
        yield item


def duration(seconds: float) -> str:
    """A length of time for people: 45 s, 12 min, 3 h 20 min, 2 d 4 h."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"
