"""Pairs of tips by hand, and against every way to pair them."""

import itertools
import math

import numpy as np
import pytest

from catheters.evaluation.lines.tips import match_tips, tip_tolerance

NONE = np.empty((0, 2))


def test_tolerance() -> None:
    assert tip_tolerance(2500) == 50
    assert tip_tolerance(2500, math.nan) == 50
    assert tip_tolerance(2500, 0.2) == 50
    assert tip_tolerance(2500, 0.1) == 100


def test_found_far_off_and_false() -> None:
    truth = np.array([[10.0, 10.0], [100.0, 100.0]])
    predicted = np.array([[100.0, 160.0], [13.0, 14.0], [300.0, 10.0]])
    matched = match_tips(predicted, truth, tolerance=20)
    assert matched.errors.tolist() == [5, 60]
    assert matched.is_found.tolist() == [True, False]
    assert matched.partners.tolist() == [1, 0]
    assert matched.num_false == 2  # one is paired, and too far off


def test_the_tolerance_itself_is_within() -> None:
    assert match_tips(np.array([[3.0, 4.0]]), np.array([[0.0, 0.0]]), tolerance=5).is_found.all()
    assert not match_tips(np.array([[3.0, 4.0]]), np.array([[0.0, 0.0]]), tolerance=4.9).is_found.any()


def test_nearest_first_would_find_fewer() -> None:
    """The predicted tip at 6 is nearest to the true one at 5, which the one at 0 could have; then 12 has none."""
    truth = np.array([[5.0, 0.0], [12.0, 0.0]])
    predicted = np.array([[6.0, 0.0], [0.0, 0.0]])
    matched = match_tips(predicted, truth, tolerance=7)
    assert matched.errors.tolist() == [5, 6]
    assert matched.num_false == 0


def test_one_predicted_tip_is_one_partner() -> None:
    matched = match_tips(np.array([[1.0, 0.0]]), np.array([[0.0, 0.0], [2.5, 0.0]]), tolerance=5)
    assert matched.errors.tolist() == [1, math.inf]
    assert matched.partners.tolist() == [0, -1]
    assert matched.num_false == 0


def test_nothing_predicted_and_nothing_there() -> None:
    missed = match_tips(NONE, np.array([[1.0, 2.0]]), tolerance=5)
    assert (missed.errors.tolist(), missed.num_false) == ([math.inf], 0)
    false = match_tips(np.array([[1.0, 2.0], [3.0, 4.0]]), NONE, tolerance=5)
    assert (len(false.errors), false.num_false) == (0, 2)
    assert match_tips(NONE, NONE, tolerance=5).num_false == 0


@pytest.mark.parametrize(("num_true", "num_predicted"), [(1, 3), (3, 2), (3, 3), (4, 4)])
def test_against_every_way_to_pair(rng: np.random.Generator, num_true: int, num_predicted: int) -> None:
    """The most tips found, and of those ways the least distance of what is found."""
    for _ in range(30):
        truth, predicted = rng.uniform(0, 10, (num_true, 2)), rng.uniform(0, 10, (num_predicted, 2))
        distances = np.hypot(*(truth[:, None] - predicted[None]).transpose(2, 0, 1))
        choices = [*range(num_predicted), *[-1] * num_true]
        best = (0, 0.0)
        for partners in set(itertools.permutations(choices, num_true)):
            near = [
                distances[row, column]
                for row, column in enumerate(partners)
                if column >= 0 and distances[row, column] <= 3
            ]
            best = min(best, (-len(near), sum(near)))
        matched = match_tips(predicted, truth, tolerance=3)
        assert matched.is_found.sum() == -best[0]
        assert matched.errors[matched.is_found].sum() == pytest.approx(best[1])
        assert matched.num_false == num_predicted + best[0]
        has_partner = matched.partners >= 0
        assert has_partner.sum() == min(num_true, num_predicted)
        assert matched.errors[has_partner] == pytest.approx(distances[has_partner, matched.partners[has_partner]])
