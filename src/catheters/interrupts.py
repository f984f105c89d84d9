"""Ctrl-C that is not lost.

Python raises KeyboardInterrupt wherever it happens to be, and drops it with a traceback in a destructor or in a hook
that runs around a fork, as when a loading process starts. Long work therefore also asks from time to time.
"""

import signal
from types import FrameType

_is_interrupted = False


def note_interrupts() -> None:
    """From now on remember Ctrl-C besides raising KeyboardInterrupt."""
    signal.signal(signal.SIGINT, _note)


def raise_if_interrupted() -> None:
    """Raise the KeyboardInterrupt that got lost."""
    if _is_interrupted:
        raise KeyboardInterrupt


def _note(signal_number: int, frame: FrameType | None) -> None:
    global _is_interrupted
    _is_interrupted = True
    raise KeyboardInterrupt
