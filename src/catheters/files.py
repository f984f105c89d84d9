"""Files that are whole or absent, whatever happens while they are written."""

import os
from collections.abc import Callable
from pathlib import Path


def write_whole(file: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `file`, then rename it.

    Args:
        file: where the content shall be.
        write: writes the content to the path it is given.
    """
    part = file.with_name(file.name + ".part")
    write(part)
    with part.open("rb") as written:
        os.fsync(written.fileno())  # or a power cut could keep the name and lose the content
    part.replace(file)


def printable(path: Path) -> str:
    """The path as text that can be printed and written, bytes of names that are not UTF-8 as \\x.. ."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def write_text(file: Path, text: str) -> None:
    """Write UTF-8 text; the file is whole or absent."""
    write_whole(file, lambda part: part.write_text(text, encoding="utf-8"))
