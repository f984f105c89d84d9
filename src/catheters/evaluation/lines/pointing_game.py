"""Whether a heatmap points at the tip that it is meant to explain."""

import math

import numpy as np
import numpy.typing as npt

HOTTEST_SHARE = 0.05


def tip_hit(heatmap: npt.NDArray[np.floating], tip: tuple[float, float], share: float = HOTTEST_SHARE) -> float:
    """How likely the tip lies in the hottest part of a heatmap: 1 or 0, but for ties.

    Pixels of the same heat are taken in random order, on average: a tip on one of `e` such pixels, where there is room
    for `r` of them, is a hit by r / e. So a constant heatmap scores `share`, no more and no less, wherever the tip is.
    The game is that of Zhang et al., Top-down neural attention by excitation backprop, IJCV 126 (2018), with a region
    in place of the hottest pixel.

    Args:
        heatmap: (h, w), the higher the hotter.
        tip: x and y in pixels of the heatmap, pixel centres whole; one that lies outside counts as at the edge.
        share: of the pixels that are the hottest part.

    Returns:
        In 0..1; NaN where the tip is NaN.

    Raises:
        ValueError: the heatmap has no pixel, or NaN among them.
    """
    if heatmap.ndim != 2 or not heatmap.size or np.isnan(heatmap).any():
        raise ValueError(f"a heatmap (h, w) of numbers is expected, not {heatmap.shape} or NaN")
    x, y = tip
    if math.isnan(x) or math.isnan(y):
        return math.nan
    height, width = heatmap.shape
    row, column = (min(max(math.floor(at + 0.5), 0), size - 1) for at, size in ((y, height), (x, width)))
    heat = heatmap[row, column]
    num_hotter, num_equal = int((heatmap > heat).sum()), int((heatmap == heat).sum())
    return min(max((share * heatmap.size - num_hotter) / num_equal, 0.0), 1.0)
