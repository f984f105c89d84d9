"""Distances between polylines by hand, and by brute force over dense points."""

from itertools import pairwise

import numpy as np
import pytest

from catheters.evaluation.lines.distances import centreline_distance, distances_from


def test_parallels_by_hand() -> None:
    one = np.array([[0.0, 0.0], [10.0, 0.0]])
    two = np.array([[10.0, 3.0], [4.0, 3.0], [0.0, 3.0]])  # the other way round, with a point between
    found = centreline_distance(two, one)
    assert found == pytest.approx(3)
    same = centreline_distance(one, one[::-1])
    assert same == pytest.approx(0)


def test_a_line_that_is_too_short_by_hand() -> None:
    """0 to 10 against 0 to 5. Of the longer one's 11 points six lie on the other, then they are 1 to 5 away; the
    shorter one's 6 points lie on the longer: 15 / 17.
    """
    longer, shorter = np.array([[0.0, 0.0], [10.0, 0.0]]), np.array([[0.0, 0.0], [5.0, 0.0]])
    for found in (centreline_distance(shorter, longer), centreline_distance(longer, shorter)):
        assert found == pytest.approx(15 / 17)


def test_a_point_is_a_polyline() -> None:
    point = np.array([[3.0, 4.0]])
    assert distances_from(point, np.array([[0.0, 0.0], [3.0, 4.0]])).tolist() == [5, 0]
    assert centreline_distance(point, np.array([[0.0, 0.0]])) == pytest.approx(5)


def test_between_the_points_too(rng: np.random.Generator) -> None:
    polyline, points = rng.uniform(0, 100, (6, 2)), rng.uniform(0, 100, (40, 2))
    share = np.linspace(0, 1, 20_001)[:, None]
    dense = np.concatenate([a + share * (b - a) for a, b in pairwise(polyline)])
    expected = [np.hypot(*(dense - point).T).min() for point in points]
    assert distances_from(polyline, points) == pytest.approx(np.array(expected), abs=0.01)
    assert (distances_from(polyline, points) <= np.array(expected) + 1e-9).all()


def test_repeated_points() -> None:
    polyline = np.array([[0.0, 0.0], [0.0, 0.0], [4.0, 0.0], [4.0, 0.0]])
    assert distances_from(polyline, np.array([[2.0, 1.0], [7.0, 4.0]])).tolist() == [1, 5]


def test_spacing_hardly_matters(rng: np.random.Generator) -> None:
    one, two = (np.cumsum(rng.uniform(0, 20, (10, 2)), axis=0) for _ in range(2))
    coarse, fine = centreline_distance(one, two, spacing=1.0), centreline_distance(one, two, spacing=0.05)
    assert coarse == pytest.approx(fine, rel=0.02)
