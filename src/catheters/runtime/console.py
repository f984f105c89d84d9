"""What the program says, through Python's logging: the logger `catheters`.

Results go to stdout, warnings to stderr, as plain lines. A notebook or a service silences or redirects them:
`logging.getLogger("catheters").setLevel(logging.WARNING)`, or a handler of its own in `.handlers`.
"""

import contextlib
import contextvars
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from catheters.runtime.host import process_rank

_logger = logging.getLogger("catheters")
_is_silent = contextvars.ContextVar("_is_silent", default=False)

NOTE = 25
"""Level of what goes to stderr and is no warning: progress, why a command stopped."""


class _Console(logging.Handler):
    """Writes to what `sys.stdout` and `sys.stderr` are at the time."""

    def emit(self, record: logging.LogRecord) -> None:
        # Not caught: a command exits when the reader of its output has gone (see `run_command`).
        print(record.getMessage(), file=sys.stderr if record.levelno >= NOTE else sys.stdout, flush=True)


if not _logger.handlers:
    _logger.addHandler(_Console())
    if _logger.level == logging.NOTSET:  # who has silenced it before means it
        _logger.setLevel(logging.INFO)
    _logger.propagate = False


def say(text: object = "") -> None:
    """A line, or several, on stdout."""
    _log(logging.INFO, str(text))


def note(text: object) -> None:
    """A line on stderr that is no warning."""
    _log(NOTE, str(text))


def warn(text: object) -> None:
    """`warning: ` and a text, on stderr."""
    _log(logging.WARNING, f"warning: {text}")


@contextlib.contextmanager
def silent(is_silent: bool) -> Iterator[None]:
    """Say nothing in here, in this thread, if `is_silent`: of several ranks that do the same, rank 0 says so.

    On other ranks the libraries' warnings and progress bars are silent as well.
    """
    token = _is_silent.set(is_silent or _is_silent.get())
    is_other_rank = is_silent and process_rank() > 0
    try:
        with (
            Path(os.devnull).open("w") if is_other_rank else contextlib.nullcontext() as nowhere,
            contextlib.redirect_stderr(nowhere) if nowhere is not None else contextlib.nullcontext(),
        ):
            yield
    finally:
        _is_silent.reset(token)


def _log(level: int, text: str) -> None:
    if not _is_silent.get():
        _logger.log(level, "%s", text)
