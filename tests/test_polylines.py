"""Polylines by hand."""

import numpy as np
import pytest

from catheters.polylines import lengths_along, resample

CORNER = np.array([[0.0, 0.0], [3.0, 4.0], [3.0, 6.0]])
"""5 and 2 long."""


def test_lengths() -> None:
    assert lengths_along(CORNER).tolist() == [0, 5, 7]
    assert lengths_along(CORNER[:1]).tolist() == [0]


def test_points_at_even_distances() -> None:
    assert resample(CORNER, 3.5) == pytest.approx(np.array([[0, 0], [2.1, 2.8], [3, 6]]))
    assert resample(CORNER, 1.0)[[0, 5, 6, 7]] == pytest.approx(np.array([[0, 0], [3, 4], [3, 5], [3, 6]]))
    assert len(resample(CORNER, 1.01)) == 8  # 7 steps of 1: never more than asked for
    assert len(resample(CORNER, 0.99)) == 9
    assert len(resample(CORNER, 100.0)) == 2


def test_a_point_is_a_polyline() -> None:
    assert resample(CORNER[:1], 1.0).tolist() == [[0, 0], [0, 0]]
    assert resample(CORNER[[0, 0]], 1.0).tolist() == [[0, 0], [0, 0]]
