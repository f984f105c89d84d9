"""From a file to the pixels that the classifier sees; the same code serves the cache and prediction."""

from dataclasses import dataclass
from typing import Any, Literal, cast

import cv2
import numpy as np
import numpy.typing as npt

from catheters.data.decoding.image import Note, UnreadableImage
from catheters.data.decoding.radiograph import decode_radiograph, polarity_notes

Pixels = npt.NDArray[np.uint8]
Resampling = Literal["area", "quick"]

EXCLUDED = "excluded"
"""How the reason begins of an image that could be read, and that the settings leave out."""
MAX_BY_BLOCKS = 2.5
"""The quick resampling shrinks images at most so many times larger than asked for by 2 x 2 blocks."""
BORDER_GREY = 12
"""Darker pixels may belong to a black border."""
BORDER_SHARE = 0.99
"""Share of such pixels in a row or column of a border: letters may stand in it."""


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """What is done to every X-ray; kept with the cache and with each checkpoint.

    Attributes:
        image_shape: (height, width) of the result, in pixels.
        resize: "stretch" scales both sides independently; "pad" keeps the aspect and fills up with black.
        crop_borders: whether black borders are cut off first.
        inverted: what becomes of radiographs that look like inverted grayscale: "keep", "invert" or "exclude".
        resampling: "area" averages all pixels of the file by areas; "quick" is what version 0.2.0 did: JPEGs decoded
            to a fraction of their size, then bilinear and blocks. It weakens lines of a few pixels, and remains for
            models and caches that were made with it.
    """

    image_shape: tuple[int, int]
    resize: Literal["stretch", "pad"] = "stretch"
    crop_borders: bool = False
    inverted: Literal["keep", "invert", "exclude"] = "keep"
    resampling: Resampling = "area"

    def describe(self) -> dict[str, Any]:
        """The settings that decide the pixels, by their names there, as plain data."""
        return {
            "image_size": list(self.image_shape),
            "resize": self.resize,
            "crop_borders": self.crop_borders,
            "inverted": self.inverted,
            "resampling": self.resampling,
        }


