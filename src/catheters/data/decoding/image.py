"""What decoding a file gives: a grey image with notes on it, or the reason why there is none."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

MAX_PIXELS = 64_000_000
"""Larger images are refused before they are decoded: no radiograph is, and a decompression bomb may be."""

NoteKind = Literal["inverted", "lateral", "not a chest", "frames", "window", "raw"]
"""What a reader should know of an image that could be read: it looks like inverted grayscale; its tags say that it is a
lateral or oblique view; that it shows another part of the body or was made otherwise; it is the first of several; its
own window shows next to nothing; it holds raw values of the detector."""


class UnreadableImage(Exception):
    """An image that is missing or broken; the message is the reason. One of them never stops a run."""


@dataclass(frozen=True)
class Note:
    """A quality flag of an image that could be read."""

    kind: NoteKind
    text: str


@dataclass(frozen=True)
class DecodedImage:
    """A decoded file.

    Attributes:
        image: (h, w) uint8, as a viewer would show it; smaller than the file's where the decoder was allowed to.
        full_shape: (H, W) of the whole image as shown, in pixels.
        notes: its quality flags.
        is_stretched: whether the file does not say which of its values to show, so that the middle 99% of them are: an
            8-bit copy of it looks otherwise.
    """

    image: npt.NDArray[np.uint8]
    full_shape: tuple[int, int]
    notes: tuple[Note, ...] = ()
    is_stretched: bool = False


def check_size(height: int, width: int) -> None:
    """Raise UnreadableImage for sizes that no radiograph has, before memory is taken for them."""
    if height < 1 or width < 1:
        raise UnreadableImage(f"is {width} x {height} pixels large")
    if height * width > MAX_PIXELS:
        raise UnreadableImage(
            f"says that it is {width} x {height} pixels large; at most {MAX_PIXELS // 10**6} million are decoded"
        )
