"""Progress of long work: a bar in a terminal, a line now and then in a log file."""

import sys
from collections.abc import Iterable, Iterator
from typing import TextIO, TypeVar

from tqdm import tqdm

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


def track(items: Iterable[T], what: str, total: int, unit: str = "image", leave: bool = True) -> Iterator[T]:
    """Yield `items`, showing on stderr how far the work has come.

    Args:
        items: what to go through.
        what: name of the work, shown before the bar.
        total: number of items.
        unit: what an item is.
        leave: whether a terminal keeps the finished bar. A log file keeps no short-lived bars: it gets a line every
            `SECONDS_BETWEEN_LOG_LINES` and, if `leave`, a last one.
    """
    if sys.stderr.isatty():
        bar = tqdm(items, desc=what, total=total, unit=unit, leave=leave, dynamic_ncols=True)
    else:
        bar = tqdm(
            items,
            desc=what,
            total=total,
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
