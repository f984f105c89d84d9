"""Files that are whole or absent, whatever happens while they are written."""

import contextlib
import errno
import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from catheters.errors import UserError, one_line
from catheters.io.locks import only_writer

FULL_DISK_ERRORS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file would be larger than files may be here",
}


class DiskFullError(UserError):
    """Nothing more can be written; what is there stays as it was."""


def write_whole(file: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `file`, then rename it. Of several processes one after another does.

    Args:
        file: where the content shall be.
        write: writes the content to the path it is given.

    Raises:
        DiskFullError: there is no room; an earlier `file` stays, and nothing is left beside it.
    """
    part = file.with_name(file.name + ".part")
    with clear_end_when_full(file), only_writer(part):
        try:
            write(part)
            with part.open("rb") as written:
                os.fsync(written.fileno())  # or a power cut could keep the name and lose the content
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        part.replace(file)


@contextlib.contextmanager
def clear_end_when_full(path: Path) -> Iterator[None]:
    """Raise a DiskFullError where what is done in here finds the disk of `path` full."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        # torch reports a file that could not be written as a RuntimeError of its own, raised while that of the system
        # was handled.
        cause = error if isinstance(error, OSError) else error.__context__
        if not isinstance(cause, OSError) or cause.errno not in FULL_DISK_ERRORS:
            raise
        raise DiskFullError(
            f"{path}: {FULL_DISK_ERRORS[cause.errno]}; make room and run the same command again, it resumes where it "
            "stopped"
        ) from None


def write_text(file: Path, text: str) -> None:
    """Write UTF-8 text; the file is whole or absent."""
    write_whole(file, lambda part: part.write_text(text, encoding="utf-8"))


class UnreadableFileError(UserError):
    """A file of this program's that is missing, damaged, or not what its name says."""


def write_json(file: Path, content: Any) -> None:
    """Write plain data as JSON, which has no NaN: that becomes null. The file is whole or absent."""
    write_text(file, json.dumps(_null_for_nan(content), indent=2) + "\n")


def _null_for_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _null_for_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_null_for_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def parse_json(text: str) -> Any:
    """JSON as RFC 8259 has it: NaN, Infinity and numbers that float64 cannot hold are refused.

    Raises:
        ValueError: it is no such text, or nested too deeply to be read.
    """
    try:
        return json.loads(text, parse_constant=_refuse_constant, parse_float=_finite_float, parse_int=_bounded_int)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def read_json(file: Path) -> Any:
    """The content of a UTF-8 JSON file; see `parse_json`.

    Raises:
        UnreadableFileError: it is missing or damaged.
    """
    try:
        return parse_json(read_utf8(file))
    except ValueError as error:  # JSONDecodeError is one
        raise UnreadableFileError(f"{file}: damaged ({one_line(error, 120)})") from None


def read_utf8(file: Path) -> str:
    """The content of a UTF-8 file.

    Raises:
        UnreadableFileError: it is missing, cannot be read, or is none.
    """
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UnreadableFileError(f"{file}: no such file") from None
    except OSError as error:
        raise UnreadableFileError(f"{file}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise UnreadableFileError(f"{file}: damaged ({one_line(error, 120)})") from None


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no number")


def _finite_float(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"{digits[:20]} is too large a number")
    return value


def _bounded_int(digits: str) -> int:
    _finite_float(digits)  # else it would overflow wherever it meets a float
    return int(digits)


def read_written_json(file: Path, format_version: int) -> dict[str, Any]:
    """JSON that `evaluate.py` wrote for other commands to read.

    Raises:
        UserError: it is missing, damaged or of another version.
    """
    try:
        content = read_json(file)
    except UnreadableFileError:
        content = None
    if not isinstance(content, dict) or "format_version" not in content:
        raise UserError(f"{file}: missing or damaged; evaluate.py writes it")
    found = content["format_version"]
    if found != format_version:
        raise UserError(f"{file}: is of format {found}, {format_version} is read; run evaluate.py again")
    return content


def sha256_of(file: Path) -> str:
    """Of its content, in hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sync_folder(folder: Path) -> None:
    """Let the names in a folder, as they are now, outlast a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def link_or_copy(source: Path, target: Path) -> None:
    """Give the content of `source` a second name, without a second copy of it where the disk can do that.

    Later changes of `source` must be made by renaming another file over it, as `write_whole` does.
    """
    try:
        target.hardlink_to(source)
    except OSError:  # of another file system, or one without hard links
        shutil.copyfile(source, target)
        with target.open("rb") as copied:
            os.fsync(copied.fileno())


def printable(path: Path) -> str:
    """The path as text that can be printed and written, bytes of names that are not UTF-8 as \\x.. ."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
