"""A cache in the making: its pixels and a journal of the rows that are written, so that a kill costs little.

Rows go to `<name>_<size>.npy.part`; the journal beside it gets a line for each row once its pixels are written. A build
that was killed resumes there, after comparing every row's pixels with the journal's digest. At the end the index
of the earlier cache goes, the part gets the cache's name, the new index is written: there is never an index beside
pixels that it does not describe.

Several ranks of torchrun write their rows into the one part, each with a journal of its own, `.npy.journal.1` and so
on. Rank 0 has the part made before the others open it, and reads their journals once they have closed them. What a
killed build has left in them, rank 0 takes into its own journal first, so that no line is older than the launch.
"""

import fcntl
import hashlib
import io
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np
from pydantic import TypeAdapter

from catheters.data.cache.index import CacheIndex, CacheRow, index_file, write_index
from catheters.errors import UserError, counted
from catheters.io.files import write_whole
from catheters.io.journal import (
    MAX_SECONDS_OF_END,
    ForeignJournalError,
    append_lines,
    file_of_rank,
    files_of_ranks,
    read_journal,
)
from catheters.io.locks import InheritedLock
from catheters.runtime.console import say
from catheters.runtime.host import is_on_several_hosts
from catheters.runtime.interrupts import raise_if_interrupted
from catheters.runtime.progress import track

SECONDS_BETWEEN_LOOKS = 0.5
_row_adapter = TypeAdapter(CacheRow)


class CacheRows:
    """Where one process writes rows: the part, and a journal that no other process writes."""

    def __init__(self, cache_file: Path, shape: tuple[int, int, int], key: str, rank: int = 0) -> None:
        """Open them.

        Args:
            cache_file: the `.npy` that the part shall become.
            shape: (N, H, W).
            key: see `CachePart`.
            rank: whose journal it is.

        Raises:
            UserError: the part is not the one that rank 0 has made.
        """
        self._num_header_bytes = len(_npy_header(shape))
        self._row_bytes = shape[1] * shape[2]
        part_file, journal_file = _part_file(cache_file), file_of_rank(_journal_file(cache_file), rank)
        num_bytes = self._num_header_bytes + shape[0] * self._row_bytes
        if not part_file.is_file() or part_file.stat().st_size != num_bytes:
            raise UserError(
                f"{part_file}: rank 0 has made it, and it is not to be seen from here; set cache_folder to a folder "
                "that all machines share, or run preproc_npy.py without torchrun on each machine"
            )
        if not journal_file.exists():
            journal_file.write_bytes(_first_line(key))
        # A client of NFS writes back whole pages, and rows of other machines lie in the same ones, unless it writes
        # each row at once.
        flags = os.O_RDWR | (os.O_DSYNC if is_on_several_hosts() else 0)
        self._part: BinaryIO = os.fdopen(os.open(part_file, flags), "r+b")
        self._journal: BinaryIO = journal_file.open("ab")
        if rank > 0:
            fcntl.flock(self._journal, fcntl.LOCK_EX)

    def read(self, row: int) -> bytes:
        """The pixels of a row."""
        self._part.seek(self._offset(row))
        return self._part.read(self._row_bytes)

    def write(self, row: int, entry: CacheRow, pixels: bytes) -> None:
        """Write a row: its pixels, or black where there are none, then its line in the journal."""
        # Positioned writes past the file object's buffer: neither images nor the file's pages pile up in memory.
        _write_at(self._part, pixels or bytes(self._row_bytes), self._offset(row))
        append_lines(self._journal, [_line(row, entry)])

    def sync(self) -> None:
        """Wait until all that is written is on the disk, to be seen from other machines too."""
        os.fsync(self._part.fileno())
        os.fsync(self._journal.fileno())

    def close(self) -> None:
        """Close them."""
        self._part.close()
        self._journal.close()

    def _offset(self, row: int) -> int:
        return self._num_header_bytes + row * self._row_bytes


