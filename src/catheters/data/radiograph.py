"""From an image file to the grey picture that the classifier sees."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import cv2
import numpy as np
import numpy.typing as npt

RESIZE_RULE = "stretch"
"""How an X-ray becomes a square: both sides are scaled independently, as published for RANZCR CLiP."""


class UnreadableImage(Exception):
    """An image that is missing or broken; the message is the reason. One of them never ends a run."""


def read_radiograph(file: Path) -> npt.NDArray[np.uint8]:
    """Decode a JPEG or PNG as 8-bit grey.

    The values that occur in a 16-bit file become 0..255: few such files use all 16 bits. Damage inside a JPEG that the
    decoder can bridge is not noticed.

    Returns:
        (H, W) uint8, EXIF rotation applied.

    Raises:
        UnreadableImage: the file is missing, empty, truncated or no image.
    """
    try:
        data = np.fromfile(file, dtype=np.uint8)
    except FileNotFoundError:
        raise UnreadableImage("no such file") from None
    except OSError as error:
        raise UnreadableImage(f"cannot be read: {error.strerror}") from None
    if data.size == 0:
        raise UnreadableImage("the file is empty")
    try:
        image = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE | cv2.IMREAD_ANYDEPTH)
    except cv2.error as error:
        raise UnreadableImage(f"cannot be decoded: {error.err}") from None
    if image is None:
        raise UnreadableImage("cannot be decoded: not an image, truncated or damaged")
    if image.dtype == np.uint16:
        low, high = int(image.min()), int(image.max())
        image = np.round((image.astype(np.float32) - low) * (255 / max(high - low, 1))).astype(np.uint8)
    if image.dtype != np.uint8:
        raise UnreadableImage(f"holds {image.dtype} pixels; 8 or 16 bits are expected")
    return cast("npt.NDArray[np.uint8]", image)


@contextlib.contextmanager
def one_opencv_thread() -> Iterator[None]:
    """Keep OpenCV to one thread where images are spread over threads already."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


def resize(image: npt.NDArray[np.uint8], image_size: int) -> npt.NDArray[np.uint8]:
    """Stretch (H, W) uint8 to (image_size, image_size): area averaging when shrinking, bilinear when enlarging."""
    shrinks = image_size < min(image.shape)
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cast("npt.NDArray[np.uint8]", cv2.resize(image, (image_size, image_size), interpolation=interpolation))
