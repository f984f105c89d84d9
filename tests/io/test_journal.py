"""A journal of lines: what is read back is what was written, up to the first line that is not."""

import zlib
from pathlib import Path

import pytest

from catheters.io.journal import ForeignJournalError, add_checksum, append_lines, check_line, read_journal

FIRST = b"key\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "x.journal"


def write(file: Path, *lines: bytes) -> None:
    with file.open("ab") as stream:
        append_lines(stream, lines)


def read(file: Path) -> list[int]:
    return list(read_journal(file, FIRST, int))


@pytest.mark.parametrize("exists", [False, True])
def test_a_new_journal_gets_its_first_line(file: Path, exists: bool) -> None:
    if exists:
        file.touch()
    assert read(file) == []
    assert file.read_bytes() == FIRST
    write(file, b"1\n", b"22\n")
    write(file, b"333\n")
    assert file.read_bytes() == b"key\n1\n22\n333\n"
    assert read(file) == [1, 22, 333]


@pytest.mark.parametrize("rest", [b"4", b"4x\n5\n", b"\n5\n", b"\xff\xfe\n", b"4\r5\n"])
def test_what_a_kill_or_a_bad_disk_left_is_cut_off(file: Path, rest: bytes) -> None:
    file.write_bytes(b"key\n1\n2\n" + rest)
    assert read(file) == [1, 2]
    assert file.read_bytes() == b"key\n1\n2\n"
    write(file, b"3\n")
    assert read(file) == [1, 2, 3]


@pytest.mark.parametrize("content", [b"other\n1\n", b"ke", b"key", b"\n", b"\xff\n"])
def test_a_journal_of_something_else_stays_as_it_is(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    with pytest.raises(ForeignJournalError):
        read(file)
    assert file.read_bytes() == content


def test_checksums() -> None:
    line = add_checksum(b'{"a": 1}')
    assert line == b"%08x " % zlib.crc32(b'{"a": 1}') + b'{"a": 1}\n'
    assert check_line(line) == b'{"a": 1}'
    for position in range(len(line)):
        changed = bytearray(line)
        changed[position] ^= 1
        with pytest.raises(ValueError, match="checksum"):
            check_line(bytes(changed))
        with pytest.raises(ValueError, match="checksum"):
            check_line(line[:position])
