"""Whether black and white of a chest radiograph seem to be exchanged."""

import cv2
import numpy as np
import numpy.typing as npt

THUMBNAIL_SIZE = 64
MAX_SCORE_OF_INVERTED = -0.12
"""Half of the way from 0 to what the most doubtful of 52 real frontal radiographs scored when inverted: upright they
scored 0.24 to 1.1, inverted the same below 0 (the radiographs are those of docs/lab-notes.md)."""


def polarity_score(image: npt.NDArray[np.uint8]) -> float:
    """How much brighter the mediastinum is than the lungs and the air above the shoulders.

    The greys are replaced by their ranks, so that windows, contrast and burnt-in letters do not matter.

    Args:
        image: (H, W) uint8, a frontal chest radiograph as shown.

    Returns:
        About 0.2 to 1.2 where bone is bright, as much below 0 where it is dark; exactly 0 for a blank picture.
    """
    step = max(min(image.shape) // (2 * THUMBNAIL_SIZE), 1)
    thumbnail = cv2.resize(image[::step, ::step], (THUMBNAIL_SIZE, THUMBNAIL_SIZE), interpolation=cv2.INTER_AREA)
    counts = np.bincount(thumbnail.reshape(-1), minlength=256)
    rank_of_grey = (np.cumsum(counts) - counts / 2) / thumbnail.size
    ranks = rank_of_grey[thumbnail]  # (64, 64), in 0..1
    mediastinum = ranks[16:52, 28:36].mean()
    lungs = (ranks[16:40, 12:24].mean() + ranks[16:40, 40:52].mean()) / 2
    above_shoulders = (ranks[:12, :8].mean() + ranks[:12, 56:].mean()) / 2
    return float((mediastinum - lungs) + (mediastinum - above_shoulders))


def looks_inverted(image: npt.NDArray[np.uint8]) -> bool:
    """Whether a frontal chest radiograph seems to show bone as black."""
    return polarity_score(image) < MAX_SCORE_OF_INVERTED
