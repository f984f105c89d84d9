"""Exclusive locks between processes."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import filelock

from catheters.errors import UserError


@contextlib.contextmanager
def exclusive_lock(lock_file: Path, refusal: str, *, timeout_s: float = 0, remove: bool = False) -> Iterator[None]:
    """Keep other processes out. The system forgets the lock of a process that is killed: its file keeps nobody out.

    Args:
        lock_file: it is made where there is none.
        refusal: message of the error; it says who holds the lock and what to do.
        timeout_s: how long to wait for another process, in seconds.
        remove: delete the file afterwards.

    Raises:
        UserError: another process holds it.
        OSError: the file cannot be made.
    """
    lock = filelock.FileLock(lock_file)
    try:
        lock.acquire(timeout=timeout_s)
    except filelock.Timeout:
        raise UserError(refusal) from None
    try:
        yield
    finally:
        if remove:
            lock_file.unlink(missing_ok=True)  # before the release: afterwards it may be another process's
        lock.release()
