"""Ctrl-C, SIGTERM and SIGUSR1 that are neither lost nor too early.

Python raises KeyboardInterrupt wherever it happens to be, and drops it with a traceback in a destructor or in a hook
that runs around a fork, as when a DataLoader worker starts. Long work therefore also asks from time to time. Work that
has something to save first defers them.
"""

import atexit
import contextlib
import importlib
import os
import signal
import time
import weakref
from collections.abc import Iterable, Iterator
from multiprocessing import resource_tracker
from multiprocessing.process import BaseProcess
from types import FrameType

from catheters.runtime.host import start_method

SECONDS_OF_ONE_REQUEST = 2.0
"""Signals that follow the first one so soon mean the same request: torchrun passes on what a terminal has sent to its
processes already."""
REQUESTS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name))
"""Signals that ask to stop: Ctrl-C, a system's, and the one that batch systems send some time before that (SLURM's
--signal). Windows has no SIGUSR1. A process that works for another one leaves them to it."""
MAX_SIGNALS = 4096
"""That are read at a time."""
IMPATIENT = (signal.SIGINT, signal.SIGTERM)
"""Those of which a second one stops at once."""

_arrivals: int | None = None
"""A pipe from which the numbers of all signals that have come can be read."""
_has_arrived = False
_signal_number: int | None = None
_seconds_of_first: float
_is_deferred = False


class Interrupted(KeyboardInterrupt):
    """Work that was asked to stop has saved what it had.

    Attributes:
        signal_number: the signal that asked this process, or another one that works with it.
    """

    def __init__(self, how_to_resume: str, signal_number: int) -> None:
        """Say in `how_to_resume` where the work can be resumed."""
        super().__init__(how_to_resume)
        self.signal_number = signal_number


def note_interrupts() -> None:
    """From now on let the signals that ask to stop raise KeyboardInterrupt, and remember them."""
    for number in REQUESTS:
        signal.signal(number, _note)
    if not hasattr(signal, "pthread_sigmask"):  # Windows, which sends none
        return
    global _arrivals
    _arrivals, to_write = os.pipe()
    for end in (_arrivals, to_write):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(to_write, warn_on_full_buffer=False)


@contextlib.contextmanager
def interrupts_held_back() -> Iterator[None]:
    """Start in here the processes that work for this one and call `leave_interrupts_to_parent`.

    A new process has no handlers of ours yet, and one that does not start by fork imports for seconds first: a signal
    to all of them would stop it. So it starts with them blocked; those to this process come at the end.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows, which sends none
        yield
        return
    if start_method() != "fork":
        resource_tracker.ensure_running()  # it unblocks two of them when it starts, up to Python 3.13
    before = signal.pthread_sigmask(signal.SIG_BLOCK, REQUESTS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def leave_interrupts_to_parent() -> None:
    """For a process that works for its parent: a terminal or a scheduler signals both, and the parent decides.

    The parent kills it, or names it to `end_with_this_process`.
    """
    for number in REQUESTS:
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, REQUESTS)


def end_with_this_process(processes: Iterable[BaseProcess]) -> None:
    """Kill those of them that are left when this process exits: Python would send SIGTERM and wait."""
    _helpers.update(processes)


def _kill_helpers() -> None:
    for process in list(_helpers):
        process.kill()


_helpers: weakref.WeakSet[BaseProcess] = weakref.WeakSet()


def _forget_parent() -> None:
    """In a process that was forked: what was its parent's business."""
    global _arrivals
    _helpers.clear()
    if _arrivals is not None:
        signal.set_wakeup_fd(-1)
        _arrivals = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_parent)
# Registered after multiprocessing's own, and so called before it.
importlib.import_module("multiprocessing.util")
atexit.register(_kill_helpers)


def raise_if_interrupted() -> None:
    """Raise the KeyboardInterrupt that got lost."""
    if _signal_number is not None and not _is_deferred:
        raise KeyboardInterrupt


def interrupt_signal() -> int | None:
    """The signal that asked this process to stop, if one has."""
    return _signal_number


def has_interrupt_arrived() -> bool:
    """Whether a signal has asked this process to stop, for other threads to know at once.

    The main thread may not hear of it before it comes back to Python: from an exchange with a rank that has died it
    does so very late or never.
    """
    global _has_arrived
    if _arrivals is not None:
        with contextlib.suppress(BlockingIOError):
            _has_arrived |= not set(os.read(_arrivals, MAX_SIGNALS)).isdisjoint(REQUESTS)
    return _has_arrived or _signal_number is not None


@contextlib.contextmanager
def deferred_interrupts() -> Iterator[None]:
    """In here a first signal is only noted, to be asked for by `interrupt_signal`; a second one of `IMPATIENT` raises.

    A batch system may send SIGUSR1 several times, to the job and to each of its steps.
    """
    global _is_deferred
    _is_deferred = True
    try:
        yield
    finally:
        _is_deferred = False
    raise_if_interrupted()


def begin_to_stop() -> None:
    """From now on a further signal of the same request changes nothing: what is said and saved at the end is whole."""
    global _is_deferred
    _is_deferred = True


def _note(signal_number: int, frame: FrameType | None) -> None:
    global _signal_number, _seconds_of_first
    now = time.monotonic()
    if _signal_number is None:
        _signal_number, _seconds_of_first = signal_number, now
    elif signal_number not in IMPATIENT:
        return
    if _is_deferred and now - _seconds_of_first < SECONDS_OF_ONE_REQUEST:
        return
    raise KeyboardInterrupt
