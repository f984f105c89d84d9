"""Courses through drawn skeletons, and covers of terminals against every choice of pairs."""

import itertools
import math

import numpy as np
import pytest

from catheters.inference.lines.courses import LENGTH_COST, LINE_COST, Network, cover
from catheters.inference.lines.skeleton import Mask, Skeleton, read_skeleton


def build(mask: Mask, merged: float = 8.0) -> tuple[Network, Skeleton]:
    skeleton = read_skeleton(mask)
    return Network(skeleton, set(), np.ones(len(skeleton.points)), mask.shape[1], merged), skeleton


def at(skeleton: Skeleton, x: int, y: int) -> int:
    return skeleton.points.tolist().index([x, y])


def test_a_straight_line_costs_its_length() -> None:
    mask = np.zeros((50, 50), dtype=np.bool_)
    mask[10, 5:46] = True
    network, skeleton = build(mask)
    (course,) = network.courses_from(at(skeleton, 5, 10), [at(skeleton, 45, 10)])
    assert course is not None
    assert course.cost == pytest.approx(LENGTH_COST * 40 / 50)
    assert network.points(course).tolist() == [[x, 10] for x in range(5, 46)]


def test_turns_cost_one_minus_their_cosine() -> None:
    """A cross of two lines: straight on, or a right angle."""
    mask = np.zeros((50, 50), dtype=np.bool_)
    mask[25, 5:46] = True
    mask[5:46, 25] = True
    network, skeleton = build(mask)
    targets = [at(skeleton, 45, 25), at(skeleton, 25, 5), at(skeleton, 25, 45)]
    costs = [course.cost for course in network.courses_from(at(skeleton, 5, 25), targets) if course is not None]
    assert costs == pytest.approx([LENGTH_COST * 40 / 50 + turn for turn in (0, 1, 1)])


def test_junctions_close_to_each_other_are_one() -> None:
    """Two lines that share 5 pixels: both go straight on. Told apart, each could as well turn off."""
    mask = np.zeros((60, 60), dtype=np.bool_)
    steps = np.arange(20)
    mask[28:33, 30] = True
    for side in (-1, 1):
        mask[27 - steps, 30 + side * (steps + 1)] = True
        mask[33 + steps, 30 + side * (steps + 1)] = True
    network, skeleton = build(mask)
    straight, off = network.courses_from(at(skeleton, 10, 8), [at(skeleton, 50, 52), at(skeleton, 10, 52)])
    assert straight is not None and off is not None
    assert off.cost - straight.cost == pytest.approx(1, abs=0.01)


def test_no_course() -> None:
    mask = np.zeros((20, 20), dtype=np.bool_)
    mask[5, 2:10] = mask[15, 2:10] = True
    network, skeleton = build(mask)
    assert network.courses_from(at(skeleton, 2, 5), [at(skeleton, 2, 15)]) == [None]


def cheapest_cover(costs: np.ndarray) -> float:
    """Of all sets of pairs that leave no terminal out."""
    terminals = range(len(costs))
    pairs = [pair for pair in itertools.combinations(terminals, 2) if math.isfinite(costs[pair])]
    reachable = {terminal for pair in pairs for terminal in pair}
    return min(
        sum(LINE_COST + costs[pair] for pair in chosen)
        for count in range(len(pairs) + 1)
        for chosen in itertools.combinations(pairs, count)
        if {terminal for pair in chosen for terminal in pair} == reachable
    )


@pytest.mark.parametrize("num_terminals", [2, 3, 4, 5])
def test_cover_is_the_cheapest(rng: np.random.Generator, num_terminals: int) -> None:
    for _ in range(10):
        costs = rng.exponential(1.0, (num_terminals, num_terminals))
        costs = costs + costs.T
        costs[rng.random(costs.shape) < 0.2] = math.inf
        costs = np.maximum(costs, costs.T)
        np.fill_diagonal(costs, math.inf)
        pairs = cover(costs)
        assert sum(LINE_COST + costs[pair] for pair in pairs) == pytest.approx(cheapest_cover(costs))


def test_terminals_without_courses_are_left_out() -> None:
    costs = np.full((3, 3), math.inf)
    costs[0, 2] = costs[2, 0] = 0.5
    assert cover(costs) == [(0, 2)]
    assert cover(np.full((2, 2), math.inf)) == []
