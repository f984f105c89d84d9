"""From stored values to the 256 greys of a screen."""

from typing import Any

import numpy as np
import numpy.typing as npt

WINDOW_PERCENTILES = (0.5, 99.5)
"""Values below and above are shown as black and white where a file does not say what to show: burnt-in letters and the
edge of a collimator would otherwise take most of the greys."""


def percentile_window(values: npt.NDArray[Any]) -> tuple[float, float]:
    """The (low, high) values to be shown as black and white in an image without a window of its own."""
    low, high = np.percentile(values, WINDOW_PERCENTILES)
    if low == high:  # almost everything has one value: what else there is decides
        low, high = values.min(), values.max()
    return float(low), float(high)


def to_greys(values: npt.NDArray[Any], low: float, high: float) -> npt.NDArray[np.uint8]:
    """Scale `low`..`high` to 0..255, clipped; one value alone becomes 0.

    Args:
        values: any shape and number type.
        low: value shown as black.
        high: value shown as white.

    Returns:
        uint8 of the same shape.
    """
    scale = 255 / (high - low) if high > low else 0.0
    greys: npt.NDArray[np.float32] = (values.astype(np.float32) - np.float32(low)) * np.float32(scale)
    return np.rint(np.clip(greys, 0, 255, out=greys), out=greys).astype(np.uint8)
