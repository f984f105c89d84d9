"""Polarity of a chest radiograph: whether it looks like inverted grayscale (a negative)."""

from typing import cast

import cv2
import numpy as np
import numpy.typing as npt

MAX_SCORE_OF_INVERTED = -0.1
"""Of 2,964 variants of 52 real frontal radiographs, upright ones score 0.01 and more; see docs/how-to/audit.md."""
POLARITY_CHECK = "2"
"""Goes up when other images would be called inverted; version 0.2.0 had none."""
THUMBNAIL_SIZE, MATCHED_SIZE = 128, 32
"""Sides in pixels at which fine structures are looked at, and at which the image is compared with a chest."""
LEFT_HALF_OF_CHEST = (
    (-7, -6, -6, -6, -5, -3, -1, 1),
    (-4, -3, -2, -2, -2, -2, -1, 0),
    (-3, -1, 0, -1, -1, -2, -2, 1),
    (-2, 0, 1, -1, -3, -4, -2, 1),
    (-2, 0, 1, -2, -4, -4, -2, 2),
    (-2, 0, 1, -2, -4, -5, -2, 3),
    (-3, 0, 1, -3, -5, -4, -1, 4),
    (-3, 1, 1, -3, -4, -3, 0, 4),
    (-3, 1, 1, -3, -3, -2, 1, 5),
    (-3, 2, 1, -2, -2, 0, 2, 5),
    (-3, 2, 1, -1, -1, 1, 2, 5),
    (-3, 2, 1, 0, 1, 2, 3, 6),
    (-3, 1, 2, 2, 3, 3, 4, 6),
    (-4, 1, 2, 3, 4, 4, 4, 6),
    (-4, 1, 3, 4, 4, 4, 5, 6),
    (-3, 2, 4, 5, 6, 6, 6, 6),
)
"""How bright a frontal chest is, (16, 8) in twentieths of the range of ranks about their middle; the other half is its
mirror. The mean of 52 real radiographs, a square each."""
SCALES = (0.8, 1.0, 1.2)
"""Sizes of the chest that are sought, in parts of the image."""
MARGIN = 8
"""How far, in the pixels of `MATCHED_SIZE`, a chest may reach beyond the image."""
WEIGHT_OF_FINE_STRUCTURES = 1.5

Ranks = npt.NDArray[np.float32]


def polarity_score(image: npt.NDArray[np.uint8]) -> float:
    """How much more an image resembles a chest whose bone is bright than one whose bone is dark.

    Two signs are added up. A chest is sought at several places and sizes, upright and inverted: the higher correlation
    tells. And ribs, vessels, lines and letters, the fine structures of a radiograph, are brighter than what is about
    them. The greys are replaced by their ranks, so that windows and contrast do not matter.

    Args:
        image: (H, W) uint8, a frontal chest radiograph as shown.

    Returns:
        About 0 to 1.5 where bone is bright, as much below 0 where it is dark; exactly 0 for an image that is blank or
        smaller than `MATCHED_SIZE`.
    """
    if min(image.shape) < MATCHED_SIZE:
        return 0.0
    step = max(min(image.shape) // (2 * THUMBNAIL_SIZE), 1)
    fine = cv2.resize(image[::step, ::step], (THUMBNAIL_SIZE, THUMBNAIL_SIZE), interpolation=cv2.INTER_AREA)
    coarse = cv2.resize(fine, (MATCHED_SIZE, MATCHED_SIZE), interpolation=cv2.INTER_AREA)
    return _likeness(_ranks(coarse)) + WEIGHT_OF_FINE_STRUCTURES * _brightness_of_fine_structures(_ranks(fine))


def looks_inverted(image: npt.NDArray[np.uint8]) -> bool:
    """Whether a frontal chest radiograph seems to show bone as black."""
    return polarity_score(image) < MAX_SCORE_OF_INVERTED


def _ranks(image: npt.NDArray[np.generic]) -> Ranks:
    """Each pixel's rank among all, in -0.5..0.5; pixels of one grey share theirs."""
    counts = np.bincount(image.reshape(-1), minlength=256)
    rank_of_grey = (np.cumsum(counts) - counts / 2) / image.size - 0.5
    return cast(Ranks, rank_of_grey.astype(np.float32)[image])


def _likeness(ranks: Ranks) -> float:
    """The best correlation with an upright chest less that with an inverted one, of all places and sizes."""
    left = np.array(LEFT_HALF_OF_CHEST, dtype=np.float32)
    chest = np.hstack([left, left[:, ::-1]])
    surrounded = np.pad(ranks, MARGIN)
    upright, inverted = -1.0, -1.0
    for scale in SCALES:
        side = round(scale * MATCHED_SIZE)
        sought = cv2.resize(chest, (side, side), interpolation=cv2.INTER_LINEAR)
        correlations = cv2.matchTemplate(surrounded, sought, cv2.TM_CCOEFF_NORMED)
        upright, inverted = max(upright, float(correlations.max())), max(inverted, -float(correlations.min()))
    return upright - inverted


def _brightness_of_fine_structures(ranks: Ranks) -> float:
    """In -1..1: 1 where all that is narrower than 3 pixels is bright (morphological top-hats of both kinds)."""
    element = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (3, 3))
    bright = float(cv2.morphologyEx(ranks, cv2.MORPH_TOPHAT, element).mean())
    dark = float(cv2.morphologyEx(ranks, cv2.MORPH_BLACKHAT, element).mean())
    return (bright - dark) / (bright + dark) if bright + dark > 0 else 0.0