@dataclass(frozen=True)
class Placement:
    """Where a pixel of the image lies in the preprocessed image: `offset + scale * position`, pixel centres whole.

    Attributes:
        scale: (2,) of x and y.
        offset: (2,) of x and y, in pixels of the preprocessed image.
    """

    scale: tuple[float, float]
    offset: tuple[float, float]

    def apply(self, points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """(n, 2) x, y in pixels of the image as shown -> (n, 2) in pixels of the preprocessed image."""
        return np.asarray(self.offset) + np.asarray(self.scale) * points

    def undo(self, points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """(n, 2) x, y in pixels of the preprocessed image -> (n, 2) in pixels of the image as shown."""
        found: npt.NDArray[np.float64] = (points - np.asarray(self.offset)) / np.asarray(self.scale)
        return found


@dataclass(frozen=True, kw_only=True)
class Preprocessed:
    """A preprocessed X-ray.

    Attributes:
        pixels: (H, W) uint8.
        full_shape: (H, W) of the whole image as shown, in pixels.
        box: (top, left, bottom, right) of the part that was kept, in pixels of the image as shown.
        notes: its quality flags.
    """

    pixels: Pixels
    full_shape: tuple[int, int]
    box: tuple[float, float, float, float]
    notes: tuple[Note, ...]


def preprocess(data: bytes, preprocessing: Preprocessing) -> Preprocessed:
    """Decode an X-ray and bring it to the size and look that the classifier expects.

    Args:
        data: the content of its file.
        preprocessing: what to do.

    Raises:
        UnreadableImage: see `read_radiograph`; or the settings exclude it.
    """
    target = preprocessing.image_shape
    # A fraction of a JPEG's size is an average over blocks that its pixels' areas do not share: it costs contrast.
    decoded = decode_radiograph(data, target if preprocessing.resampling == "quick" else None)
    box = _kept_box(decoded.image, preprocessing)
    is_reduced = decoded.image.shape != decoded.full_shape
    if is_reduced and (box[2] - box[0] < target[0] or box[3] - box[1] < target[1]):
        decoded = decode_radiograph(data)  # what is left without its borders needs all the pixels there are
        box = _kept_box(decoded.image, preprocessing)
    height, width = decoded.image.shape
    per_row, per_column = decoded.full_shape[0] / height, decoded.full_shape[1] / width
    kept = decoded.image[box[0] : box[2], box[1] : box[3]]
    fitted_shape, corner = _fitted_shape(kept.shape[0], kept.shape[1], preprocessing)
    resized = resize(kept, fitted_shape, preprocessing.resampling)
    pixels, notes = _treat_inverted(resized, decoded.notes, preprocessing)
    return Preprocessed(
        pixels=_pad(pixels, corner, preprocessing.image_shape),
        full_shape=decoded.full_shape,
        box=(box[0] * per_row, box[1] * per_column, box[2] * per_row, box[3] * per_column),
        notes=notes,
    )


def place(box: tuple[float, float, float, float], preprocessing: Preprocessing) -> Placement:
    """Where the points of an image, of which `box` was kept, lie in the preprocessed image.

    Args:
        box: see `Preprocessed`.
        preprocessing: how the image was made.
    """
    top, left, bottom, right = box
    (fitted_height, fitted_width), (margin_top, margin_left) = _fitted_shape(bottom - top, right - left, preprocessing)
    scale = (fitted_width / (right - left), fitted_height / (bottom - top))
    # Centres of pixels are whole numbers, their edges lie half a pixel before: (x + 0.5 - left) * scale is an edge's.
    offset = (
        (0.5 - left) * scale[0] - 0.5 + margin_left,
        (0.5 - top) * scale[1] - 0.5 + margin_top,
    )
    return Placement(scale, offset)


def _treat_inverted(
    pixels: Pixels, notes: tuple[Note, ...], preprocessing: Preprocessing
) -> tuple[Pixels, tuple[Note, ...]]:
    """The pixels as the settings want them where the grayscale looks inverted, and all notes."""
    found = polarity_notes(pixels, notes)
    if not found or preprocessing.inverted == "keep":
        return pixels, (*notes, *found)
    if preprocessing.inverted == "exclude":
        raise UnreadableImage(f"{EXCLUDED}: likely inverted grayscale (inverted='exclude')")
    return 255 - pixels, (*notes, *(Note(note.kind, f"{note.text}; turned round") for note in found))


def _kept_box(image: Pixels, preprocessing: Preprocessing) -> tuple[int, int, int, int]:
    """(top, left, bottom, right) of what is kept; everything where nothing but border would be found."""
    whole = (0, 0, image.shape[0], image.shape[1])
    if not preprocessing.crop_borders:
        return whole
    is_dark = image <= BORDER_GREY
    rows = np.flatnonzero(is_dark.mean(axis=1) < BORDER_SHARE)
    columns = np.flatnonzero(is_dark.mean(axis=0) < BORDER_SHARE)
    if not len(rows) or not len(columns):
        return whole
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


def _fitted_shape(height: float, width: float, preprocessing: Preprocessing) -> tuple[tuple[int, int], tuple[int, int]]:
    """(height, width) that the kept part gets, and its (top, left) in the image."""
    target_height, target_width = preprocessing.image_shape
    if preprocessing.resize == "stretch":
        return preprocessing.image_shape, (0, 0)
    scale = min(target_height / height, target_width / width)
    fitted = (
        min(max(round(height * scale), 1), target_height),
        min(max(round(width * scale), 1), target_width),
    )
    return fitted, ((target_height - fitted[0]) // 2, (target_width - fitted[1]) // 2)


def _pad(image: Pixels, corner: tuple[int, int], shape: tuple[int, int]) -> Pixels:
    """The image on black of `shape`, from its (top, left) `corner` on."""
    if image.shape == shape:
        return image
    padded = np.zeros(shape, dtype=np.uint8)
    padded[corner[0] : corner[0] + image.shape[0], corner[1] : corner[1] + image.shape[1]] = image
    return padded


def resize(image: Pixels, shape: tuple[int, int], resampling: Resampling = "area") -> Pixels:
    """(h, w) uint8 to `shape`: area averaging where it shrinks, bilinear where it is enlarged.

    "quick": OpenCV averages whole 2 x 2 blocks many times faster than areas of other sizes. So where no side shrinks
    to less than 1 / `MAX_BY_BLOCKS`, the image is brought to twice the shape first, bilinearly.
    """
    height, width = shape
    if (height - image.shape[0]) * (width - image.shape[1]) < 0:  # one side shrinks, the other is enlarged
        image = resize(image, (min(height, image.shape[0]), min(width, image.shape[1])), resampling)
    if resampling == "quick" and _may_go_by_blocks(image, shape):
        image = cast(Pixels, cv2.resize(image, (2 * width, 2 * height), interpolation=cv2.INTER_LINEAR))
    is_smaller = height < image.shape[0] or width < image.shape[1]
    interpolation = cv2.INTER_AREA if is_smaller else cv2.INTER_LINEAR
    return cast(Pixels, cv2.resize(image, (width, height), interpolation=interpolation))


def _may_go_by_blocks(image: Pixels, shape: tuple[int, int]) -> bool:
    return all(after < before <= MAX_BY_BLOCKS * after for before, after in zip(image.shape, shape, strict=True))
