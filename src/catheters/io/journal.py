"""Journals: files that grow line by line while something is made, so that a kill costs little."""

import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, TypeVar

Entry = TypeVar("Entry")

MAX_SECONDS_OF_END = 90.0
"""In which all ranks of a launch have ended after one was killed; see `ProcessMonitor`."""


class ForeignJournalError(Exception):
    """A journal of something else: its first line is another one."""


def file_of_rank(file: Path, rank: int) -> Path:
    """`<file>.1`: what another rank than rank 0 writes beside it."""
    return file.with_name(f"{file.name}.{rank}") if rank else file


def files_of_ranks(file: Path) -> list[Path]:
    """Those of the ranks from 1 on that are there."""
    prefix = f"{file.name}."
    names = sorted(path.name for path in file.parent.iterdir() if path.name.startswith(prefix))
    return [file.with_name(name) for name in names if name[len(prefix) :].isdecimal()]


def read_journal(file: Path, first_line: bytes, decode: Callable[[bytes], Entry]) -> Iterator[Entry]:
    """Yield the entries of the valid lines. At the end, the first line that is not valid and all after it are cut off.

    Args:
        file: it is made, with the first line, where there is none.
        first_line: says what the journal is of; with the line feed at its end.
        decode: a line, with its line feed, to an entry; raises a ValueError for a line that was not written as it is.

    Raises:
        ForeignJournalError: the file begins with another line; it stays as it is.
    """
    with file.open("a+b") as stream:
        stream.seek(0)
        first = stream.readline()
        if first not in (b"", first_line):
            raise ForeignJournalError(file)
        num_valid_bytes = len(first)
        for line in stream:
            try:
                entry = decode(line)
            except ValueError:
                break
            if not line.endswith(b"\n"):
                break  # the kill came while it was written
            num_valid_bytes += len(line)
            yield entry
        stream.truncate(num_valid_bytes)
        if not first:
            stream.write(first_line)


def append_lines(stream: BinaryIO, lines: Iterable[bytes]) -> None:
    """Hand whole lines to the system, which keeps them when this process is killed.

    Args:
        stream: the journal, open for appending.
        lines: each with its line feed.
    """
    stream.write(b"".join(lines))
    stream.flush()


def add_checksum(text: bytes) -> bytes:
    """A line: the CRC-32 of the text in hexadecimal, the text, a line feed."""
    return b"%08x %b\n" % (zlib.crc32(text), text)


def check_line(line: bytes) -> bytes:
    """The inverse of `add_checksum`.

    Raises:
        ValueError: the checksum is not that of the text, or the line is not whole.
    """
    checksum, _, text = line.partition(b" ")
    if not text.endswith(b"\n") or checksum != b"%08x" % zlib.crc32(text[:-1]):
        raise ValueError("the checksum is not that of the text")
    return text[:-1]
