"""`<out>.unfinished`: what an unfinished prediction has done, a line for each image, so that a kill costs little."""

import contextlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from catheters.data.image_hashes import HASH_BYTES
from catheters.errors import UserError
from catheters.io.files import clear_end_when_full, parse_json
from catheters.io.journal import (
    ForeignJournalError,
    add_checksum,
    append_lines,
    check_line,
    files_of_ranks,
    read_journal,
)
from catheters.io.locks import exclusive_lock

KEYS = {"row", "state", "reason", "quality_flags", "probabilities", "distances", "image_hash"}
"""Of a line."""
State = tuple[int, int]
"""Size in bytes and time of the last change in ns: other ones mean another content."""
Write = Callable[[Sequence["Entry"]], None]
"""Adds entries to a part."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What became of one image.

    Attributes:
        row: its position among the images.
        state: of its file, from before it was read; None where there was no file or its reader died.
        reason: why it has no probabilities; None for one that has.
        quality_flags: what a reader should know about it.
        probabilities: (C, K) float32 of each checkpoint, in 0..1; None where there is a reason.
        distances: (C,) of the features, see `Predicted`; None likewise.
        image_hash: perceptual hash of the pixels; empty likewise.
    """

    row: int
    state: State | None
    reason: str | None
    quality_flags: tuple[str, ...] = ()
    probabilities: npt.NDArray[np.float32] | None = None
    distances: npt.NDArray[np.float64] | None = None
    image_hash: bytes = b""


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
        "quality_flags": entry.quality_flags,
        "probabilities": None if entry.probabilities is None else entry.probabilities.tolist(),
        "distances": None
        if entry.distances is None
        else [_finite_or_none(value) for value in entry.distances.tolist()],
        "image_hash": entry.image_hash.hex(),
    }
    return add_checksum(json.dumps(content).encode())


def decode_entry(line: bytes, num_images: int, shape: tuple[int, int]) -> Entry:
    """The inverse of `encode_entry`.

    Args:
        line: with the line feed at its end.
        num_images: that there are.
        shape: (C, K), checkpoints and labels.

    Raises:
        ValueError: it was not written as it is, or not for such images and models.
    """
    content = parse_json(check_line(line).decode())
    if not isinstance(content, dict) or content.keys() != KEYS:
        raise ValueError("no entry")
    row, reason, quality_flags = content["row"], content["reason"], content["quality_flags"]
    if type(row) is not int or not 0 <= row < num_images:
        raise ValueError("no such image")
    if not isinstance(quality_flags, list) or not all(isinstance(flag, str) for flag in quality_flags):
        raise ValueError("no list of quality flags")
    if reason is not None and (not isinstance(reason, str) or not reason or content["probabilities"] is not None):
        raise ValueError("no reason")
    return Entry(
        row=row,
        state=_decode_state(content["state"]),
        reason=reason,
        quality_flags=tuple(quality_flags),
        probabilities=_decode_probabilities(content["probabilities"], shape) if reason is None else None,
        distances=_decode_distances(content["distances"], shape[0]) if reason is None else None,
        image_hash=_decode_hash(content["image_hash"], is_read=reason is None),
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


def _finite_or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _decode_distances(values: object, num_checkpoints: int) -> npt.NDArray[np.float64]:
    if not isinstance(values, list) or len(values) != num_checkpoints:
        raise ValueError("of other checkpoints")
    for value in values:
        if value is not None and not (type(value) in (int, float) and math.isfinite(value) and value >= 0):
            raise ValueError("no distances")
    return np.array([math.nan if value is None else value for value in values], dtype=np.float64)


def _decode_hash(text: object, *, is_read: bool) -> bytes:
    if not isinstance(text, str) or len(text) != (2 * HASH_BYTES if is_read else 0):
        raise ValueError("no perceptual hash")
    return bytes.fromhex(text)


def remove_parts(file: Path) -> None:
    """Forget all that is done."""
    for part in (file, *files_of_ranks(file)):
        part.unlink(missing_ok=True)


@contextlib.contextmanager
def open_unfinished(
    file: Path,
    key: str,
    num_images: int,
    shape: tuple[int, int],
    take: Callable[[Entry], object],
    *,
    timeout_s: float = 0,
) -> Iterator[Write]:
    """Hand over what the file holds, an entry after another, and give a function that adds entries to it.

    The first line that is not as it was written ends it: that one and all after it are removed. No other process can
    have the file open meanwhile.

    Args:
        file: it is made where there is none.
        key: what decides the predictions besides the content of the images.
        num_images: of the command.
        shape: (C, K), its checkpoints and labels.
        take: gets each entry; of several of one row, the last one is the newest.
        timeout_s: how long to wait for another process, in seconds.

    Raises:
        UserError: it is of another key, another process has it open, or the disk is full.
    """
    refusal = f"{file}: another process is at it; choose another --out, or wait"
    # Or a lock's file would lie beside all predictions.
    with clear_end_when_full(file), exclusive_lock(Path(f"{file}.lock"), refusal, timeout_s=timeout_s, remove=True):
        head = json.dumps({"key": key}).encode() + b"\n"
        try:
            for entry in read_journal(file, head, lambda line: decode_entry(line, num_images, shape)):
                take(entry)
        except ForeignJournalError:
            raise UserError(
                f"{file}: is what an unfinished command with other images, models or options, or of another version, "
                "has done; repeat that one to resume it, or give --fresh to start over"
            ) from None
        with file.open("ab") as stream:
            yield lambda new: append_lines(stream, map(encode_entry, new))
