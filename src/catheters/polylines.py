"""Polylines: lengths along them, and points at even distances."""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def lengths_along(points: Floats) -> Floats:
    """(n, 2) -> (n,) the length from the first point to each, n at least 1."""
    steps = np.hypot(*np.diff(points, axis=0).T)
    return np.concatenate([[0.0], np.cumsum(steps)])


def resample(points: Floats, spacing: float) -> Floats:
    """A polyline with points as far apart along it as `spacing`, or a little less; both ends are kept.

    Args:
        points: (n, 2), n at least 1.
        spacing: above 0, in their unit.

    Returns:
        (m, 2), m at least 2; of one point, or of a length of 0, the same point twice.
    """
    along = lengths_along(points)
    num_steps = max(1, int(np.ceil(along[-1] / spacing - 1e-9)))  # what rounding adds is no further step
    return resample_to(points, num_steps + 1)


def resample_to(points: Floats, number: int) -> Floats:
    """A polyline (n, 2), n at least 1, as `number` points equally far apart along it; both ends are kept."""
    along = lengths_along(points)
    positions = np.linspace(0, along[-1], number)
    return np.stack([np.interp(positions, along, points[:, axis]) for axis in (0, 1)], axis=1)
