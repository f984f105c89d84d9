"""What the audit asks of every file."""

import base64
import functools
import hashlib
from dataclasses import dataclass
from pathlib import Path

import cv2

from catheters.data.decoding.image import Note, UnreadableImage
from catheters.data.decoding.radiograph import decode_radiograph, polarity_notes, read_file, read_radiograph
from catheters.data.image_hashes import HASH_BYTES, perceptual_hash
from catheters.errors import one_line
from catheters.runtime.host import available_cores
from catheters.runtime.opencv_threads import end_opencv_threads
from catheters.runtime.workers import Failure, map_guarded

EXAMINED_SIZE = (256, 256)
"""Enough of a JPEG to judge it by, in pixels; its damage is found all the same."""
THUMBNAIL_SIZE = 220


@dataclass(frozen=True, kw_only=True)
class Examined:
    """What was found out about one file.

    Attributes:
        reason: why it cannot be read; what follows has no meaning then.
        num_bytes: size of the file.
        pixels_sha256: SHA-256 of its pixels, as they are examined: the same in another file is the same image.
        full_shape: (H, W) of the image, in pixels.
        grey_mean: mean of its greys, 0..255.
        grey_std: their standard deviation.
        perceptual_hash: 32 bytes; similar images differ in few bits.
        notes: the reader's quality flags.
        is_stretched: as of a `DecodedImage`.
    """

    reason: str | None = None
    num_bytes: int = 0
    pixels_sha256: bytes = b""
    full_shape: tuple[int, int] = (0, 0)
    grey_mean: float = 0.0
    grey_std: float = 0.0
    perceptual_hash: bytes = bytes(HASH_BYTES)
    notes: tuple[Note, ...] = ()
    is_stretched: bool = False


def examine(paths: tuple[Path, ...], row: int) -> Examined:
    """Read the whole file and look at its image."""
    end_opencv_threads()
    try:
        data = read_file(paths[row])
        decoded = decode_radiograph(data, EXAMINED_SIZE)
        mean, std = cv2.meanStdDev(decoded.image)
    except UnreadableImage as error:
        return Examined(reason=str(error))
    except cv2.error as error:  # mostly of memory
        return Examined(reason=f"cannot be processed: {one_line(error)}")
    return Examined(
        num_bytes=len(data),
        pixels_sha256=hashlib.sha256(decoded.image.tobytes()).digest(),
        full_shape=decoded.full_shape,
        grey_mean=float(mean.item()),
        grey_std=float(std.item()),
        perceptual_hash=perceptual_hash(decoded.image),
        notes=(*decoded.notes, *polarity_notes(decoded.image, decoded.notes)),
        is_stretched=decoded.is_stretched,
    )


def _thumbnail(paths: tuple[Path, ...], row: int) -> str:
    """A small JPEG of the image as a data URL; empty where it cannot be read."""
    end_opencv_threads()
    try:
        image = read_radiograph(paths[row], (THUMBNAIL_SIZE, THUMBNAIL_SIZE)).image
    except UnreadableImage:
        return ""
    scale = min(1.0, THUMBNAIL_SIZE / max(image.shape))
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return "data:image/jpeg;base64," + base64.b64encode(cv2.imencode(".jpg", small)[1].tobytes()).decode()


def thumbnails(paths: tuple[Path, ...], rows: list[int]) -> dict[int, str]:
    """Each row's thumbnail, made by one process per core; empty where the file cannot be read."""
    outcomes = map_guarded(functools.partial(_thumbnail, paths), rows, available_cores())
    return {row: "" if isinstance(outcome, Failure) else outcome for row, outcome in outcomes}
