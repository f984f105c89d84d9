"""The pointing game by hand, and its ties against drawing at random."""

import math

import numpy as np
import pytest

from catheters.evaluation.lines.pointing_game import tip_hit


def test_in_the_hottest_part_or_not() -> None:
    """Of 100 pixels the hottest 5 are 95 to 99, the last row's last."""
    heatmap = np.arange(100.0).reshape(10, 10)
    assert tip_hit(heatmap, (5.0, 9.0)) == 1
    assert tip_hit(heatmap, (4.0, 9.0)) == 0
    assert tip_hit(heatmap, (4.5, 9.4)) == 1  # the pixel whose area holds the place
    assert tip_hit(heatmap, (4.49, 8.6)) == 0
    assert tip_hit(heatmap, (4.0, 9.0), share=0.06) == 1
    assert tip_hit(heatmap, (30.0, 12.0)) == 1  # at the edge


def test_a_constant_heatmap_is_chance() -> None:
    for shape in ((10, 10), (7, 9), (3, 3)):
        for tip in ((0.0, 0.0), (2.0, 1.0)):
            assert tip_hit(np.zeros(shape), tip) == pytest.approx(0.05, abs=1e-15)


def test_any_heatmap_is_chance_over_all_places(rng: np.random.Generator) -> None:
    """A tip that lies anywhere is hit by 5%, ties or not."""
    for heatmap in (rng.random((9, 11)), rng.integers(0, 3, (9, 11)).astype(float), np.eye(9)):
        places = [(float(x), float(y)) for y in range(heatmap.shape[0]) for x in range(heatmap.shape[1])]
        assert np.mean([tip_hit(heatmap, place) for place in places]) == pytest.approx(0.05)


def test_ties_are_drawn_at_random(rng: np.random.Generator) -> None:
    """2 pixels are hotter, 6 are as hot as the tip's: 3 of those are in the hottest 5 of 100."""
    heatmap = np.zeros((10, 10))
    heatmap[0, :2], heatmap[1, :6] = 2, 1
    assert tip_hit(heatmap, (3.0, 1.0)) == pytest.approx(0.5)
    order = [np.lexsort((rng.random(100), -heatmap.ravel())) for _ in range(4000)]
    assert np.mean([13 in hottest[:5] for hottest in order]) == pytest.approx(0.5, abs=0.03)
    assert tip_hit(heatmap, (9.0, 9.0)) == 0


def test_wrong_heatmaps() -> None:
    for heatmap in (np.zeros(5), np.zeros((0, 3)), np.full((2, 2), math.nan)):
        with pytest.raises(ValueError, match=r"a heatmap \(h, w\) of numbers is expected"):
            tip_hit(heatmap, (0.0, 0.0))
