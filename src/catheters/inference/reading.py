"""From the content of a file to the pixels that the models see, or the reason why there are none."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from catheters.data.decoding.image import UnreadableImage
from catheters.data.preprocessing import Preprocessed, Preprocessing, preprocess
from catheters.errors import one_line
from catheters.inference.quality_flags import flags_of_pixels

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class ReadImage:
    """An image for the models, or why there is none.

    Attributes:
        reason: why it could not be read; None for one that could.
        pixels: (H, W) for each way of preprocessing.
        quality_flags: what a reader should know about it.
    """

    reason: str | None
    pixels: tuple[Pixels, ...] = ()
    quality_flags: tuple[str, ...] = ()


def read_image(data: bytes, preprocessings: Sequence[Preprocessing]) -> ReadImage:
    """The content of a file as the models want it; never raises for a bad one."""
    try:
        return image_of(make_images(data, preprocessings))
    except UnreadableImage as error:
        return ReadImage(reason=str(error))


def make_images(data: bytes, preprocessings: Sequence[Preprocessing]) -> list[Preprocessed]:
    """The content of a file, as each way of preprocessing makes it.

    Raises:
        UnreadableImage: see `preprocess`; also where OpenCV cannot process it.
    """
    try:
        return [preprocess(data, preprocessing) for preprocessing in preprocessings]
    except cv2.error as error:  # mostly of memory
        raise UnreadableImage(f"cannot be processed: {one_line(error)}") from None


def image_of(made: Sequence[Preprocessed]) -> ReadImage:
    """An image that each way of preprocessing has made."""
    largest = max(made, key=lambda preprocessed: preprocessed.pixels.size)
    return ReadImage(
        reason=None,
        pixels=tuple(preprocessed.pixels for preprocessed in made),
        quality_flags=(*(note.text for note in largest.notes), *flags_of_pixels(largest)),
    )
