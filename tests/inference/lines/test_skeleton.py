"""Skeletons as graphs: drawn with characters, counted by hand."""

from itertools import pairwise

import numpy as np
import pytest

from catheters.inference.lines.skeleton import Mask, bridge_gaps, prune, read_skeleton, split

STAIRCASE = """
##...
.##..
..##.
...##
"""
CROSS = """
..#..
..#..
#####
..#..
..#..
"""
RING = """
.##.
#..#
.##.
"""


def read(drawing: str) -> Mask:
    return np.array([[character == "#" for character in row] for row in drawing.split()])


def rows(mask: Mask) -> list[str]:
    return ["".join("#" if pixel else "." for pixel in row) for row in mask]


def test_a_staircase_has_no_junctions() -> None:
    skeleton = read_skeleton(read(STAIRCASE))
    assert sorted(len(beside) for beside in skeleton.neighbours) == [1, 1, 2, 2, 2, 2, 2, 2]
    (chain,) = split(skeleton, set())
    assert len(chain) == 8
    assert skeleton.length(chain) == 7
    assert [skeleton.points[pixel].tolist() for pixel in skeleton.ends()] == [[0.0, 0.0], [4.0, 3.0]]


def test_a_cross_has_four_segments() -> None:
    skeleton = read_skeleton(read(CROSS))
    chains = split(skeleton, set())
    assert [len(chain) for chain in chains] == [3, 3, 3, 3]
    assert len(skeleton.ends()) == 4
    stop = next(pixel for pixel, point in enumerate(skeleton.points.tolist()) if point == [1.0, 2.0])
    assert sorted(len(chain) for chain in split(skeleton, {stop})) == [2, 2, 3, 3, 3]


def test_a_ring_is_one_segment() -> None:
    skeleton = read_skeleton(read(RING))
    (chain,) = split(skeleton, set())
    assert chain[0] == chain[-1]
    assert len(chain) == 7
    assert skeleton.length(chain) == pytest.approx(2 + 4 * np.sqrt(2))


def test_every_pixel_is_in_a_segment(rng: np.random.Generator) -> None:
    """Whatever the skeleton: each link of two pixels is in one chain, once."""
    skeleton = read_skeleton(rng.random((30, 30)) < 0.3)
    links = [tuple(sorted(pair)) for chain in split(skeleton, set()) for pair in pairwise(chain)]
    expected = {tuple(sorted((one, two))) for one, beside in enumerate(skeleton.neighbours) for two in beside}
    assert len(links) == len(expected)
    assert set(links) == expected


def test_the_shortest_branch_is_pruned() -> None:
    """At the right end the skeleton forks: what is left of the fork, the longer one, is the line's end."""
    drawing = """
    ..........
    .....#....
    ##########
    ........#.
    .........#
    """
    pruned = prune(read(drawing), set(), max_spur=2)
    assert rows(pruned) == ["..........", "..........", "#########.", "........#.", ".........#"]
    kept = prune(read(drawing), {(5, 1)}, max_spur=2)
    assert rows(kept)[1] == ".....#...."
    assert (prune(read(drawing), set(), max_spur=0.5) == read(drawing)).all()


def test_a_line_without_junctions_is_not_pruned() -> None:
    line = read(STAIRCASE)
    assert (prune(line, set(), max_spur=100) == line).all()


def test_gaps_between_ends_that_point_at_each_other() -> None:
    drawing = """
    ########...########
    ...................
    ...................
    .......######......
    """
    bridged = rows(bridge_gaps(read(drawing), max_gap=4.5))
    assert bridged[0] == "#" * 19
    assert bridged[1:] == ["." * 19, "." * 19, ".......######......"]
    assert rows(bridge_gaps(read(drawing), max_gap=3.5)) == rows(read(drawing))


def test_a_speck_is_a_bridge() -> None:
    drawing = """
    ########..#..########
    """
    assert rows(bridge_gaps(read(drawing), max_gap=3.5)) == ["#" * 21]


def test_nothing_to_bridge() -> None:
    assert not bridge_gaps(np.zeros((5, 5), dtype=np.bool_), 3).any()
