"""`<out>.unfinished`: what an unfinished prediction has done, a line for each image, so that a kill costs little."""

import contextlib
import json
import math
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import filelock
import numpy as np
import numpy.typing as npt

from catheters.errors import UserError
from catheters.io.files import clear_end_when_full, parse_json

State = tuple[int, int]
"""Size in bytes and time of the last change in ns: other ones mean another content."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What became of one image.

    Attributes:
        row: its position among the images.
        state: of its file, from before it was read; None where there was no file or its reader died.
        reason: why it has no probabilities; None for one that has.
        doubts: what a reader should know about it.
        probabilities: (C, K) float32 of each checkpoint, in 0..1; None where there is a reason.
    """

    row: int
    state: State | None
    reason: str | None
    doubts: tuple[str, ...] = ()
    probabilities: npt.NDArray[np.float32] | None = None


def file_state(file: Path) -> State | None:
    """Of what the name stands for now; None where there is nothing."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns


def encode_entry(entry: Entry) -> bytes:
    """A line: the CRC-32 of what follows, then JSON. Python's numbers hold a float32 exactly."""
    content = {
        "row": entry.row,
        "state": entry.state,
        "reason": entry.reason,
        "doubts": entry.doubts,
        "probabilities": None if entry.probabilities is None else entry.probabilities.tolist(),
    }
    text = json.dumps(content).encode()
    return b"%08x %b\n" % (zlib.crc32(text), text)


def decode_entry(line: bytes, num_images: int, shape: tuple[int, int]) -> Entry:
    """The inverse of `encode_entry`.

    Args:
        line: with the line feed at its end.
        num_images: that there are.
        shape: (C, K), checkpoints and labels.

    Raises:
        ValueError: it was not written as it is, or not for such images and models.
    """
    checksum, _, text = line.partition(b" ")
    if not text.endswith(b"\n") or checksum != b"%08x" % zlib.crc32(text[:-1]):
        raise ValueError("not what was written")
    content = parse_json(text.decode())
    if not isinstance(content, dict) or content.keys() != {"row", "state", "reason", "doubts", "probabilities"}:
        raise ValueError("no entry")
    row, reason, doubts = content["row"], content["reason"], content["doubts"]
    if type(row) is not int or not 0 <= row < num_images:
        raise ValueError("no such image")
    if not isinstance(doubts, list) or not all(isinstance(doubt, str) for doubt in doubts):
        raise ValueError("no doubts")
    if reason is not None and (not isinstance(reason, str) or not reason or content["probabilities"] is not None):
        raise ValueError("no reason")
    return Entry(
        row=row,
        state=_decode_state(content["state"]),
        reason=reason,
        doubts=tuple(doubts),
        probabilities=_decode_probabilities(content["probabilities"], shape) if reason is None else None,
    )


def _decode_state(state: object) -> State | None:
    if state is None:
        return None
    if not isinstance(state, list) or len(state) != 2 or not all(type(number) is int for number in state):
        raise ValueError("no state of a file")
    return state[0], state[1]


def _decode_probabilities(rows: object, shape: tuple[int, int]) -> npt.NDArray[np.float32]:
    num_checkpoints, num_labels = shape
    if not isinstance(rows, list) or len(rows) != num_checkpoints:
        raise ValueError("of other checkpoints")
    for row in rows:
        if not isinstance(row, list) or len(row) != num_labels:
            raise ValueError("of other labels")
        if not all(type(number) in (int, float) and math.isfinite(number) and 0 <= number <= 1 for number in row):
            raise ValueError("no probabilities")
    return np.array(rows, dtype=np.float32)


@contextlib.contextmanager
def open_unfinished(
    file: Path, key: str, num_images: int, shape: tuple[int, int], take: Callable[[Entry], None]
) -> Iterator[Callable[[Sequence[Entry]], None]]:
    """Hand over what the file holds, an entry after another, and give a function that adds entries to it.

    The first line that is not as it was written ends it: that one and all after it are removed. No other process can
    have the file open meanwhile.

    Args:
        file: it is made where there is none.
        key: what decides the answers besides the content of the images.
        num_images: of the command.
        shape: (C, K), its checkpoints and labels.
        take: gets each entry; of several of one row, the last one is the newest.

    Raises:
        UserError: it is of another key, another process has it open, or the disk is full.
    """
    head = json.dumps({"key": key}) + "\n"
    with clear_end_when_full(file), _only_process(file), file.open("a+b") as stream:
        stream.seek(0)
        first = stream.readline()
        if first and first.decode(errors="replace") != head:
            raise UserError(
                f"{file}: is what an unfinished command with other images, models or options, or of another version, "
                "has done; repeat that one to go on with it, or give --fresh to start over"
            )
        end = len(first)
        for line in stream:
            try:
                entry = decode_entry(line, num_images, shape)
            except ValueError:
                break  # the kill cut it off, or it is damaged
            take(entry)
            end += len(line)
        stream.truncate(end)  # what is written goes to the end
        if not end:
            stream.write(head.encode())

        def write(new: Sequence[Entry]) -> None:
            stream.write(b"".join(map(encode_entry, new)))
            stream.flush()

        yield write


@contextlib.contextmanager
def _only_process(file: Path) -> Iterator[None]:
    lock = filelock.FileLock(f"{file}.lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise UserError(f"{file}: another process is at it; choose another --out, or wait") from None
    try:
        yield
    finally:
        Path(lock.lock_file).unlink(missing_ok=True)  # or one would lie beside all predictions
        lock.release()