class CachePart:
    """The files of an unfinished cache, open for writing, as rank 0 has them.

    Attributes:
        done: row -> its entry, for the rows that are written.
    """

    def __init__(self, cache_file: Path, shape: tuple[int, int, int], key: str) -> None:
        """Resume an unfinished build, or start one.

        Args:
            cache_file: the `.npy` that it shall become.
            shape: (N, H, W).
            key: one line of text that is the same if the unfinished build was of the same rows.

        Raises:
            UserError: the disk has no room for it.
        """
        self._cache_file = cache_file
        self._part_file = _part_file(cache_file)
        self._num_rows = shape[0]
        self._first_line = _first_line(key)
        self.done: dict[int, CacheRow] = {}
        header = _npy_header(shape)
        num_bytes = len(header) + shape[0] * shape[1] * shape[2]
        if cache_file.exists() and not index_file(cache_file).exists():
            self._adopt(num_bytes)
        self._journalled = self._read_unfinished()
        _check_free_space(self._part_file, num_bytes)
        with self._part_file.open("r+b") as part:
            part.truncate(num_bytes)
            _write_at(part, header, 0)
        self._shape, self._key = shape, key
        self._rows = CacheRows(cache_file, shape, key)

    def _adopt(self, num_bytes: int) -> None:
        """Resume a build that was killed after it had given the part its final name."""
        journal_file = _journal_file(self._cache_file)
        is_ours = (
            journal_file.exists()
            and journal_file.read_bytes().startswith(self._first_line)
            and self._cache_file.stat().st_size == num_bytes
        )
        if not is_ours:
            raise UserError(
                f"{self._cache_file}: has no index, so it is not known to be a cache; set another cache_name, or "
                "delete it"
            )
        self._cache_file.replace(self._part_file)

    def _read_unfinished(self) -> dict[int, CacheRow]:
        """What the journals say is written; leaves a part and journals to resume from."""
        for file in files_of_ranks(_journal_file(self._cache_file)):
            _wait_for_writer(file)
        if self._part_file.exists():
            try:
                return self._read_journals()
            except ForeignJournalError:
                say("an unfinished build is given up: the table, the settings or the decoders have changed since")
        _discard_journals(self._cache_file)
        self._part_file.unlink(missing_ok=True)  # a new file: nobody has it open
        self._part_file.touch()
        return {}

    def _read_journals(self) -> dict[int, CacheRow]:
        entries: dict[int, CacheRow] = {}
        for file in (_journal_file(self._cache_file), *files_of_ranks(_journal_file(self._cache_file))):
            entries.update(read_journal(file, self._first_line, self._decode_line))
        return entries

    def _decode_line(self, line: bytes) -> tuple[int, CacheRow]:
        number, _, entry = line.partition(b" ")
        if not 0 <= int(number) < self._num_rows:
            raise ValueError("no such row")
        return int(number), _row_adapter.validate_json(entry)  # pydantic's error is a ValueError

    def keep_valid(self, is_current: Callable[[int, CacheRow], bool]) -> None:
        """Take what the unfinished build has written as done, where it is still right.

        Args:
            is_current: whether an entry's source is still the one that it was made of.
        """
        ranks = files_of_ranks(_journal_file(self._cache_file))
        if not self._journalled and not ranks:
            return
        for row, entry in track(self._journalled.items(), "checking what is there", len(self._journalled)):
            # A power cut may have kept the journal's line and lost the pixels.
            if is_current(row, entry) and self._holds(row, entry):
                self.done[row] = entry
        self._rows.close()
        lines = [_line(row, entry) for row, entry in self.done.items()]
        write_whole(_journal_file(self._cache_file), lambda part: part.write_bytes(self._first_line + b"".join(lines)))
        for file in ranks:
            file.unlink()
        self._rows = CacheRows(self._cache_file, self._shape, self._key)
        say(f"resuming an unfinished build: {counted(len(self.done), 'X-ray')} done")

    def _holds(self, row: int, entry: CacheRow) -> bool:
        if entry.reason is not None:
            return False  # it may have been the disk, the network or a machine that slept
        return hashlib.sha256(self._rows.read(row)).hexdigest() == entry.digest

    def write(self, row: int, entry: CacheRow, pixels: bytes) -> None:
        """Write a row, see `CacheRows.write`."""
        self._rows.write(row, entry, pixels)
        self.done[row] = entry

    def take_from_ranks(self, num_ranks: int) -> None:
        """Take as done what the other ranks have written, who have closed their files.

        Raises:
            UserError: rows are missing, as where this machine does not see what others have written.
        """
        for rank in range(1, num_ranks):
            file = file_of_rank(_journal_file(self._cache_file), rank)
            self.done.update(read_journal(file, self._first_line, self._decode_line))
        missing = self._num_rows - len(self.done)
        if missing:
            raise UserError(
                f"{self._part_file}: {counted(missing, 'row')} of other ranks cannot be seen from rank 0; set "
                "cache_folder to a folder that all machines share, and run the same command again"
            )

    def finish(self, index: CacheIndex) -> None:
        """Make it the cache."""
        self._rows.sync()
        self.close()
        index_file(self._cache_file).unlink(missing_ok=True)
        self._part_file.replace(self._cache_file)
        write_index(self._cache_file, index)
        _discard_journals(self._cache_file)

    def discard(self) -> None:
        """Delete it."""
        self.close()
        self._part_file.unlink()
        _discard_journals(self._cache_file)

    def close(self) -> None:
        """Close the files; what is written stays, to be resumed."""
        self._rows.close()


