"""Predicted tips against true ones: which was found, how far off, and which predicted ones are false."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

Floats = npt.NDArray[np.float64]

TOLERANCE_MM = 10.0
"""How far off a tip may be to be found, where the pixel spacing is known."""
TOLERANCE_SHARE = 0.02
"""The same as a part of the image's width, where it is not: about 8 mm on a chest X-ray."""


@dataclass(frozen=True, kw_only=True)
class TipMatches:
    """The tips of one image and device type.

    Attributes:
        errors: (n,) the distance of each true tip from the predicted one that it is paired with, in pixels, however
            far; infinite where no predicted tip is left for it.
        is_found: (n,) whether that is within the tolerance.
        partners: (n,) the row of that predicted tip; -1 where there is none.
        num_false: predicted tips that are not within the tolerance of the true tip that they are paired with, or are
            paired with none.
    """

    errors: Floats
    is_found: npt.NDArray[np.bool_]
    partners: npt.NDArray[np.intp]
    num_false: int


def tip_tolerance(image_width: int, mm_per_pixel: float | None = None) -> float:
    """In pixels: 10 mm where the pixel spacing is known, else 2% of the image's width."""
    if mm_per_pixel is None or math.isnan(mm_per_pixel):
        return TOLERANCE_SHARE * image_width
    return TOLERANCE_MM / mm_per_pixel


def match_tips(predicted: Floats, truth: Floats, tolerance: float) -> TipMatches:
    """Pair the tips of one image and device type, each one at most once.

    As many true tips as can be are found, and of all ways to do so that of the least total distance is taken. The true
    tips that are left are then paired with the predicted ones that are left, again at the least total distance, so that
    their errors say how far off they are.

    Args:
        predicted: (m, 2) x and y in pixels.
        truth: (n, 2) likewise.
        tolerance: in pixels.
    """
    num_true, num_predicted = len(truth), len(predicted)
    errors = np.full(num_true, math.inf)
    partners = np.full(num_true, -1, dtype=np.intp)
    if num_true and num_predicted:
        offsets = truth[:, None] - predicted[None]
        distances = np.hypot(offsets[..., 0], offsets[..., 1])  # (n, m)
        # One pair more within the tolerance outweighs all distances together: costs are distances less that.
        bonus = tolerance * (min(num_true, num_predicted) + 1) + 1
        rows, columns = linear_sum_assignment(np.where(distances <= tolerance, distances - bonus, 0.0))
        is_near = distances[rows, columns] <= tolerance
        partners[rows[is_near]] = columns[is_near]
        left, free = np.flatnonzero(partners < 0), np.setdiff1d(np.arange(num_predicted), partners)
        rows, columns = linear_sum_assignment(distances[np.ix_(left, free)])
        partners[left[rows]] = free[columns]
        has_partner = partners >= 0
        errors[has_partner] = distances[has_partner, partners[has_partner]]
    is_found = errors <= tolerance
    return TipMatches(
        errors=errors, is_found=is_found, partners=partners, num_false=num_predicted - int(is_found.sum())
    )
