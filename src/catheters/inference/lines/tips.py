"""Tips: the peaks of a map, to a fraction of a pixel."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter, maximum_filter

from catheters.point_maps import sigma_of

Map = npt.NDArray[np.float32]

MIN_DISTANCE = 2.0
"""Between two tips, in sigmas: nearer ones are one peak."""
LEAST_AT_A_PIXEL = 0.8
"""Of a peak's height: its highest pixel may lie half a pixel beside it in each direction."""


@dataclass(frozen=True)
class Tip:
    """A peak of a tip map.

    Attributes:
        x: column in pixels of the map, pixel centres whole.
        y: row.
        probability: height of the bump that fits best there, in 0..1.
    """

    x: float
    y: float
    probability: float


def find_tips(tip: Map, threshold: float) -> list[Tip]:
    """The peaks of a tip map, the highest first.

    Args:
        tip: (h, w) probabilities in 0..1 with a Gaussian bump at each tip.
        threshold: lower bumps are none.
    """
    sigma = sigma_of(tip.shape[1])
    # The height of a bump of this sigma by least squares: such a bump is half as high after it has been smoothed by
    # itself. Its peak is the middle also where the map was cut off at 1, and noise in single pixels hardly moves it.
    heights = 2 * gaussian_filter(tip.astype(np.float64), sigma, mode="constant")
    radius = max(1, round(MIN_DISTANCE * sigma))
    is_highest = heights == maximum_filter(heights, size=2 * radius + 1, mode="constant")
    rows, columns = np.nonzero(is_highest & (heights >= LEAST_AT_A_PIXEL * threshold))
    order = np.argsort(-heights[rows, columns], kind="stable")
    found: list[Tip] = []
    taken: list[tuple[int, int]] = []
    for row, column in zip(rows[order].tolist(), columns[order].tolist(), strict=True):
        # A plateau has several highest pixels.
        if all(max(abs(row - other_row), abs(column - other_column)) > radius for other_row, other_column in taken):
            taken.append((row, column))
            (x, beside), (y, above) = _vertex(heights[row], column), _vertex(heights[:, column], row)
            found.append(Tip(x, y, min(1.0, float(heights[row, column]) * beside * above)))
    return sorted((one for one in found if one.probability >= threshold), key=lambda one: -one.probability)


def _vertex(heights: npt.NDArray[np.float64], peak: int) -> tuple[float, float]:
    """Where a bump is highest, and how many times as high there as at its highest pixel.

    A parabola through the logarithms of that pixel and its neighbours is exact for a Gaussian.
    """
    around = heights[max(peak - 1, 0) : peak + 2]
    if len(around) < 3 or around.min() <= 0:  # at the map's edge, or a lone pixel
        return float(peak), 1.0
    before, middle, after = np.log(around).tolist()
    curvature = before - 2 * middle + after
    if curvature >= 0:
        return float(peak), 1.0
    offset = (before - after) / (2 * curvature)
    return peak + offset, math.exp(-(before - after) * offset / 4)
