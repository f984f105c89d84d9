"""Which way catheters run through a skeleton: from terminal to terminal, as straight on as they can at crossings.

A shortest path would cut off coils and turn off where catheters cross. A catheter bends little. So a course pays for
every turn at a junction, and for its length only a little.
"""

import heapq
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from catheters.inference.lines.skeleton import TANGENT_PIXELS, Skeleton, split

Floats = npt.NDArray[np.float64]

LENGTH_COST = 0.2
"""Of a length of one image width where the line is certain; a right-angled turn costs 1, a U-turn 2."""
MIN_COIL = 2.0
"""Of a coil's length, as a multiple of the way over a junction: smaller ones are holes in a thick line."""
LINE_COST = 0.3
"""Of each course that is drawn: as few as explain all terminals."""


@dataclass(frozen=True)
class Course:
    """A way through the skeleton.

    Attributes:
        cost: of its turns and its length.
        passages: the segments that it takes, in order: 2 s for segment s forwards, 2 s + 1 for it backwards.
    """

    cost: float
    passages: tuple[int, ...]


class Network:
    """The segments of a skeleton between ends, stops and junctions; junctions close to each other are one."""

    def __init__(self, skeleton: Skeleton, stops: set[int], resistance: Floats, width: int, merged: float) -> None:
        """Split the skeleton.

        Args:
            skeleton: P pixels.
            stops: pixels at which a course may begin or end besides the ends.
            resistance: (P,) what a step there costs as a multiple of its length.
            width: of the map, in pixels.
            merged: junctions are one where the way between them is at most so long, in pixels. Two catheters that
                cross share some pixels, of which the direction says nothing.
        """
        self._points = skeleton.points
        self._merged = merged
        self._node_of = list(range(len(skeleton.points)))
        chains = sorted((skeleton.length(chain), chain) for chain in split(skeleton, stops))
        self._chains: list[list[int]] = []
        is_junction = [len(beside) > 2 for beside in skeleton.neighbours]
        for length, chain in chains:
            first, last = chain[0], chain[-1]
            if length <= merged and is_junction[first] and is_junction[last] and not {first, last} & stops:
                old, new = self.node(first), self.node(last)
                self._node_of[old] = new
            else:
                self._chains.append(chain)
        self._lengths = [skeleton.length(chain) for chain in self._chains]
        self._costs = [
            LENGTH_COST * length * float(resistance[chain].mean()) / width
            for length, chain in zip(self._lengths, self._chains, strict=True)
        ]
        self._leaving: dict[int, list[int]] = {}
        self._directions: list[Floats] = []  # in which each passage leaves
        for segment, chain in enumerate(self._chains):
            for passage, pixels in ((2 * segment, chain), (2 * segment + 1, chain[::-1])):
                self._leaving.setdefault(self.node(pixels[0]), []).append(passage)
                step = self._points[pixels[min(TANGENT_PIXELS, len(pixels) - 1)]] - self._points[pixels[0]]
                self._directions.append(step / max(float(np.hypot(*step)), 1.0))

    def node(self, pixel: int) -> int:
        """The pixel that stands for its junction; itself elsewhere."""
        while self._node_of[pixel] != pixel:
            pixel = self._node_of[pixel]
        return pixel

    def courses_from(self, start: int, targets: Sequence[int]) -> list[Course | None]:
        """The cheapest course to each target pixel; None where there is none."""
        costs, previous = self._search(start)
        best: dict[int, int] = {}
        for passage, cost in costs.items():
            node = self._arrives_at(passage)
            if node not in best or cost < costs[best[node]]:
                best[node] = passage
        return [
            _course(best[self.node(target)], costs, previous) if self.node(target) in best else None
            for target in targets
        ]

    def longest_course_from(self, start: int) -> Course | None:
        """The longest of the cheapest courses that take no segment twice: of a line that ends in a coil."""
        costs, previous = self._search(start)
        if not costs:
            return None
        lengths: dict[int, float] = {}
        passed: dict[int, frozenset[int]] = {}
        for passage in costs:  # in the order in which they were reached
            before, segment = previous[passage], passage // 2
            if before is None:
                lengths[passage], passed[passage] = self._lengths[segment], frozenset({segment})
            elif before in passed and segment not in passed[before]:
                lengths[passage] = self._lengths[segment] + lengths[before]
                passed[passage] = passed[before] | {segment}
        return _course(max(lengths, key=lengths.__getitem__), costs, previous)

    def is_node(self, pixel: int) -> bool:
        """Whether segments begin there."""
        return pixel in self._leaving

    def free_length(self, end: int) -> float:
        """Of the segment at an end, in pixels."""
        return max(self._lengths[passage // 2] for passage in self._leaving[self.node(end)])

    def with_coils(self, courses: Sequence[Course], part: Collection[int]) -> list[Course]:
        """The courses with the coils that none of them takes: segments that come back to their own junction.

        At a flat angle it is less of a turn to pass a coil by. But something must have drawn it: the course that
        passes its junction and bends the least on the way round takes it.

        Args:
            courses: of a connected part.
            part: its pixels.
        """
        found = list(courses)
        taken = {passage // 2 for course in found for passage in course.passages}
        for segment, chain in enumerate(self._chains):
            node = self.node(chain[0])
            is_coil = node == self.node(chain[-1]) and self._lengths[segment] >= MIN_COIL * self._merged
            if not is_coil or segment in taken or chain[0] not in part:
                continue
            ways = [
                (self._turn(before, coil) + self._turn(coil, after), number, position, coil)
                for number, course in enumerate(found)
                for position, (before, after) in enumerate(pairwise(course.passages), start=1)
                if self._arrives_at(before) == node
                for coil in (2 * segment, 2 * segment + 1)
            ]
            if ways:
                _, number, position, coil = min(ways)
                passages = found[number].passages
                found[number] = Course(found[number].cost, (*passages[:position], coil, *passages[position:]))
        return found

    def coil_ends(self, tips: Floats, reach: float) -> list[int]:
        """Pixels to take away so that coils end freely whose tip touches the line that they come from.

        Such a coil has one junction, with the line and its own two ends. The end that the line goes on into the least
        straight is the one that comes back.

        Args:
            tips: (T, 2) x and y.
            reach: from the junction, within which a tip is the coil's.
        """
        found = []
        for segment, chain in enumerate(self._chains):
            node, coil = self.node(chain[0]), {2 * segment, 2 * segment + 1}
            lines = [passage for passage in self._leaving[node] if passage not in coil]
            is_coil = node == self.node(chain[-1]) and self._lengths[segment] >= MIN_COIL * self._merged
            if is_coil and len(lines) == 1:
                gaps = self._points[[chain[0], chain[-1]]][:, None] - tips
                if (np.hypot(gaps[..., 0], gaps[..., 1]) <= reach).any():
                    coming_back = max(coil, key=lambda passage: self._turn(lines[0] ^ 1, passage))
                    found.append(chain[-2] if coming_back % 2 else chain[1])
        return found

    def points(self, course: Course) -> Floats:
        """(n, 2) x and y of a course's pixels, in order; a step over a junction may be longer than a pixel."""
        parts = [self._chains[at // 2][::-1] if at % 2 else self._chains[at // 2] for at in course.passages]
        points = self._points[[pixel for part in parts for pixel in part]]
        is_new = np.append(True, (np.diff(points, axis=0) != 0).any(axis=1))
        different: Floats = points[is_new]
        return different

    def _arrives_at(self, passage: int) -> int:
        chain = self._chains[passage // 2]
        return self.node(chain[0] if passage % 2 else chain[-1])

    def _search(self, start: int) -> tuple[dict[int, float], dict[int, int | None]]:
        """Dijkstra over passages: each one's cost from `start` on, its own included, and the one before it."""
        costs: dict[int, float] = {}
        previous: dict[int, int | None] = {}
        waiting: list[tuple[float, int, int]] = []  # cost, passage, the one before it or -1
        for passage in self._leaving.get(self.node(start), []):
            heapq.heappush(waiting, (self._costs[passage // 2], passage, -1))
        while waiting:
            cost, passage, before = heapq.heappop(waiting)
            if passage in costs:
                continue
            costs[passage], previous[passage] = cost, None if before < 0 else before
            for following in self._leaving[self._arrives_at(passage)]:
                if following // 2 != passage // 2 and following not in costs:
                    total = cost + self._turn(passage, following) + self._costs[following // 2]
                    heapq.heappush(waiting, (total, following, passage))
        return costs, previous

    def _turn(self, passage: int, following: int) -> float:
        """What it costs to leave one passage by another: 1 minus the cosine of the angle."""
        return 1 + float(self._directions[passage ^ 1] @ self._directions[following])


def _course(passage: int, costs: dict[int, float], previous: dict[int, int | None]) -> Course:
    passages = []
    at: int | None = passage
    while at is not None:
        passages.append(at)
        at = previous[at]
    return Course(costs[passage], tuple(reversed(passages)))


def cover(costs: Floats) -> list[tuple[int, int]]:
    """The cheapest pairs of K terminals such that each terminal is in one at least.

    Args:
        costs: (K, K) symmetric, of the pair; infinity where there is no course. K is small: it takes 2 ** K steps.

    Returns:
        Pairs (smaller, larger), without those terminals that have no course.
    """
    num_terminals = len(costs)
    partners = [
        [other for other in range(num_terminals) if other != one and math.isfinite(costs[one, other])]
        for one in range(num_terminals)
    ]

    @cache
    def solve(is_left: int) -> tuple[float, tuple[tuple[int, int], ...]]:
        if not is_left:
            return 0.0, ()
        one = (is_left & -is_left).bit_length() - 1
        best: tuple[float, tuple[tuple[int, int], ...]] = (math.inf, ())
        for other in partners[one]:
            cost, pairs = solve(is_left & ~(1 << one) & ~(1 << other))
            cost += LINE_COST + float(costs[one, other])
            if cost < best[0]:
                best = (cost, (*pairs, (min(one, other), max(one, other))))
        return best

    return sorted(set(solve(sum(1 << one for one in range(num_terminals) if partners[one]))[1]))
