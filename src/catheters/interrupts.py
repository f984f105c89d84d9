"""Ctrl-C and SIGTERM that are neither lost nor too early.

Python raises KeyboardInterrupt wherever it happens to be, and drops it with a traceback in a destructor or in a hook
that runs around a fork, as when a loading process starts. Long work therefore also asks from time to time. Work that
has something to save first defers them.
"""

import atexit
import contextlib
import importlib
import mmap
import os
import signal
import time
from collections.abc import Iterator
from types import FrameType

SECONDS_OF_ONE_REQUEST = 2.0
"""Signals that follow the first one so soon mean the same request: torchrun passes on what a terminal has sent to its
processes already."""

_signal_number: int | None = None
_seconds_of_first: float
_is_deferred = False


class Interrupted(KeyboardInterrupt):
    """Work that was asked to end has saved what it had.

    Attributes:
        signal_number: the signal that asked this process, or another one that works with it.
    """

    def __init__(self, how_to_go_on: str, signal_number: int) -> None:
        """Say in `how_to_go_on` what there is to go on from."""
        super().__init__(how_to_go_on)
        self.signal_number = signal_number


def note_interrupts() -> None:
    """From now on let Ctrl-C and SIGTERM raise KeyboardInterrupt, and remember them."""
    signal.signal(signal.SIGINT, _note)
    signal.signal(signal.SIGTERM, _note)


def leave_interrupts_to_parent() -> None:
    """For a forked process that works for its parent: a terminal or a scheduler signals both, and the parent decides.

    SIGTERM ends it only once the parent is at its end: with it Python ends the forked processes that are left by then.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _end_with_parent)


def _end_with_parent(signal_number: int, frame: FrameType | None) -> None:
    if _parent_is_ending[0]:
        os._exit(128 + signal_number)


def _tell_forked() -> None:
    _parent_is_ending[0] = 1


_parent_is_ending = mmap.mmap(-1, 1)  # one byte that forked processes share
# Registered after multiprocessing's own, and so called before it, which sends SIGTERM and waits.
importlib.import_module("multiprocessing.util")
atexit.register(_tell_forked)


def raise_if_interrupted() -> None:
    """Raise the KeyboardInterrupt that got lost."""
    if _signal_number is not None and not _is_deferred:
        raise KeyboardInterrupt


def interrupt_signal() -> int | None:
    """The signal that asked this process to end, if one has."""
    return _signal_number


@contextlib.contextmanager
def deferred_interrupts() -> Iterator[None]:
    """In here a first Ctrl-C or SIGTERM is only noted, to be asked for by `interrupt_signal`; a second one raises."""
    global _is_deferred
    _is_deferred = True
    try:
        yield
    finally:
        _is_deferred = False
    raise_if_interrupted()


def _note(signal_number: int, frame: FrameType | None) -> None:
    global _signal_number, _seconds_of_first
    now = time.monotonic()
    if _signal_number is None:
        _signal_number, _seconds_of_first = signal_number, now
    if _is_deferred and now - _seconds_of_first < SECONDS_OF_ONE_REQUEST:
        return
    raise KeyboardInterrupt
