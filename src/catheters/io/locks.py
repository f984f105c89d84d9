"""Exclusive locks between processes."""

import contextlib
import fcntl
import os
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


@contextlib.contextmanager
def only_writer(file: Path) -> Iterator[None]:
    """Keep others who ask likewise from writing a file, also if it is renamed or deleted in here.

    The file itself is locked, so that nothing stays beside it.

    Raises:
        OSError: the file cannot be made.
    """
    while True:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            if _is_still(file, descriptor):
                yield
                return
        finally:
            os.close(descriptor)


def _is_still(file: Path, descriptor: int) -> bool:
    """Whether a path names the file that is open: who had the lock before may have renamed it."""
    try:
        return os.path.samestat(file.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


class InheritedLock:
    """An exclusive lock that this process and those that it starts with it hold: it is free when all have exited."""

    def __init__(self, descriptor: int) -> None:
        """Keep a descriptor that is locked."""
        self.descriptor = descriptor

    @classmethod
    def take(cls, lock_file: Path) -> "InheritedLock | None":
        """The lock, where it is free; it is one with `exclusive_lock` of the same file.

        Processes started with `pass_fds=[lock.descriptor]` hold it as well.

        Raises:
            OSError: the file cannot be made.
        """
        descriptor = os.open(lock_file, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        return cls(descriptor)

    def release(self) -> None:
        """Let it go, as far as this process holds it."""
        os.close(self.descriptor)
