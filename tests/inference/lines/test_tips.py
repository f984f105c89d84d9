"""Tips of drawn bumps, whose places are known to a fraction of a pixel."""

import numpy as np
import pytest
import torch

from catheters.inference.lines.tips import find_tips
from catheters.training.line_losses import draw_points
from tests.inference.lines.drawing import add_noise, draw_tip_map, in_pixels

THRESHOLD = 0.4


@pytest.mark.parametrize("width", [64, 128])
def test_place_between_pixels(rng: np.random.Generator, width: int) -> None:
    """Within a twentieth of a pixel on average, a seventh with noise."""
    errors, noisy_errors = [], []
    for _ in range(40):
        place = rng.uniform(0.1, 0.9, 2)
        drawn = draw_tip_map([place], width)
        for values, collected in ((drawn, errors), (add_noise(drawn, rng, 0.03), noisy_errors)):
            found = find_tips(values, THRESHOLD)
            assert len(found) == 1
            collected.append(np.hypot(*(np.array([found[0].x, found[0].y]) - in_pixels(place, width))))
    assert np.mean(errors) < 0.05 and np.max(errors) < 0.1
    assert np.mean(noisy_errors) < 0.15 and np.max(noisy_errors) < 0.4


def test_height_is_that_of_the_bump(rng: np.random.Generator) -> None:
    for height in (0.5, 0.9):
        drawn = draw_tip_map([(0.4, 0.6)], 128, height)
        assert find_tips(drawn, THRESHOLD)[0].probability == pytest.approx(height, rel=0.05)
        noisy = add_noise(drawn, rng, 0.02)
        assert find_tips(noisy, THRESHOLD)[0].probability == pytest.approx(height, rel=0.1)


@pytest.mark.parametrize("width", [32, 64, 100, 160])
def test_maps_that_are_learnt_have_peaks_of_their_heights(width: int) -> None:
    """The target of training itself, at any width and between pixels."""
    for place, height in (((20.0, 11.0), 1.0), ((14.5, 17.5), 0.5), ((16.25, 9.8), 0.7)):
        points = torch.tensor([[[*place, 0, 0, height]]])
        learnt = draw_points(points, 1, (32, width))[0, 0].numpy()
        (found,) = find_tips(learnt, 0.3)
        assert (found.x, found.y) == pytest.approx(place, abs=0.02)
        assert found.probability == pytest.approx(height, rel=0.02)


def test_highest_first_and_low_ones_left_out() -> None:
    drawn = np.maximum(draw_tip_map([(0.2, 0.2)], 128, 0.6), draw_tip_map([(0.8, 0.2)], 128, 0.9))
    drawn = np.maximum(drawn, draw_tip_map([(0.5, 0.7)], 128, 0.3))
    found = find_tips(drawn, THRESHOLD)
    assert [round(tip.x) for tip in found] == [102, 25]
    assert len(find_tips(drawn, 0.2)) == 3


def test_a_bright_pixel_is_no_tip() -> None:
    """The bump that fits best to one pixel of 1 at a sigma of 1.6 pixels is 1 / (pi 1.6^2) = 0.124 high."""
    values = np.zeros((128, 128), dtype=np.float32)
    values[40, 50] = 1
    assert find_tips(values, THRESHOLD) == []
    assert find_tips(values, 0.05)[0].probability == pytest.approx(1 / (np.pi * 1.6**2), rel=0.05)


def test_a_plateau_is_one_tip() -> None:
    """As where the map was cut off at 1."""
    values = np.zeros((128, 128), dtype=np.float32)
    values[60:65, 30:35] = 1
    found = find_tips(values, THRESHOLD)
    assert [(tip.x, tip.y) for tip in found] == [(pytest.approx(32), pytest.approx(62))]


def test_neighbours_are_told_apart() -> None:
    places = np.array([(0.5, 0.5), (0.57, 0.5)])  # 9 pixels, 4.7 sigmas
    found = find_tips(draw_tip_map(list(places), 128), THRESHOLD)
    assert len(found) == 2
    for tip, place in zip(sorted(found, key=lambda tip: tip.x), in_pixels(places, 128), strict=True):
        assert (tip.x, tip.y) == pytest.approx(place, abs=0.2)


def test_at_the_edge() -> None:
    drawn = draw_tip_map([(0.5, 0.995)], 64)
    (tip,) = find_tips(drawn, THRESHOLD)
    assert tip.x == pytest.approx(31.5, abs=0.1)
    assert tip.y == pytest.approx(63, abs=1)


def test_nothing() -> None:
    assert find_tips(np.zeros((64, 64), dtype=np.float32), THRESHOLD) == []
