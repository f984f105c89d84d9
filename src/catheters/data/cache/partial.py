"""A cache in the making: its pixels and a journal of the rows that are written, so that a kill costs little.

Rows go to `<name>_<size>.npy.part`; the journal beside it gets a line for each row once its pixels are written. A build
that was killed resumes there, after comparing every row's pixels with the journal's digest. At the end the index
of the earlier cache goes, the part gets the cache's name, the new index is written: there is never an index beside
pixels that it does not describe.
"""

import hashlib
import io
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np
from pydantic import TypeAdapter

from catheters.data.cache.index import CacheIndex, CacheRow, index_file, write_index
from catheters.errors import UserError, counted
from catheters.io.journal import ForeignJournalError, append_lines, read_journal
from catheters.runtime.console import say
from catheters.runtime.progress import track

_row_adapter = TypeAdapter(CacheRow)


class CachePart:
    """The files of an unfinished cache, open for writing.

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
        self._part_file = cache_file.with_suffix(".npy.part")
        self._journal_file = cache_file.with_suffix(".npy.journal")
        self._header = _npy_header(shape)
        self._num_rows = shape[0]
        self._row_bytes = shape[1] * shape[2]
        self.done: dict[int, CacheRow] = {}
        first_line = f"{key}\n".encode()
        num_bytes = len(self._header) + shape[0] * self._row_bytes
        if cache_file.exists() and not index_file(cache_file).exists():
            self._adopt(first_line, num_bytes)
        journalled = self._read_journal(first_line)
        _check_free_space(self._part_file, num_bytes)
        self._part: BinaryIO = self._part_file.open("r+b")
        self._journal: BinaryIO = self._journal_file.open("ab")
        self._part.truncate(num_bytes)
        _write_at(self._part, self._header, 0)
        self._journalled = journalled

    def _adopt(self, first_line: bytes, num_bytes: int) -> None:
        """Resume a build that was killed after it had given the part its final name."""
        is_ours = (
            self._journal_file.exists()
            and self._journal_file.read_bytes().startswith(first_line)
            and self._cache_file.stat().st_size == num_bytes
        )
        if not is_ours:
            raise UserError(
                f"{self._cache_file}: has no index, so it is not known to be a cache; set another cache_name, or "
                "delete it"
            )
        self._cache_file.replace(self._part_file)

    def _read_journal(self, first_line: bytes) -> dict[int, CacheRow]:
        """What the journal says is written; leaves a part and a journal to resume from."""
        if self._part_file.exists():
            try:
                return dict(read_journal(self._journal_file, first_line, self._decode_line))
            except ForeignJournalError:
                say("an unfinished build is given up: the table, the settings or the decoders have changed since")
        self._part_file.write_bytes(b"")
        self._journal_file.write_bytes(first_line)
        return {}

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
        if not self._journalled:
            return
        for row, entry in track(self._journalled.items(), "checking what is there", len(self._journalled)):
            # A power cut may have kept the journal's line and lost the pixels.
            if is_current(row, entry) and self._holds(row, entry):
                self.done[row] = entry
        say(f"resuming an unfinished build: {counted(len(self.done), 'X-ray')} done")

    def _holds(self, row: int, entry: CacheRow) -> bool:
        if entry.reason is not None:
            return False  # it may have been the disk, the network or a machine that slept
        self._part.seek(self._offset(row))
        return hashlib.sha256(self._part.read(self._row_bytes)).hexdigest() == entry.digest

    def write(self, row: int, entry: CacheRow, pixels: bytes) -> None:
        """Write a row: its pixels, or black where there are none, then its line in the journal."""
        # Positioned writes past the file object's buffer: neither images nor the file's pages pile up in memory.
        _write_at(self._part, pixels or bytes(self._row_bytes), self._offset(row))
        append_lines(self._journal, [b"%d %s\n" % (row, _row_adapter.dump_json(entry))])
        self.done[row] = entry

    def _offset(self, row: int) -> int:
        return len(self._header) + row * self._row_bytes

    def finish(self, index: CacheIndex) -> None:
        """Make it the cache."""
        os.fsync(self._part.fileno())
        self.close()
        index_file(self._cache_file).unlink(missing_ok=True)
        self._part_file.replace(self._cache_file)
        write_index(self._cache_file, index)
        self._journal_file.unlink()

    def discard(self) -> None:
        """Delete it."""
        self.close()
        self._part_file.unlink()
        self._journal_file.unlink()

    def close(self) -> None:
        """Close the files; what is written stays, to be resumed."""
        self._part.close()
        self._journal.close()


def discard_journal(cache_file: Path) -> None:
    """Delete the journal that a kill at the very end of a build left beside a finished cache; no part has it."""
    if index_file(cache_file).exists() and not cache_file.with_suffix(".npy.part").exists():
        cache_file.with_suffix(".npy.journal").unlink(missing_ok=True)


def discard_unfinished(cache_file: Path) -> None:
    """Delete what is left of a build beside a cache that is up to date."""
    for suffix in (".npy.part", ".npy.journal"):
        cache_file.with_suffix(suffix).unlink(missing_ok=True)


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