def discard_journal(cache_file: Path) -> None:
    """Delete the journals that a kill at the very end of a build left beside a finished cache; no part has them."""
    if index_file(cache_file).exists() and not _part_file(cache_file).exists():
        _discard_journals(cache_file)


def discard_unfinished(cache_file: Path) -> None:
    """Delete what is left of a build beside a cache that is up to date."""
    _part_file(cache_file).unlink(missing_ok=True)
    _discard_journals(cache_file)


def has_journal(cache_file: Path) -> bool:
    """Whether a journal lies beside a cache."""
    return _journal_file(cache_file).exists() or bool(files_of_ranks(_journal_file(cache_file)))


def _line(row: int, entry: CacheRow) -> bytes:
    """Of a journal."""
    return b"%d %s\n" % (row, _row_adapter.dump_json(entry))


def _wait_for_writer(file: Path) -> None:
    """Wait for a rank of a killed launch, which ends by itself: it would write into what is then finished.

    Raises:
        UserError: it does not end.
    """
    deadline = time.monotonic() + MAX_SECONDS_OF_END
    while (lock := InheritedLock.take(file)) is None:
        raise_if_interrupted()
        if time.monotonic() > deadline:
            raise UserError(f"{file}: a rank of an earlier launch still writes it; end that one first")
        time.sleep(SECONDS_BETWEEN_LOOKS)
    lock.release()


def _part_file(cache_file: Path) -> Path:
    return cache_file.with_suffix(".npy.part")


def _journal_file(cache_file: Path) -> Path:
    return cache_file.with_suffix(".npy.journal")


def _discard_journals(cache_file: Path) -> None:
    for file in (_journal_file(cache_file), *files_of_ranks(_journal_file(cache_file))):
        file.unlink(missing_ok=True)


def _first_line(key: str) -> bytes:
    return f"{key}\n".encode()


def _npy_header(shape: tuple[int, int, int]) -> bytes:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return header.getvalue()


def _write_at(file: BinaryIO, content: bytes, offset: int) -> None:
    """Write all of `content`, which one call need not do when the disk runs full."""
    written = 0
    while written < len(content):
        written += os.pwrite(file.fileno(), content[written:], offset + written)


def _check_free_space(part_file: Path, num_bytes: int) -> None:
    free = shutil.disk_usage(part_file.parent).free
    needed = num_bytes - part_file.stat().st_blocks * 512  # what an unfinished build has taken already
    if free < needed:
        raise UserError(
            f"{part_file.parent}: the cache needs {needed / 1e9:.1f} GB more, {free / 1e9:.1f} GB are free; "
            "set cache_folder to another disk or a smaller image_size"
        )
