"""A skeleton as a graph: its pixels, the segments between ends and junctions, and what is cleaned up first.

Pixels are numbered; neighbours of a pixel are those beside it, and those diagonal to it with which it shares none of
those. So a staircase has no junctions.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]

TANGENT_PIXELS = 6
"""Of a segment that say which way it leaves its end."""
MIN_COSINE = 0.7
"""Between each end's own direction and the gap that is bridged: about 45 degrees."""
BESIDE = ((0, 1), (1, 0))
DIAGONAL = ((1, 1), (1, -1))


@dataclass(frozen=True)
class Skeleton:
    """Pixels of a skeleton and which of them touch.

    Attributes:
        points: (P, 2) float64, x and y.
        neighbours: P lists of pixels.
    """

    points: Floats
    neighbours: list[list[int]]

    def ends(self) -> list[int]:
        """Pixels with one neighbour."""
        return [pixel for pixel, beside in enumerate(self.neighbours) if len(beside) == 1]

    def length(self, pixels: list[int]) -> float:
        """Of the way along these pixels."""
        return float(np.hypot(*np.diff(self.points[pixels], axis=0).T).sum())


def read_skeleton(mask: Mask) -> Skeleton:
    """(h, w) of a skeleton -> its graph."""
    height, width = mask.shape
    rows, columns = np.nonzero(mask)
    number = np.full((height + 2, width + 2), -1)
    number[rows + 1, columns + 1] = np.arange(len(rows))
    neighbours: list[list[int]] = [[] for _ in rows]
    for down, right in (*BESIDE, *DIAGONAL):
        other = number[rows + 1 + down, columns + 1 + right]
        is_linked = other >= 0
        if (down, right) in DIAGONAL:
            is_linked &= (number[rows + 1 + down, columns + 1] < 0) & (number[rows + 1, columns + 1 + right] < 0)
        for one, two in zip(np.flatnonzero(is_linked).tolist(), other[is_linked].tolist(), strict=True):
            neighbours[one].append(two)
            neighbours[two].append(one)
    return Skeleton(np.stack([columns, rows], axis=1).astype(np.float64), neighbours)


def split(skeleton: Skeleton, stops: set[int]) -> list[list[int]]:
    """The chains of pixels between ends, junctions and `stops`; a ring begins and ends at its first pixel.

    Lone pixels have no chain.
    """
    neighbours = skeleton.neighbours
    nodes = [pixel for pixel, beside in enumerate(neighbours) if len(beside) != 2 or pixel in stops]
    is_node = [False] * len(neighbours)
    for pixel in nodes:
        is_node[pixel] = True
    chains: list[list[int]] = []
    is_passed = [False] * len(neighbours)

    def follow(start: int, following: int) -> list[int]:
        chain = [start, following]
        while not is_node[chain[-1]]:
            is_passed[chain[-1]] = True
            one, two = neighbours[chain[-1]]
            chain.append(two if one == chain[-2] else one)
        return chain

    for node in nodes:
        for following in neighbours[node]:
            if node < following if is_node[following] else not is_passed[following]:
                chains.append(follow(node, following))
    for pixel in range(len(neighbours)):
        if not is_node[pixel] and not is_passed[pixel]:
            is_node[pixel] = True
            chains.append(follow(pixel, neighbours[pixel][0]))
    return chains


def prune(mask: Mask, kept: set[tuple[int, int]], max_spur: float) -> Mask:
    """The skeleton without its spurs: short side branches that end freely.

    The shortest goes first; what is then no side branch any more stays. So the tip of a thick line, where its
    skeleton forks, is not lost.

    Args:
        mask: (h, w).
        kept: (column, row) of pixels that no removed branch may end at.
        max_spur: up to which length, in pixels, a branch is a spur.
    """
    mask = mask.copy()
    while True:
        skeleton = read_skeleton(mask)
        chains = split(skeleton, set())
        degrees = [len(beside) for beside in skeleton.neighbours]
        spurs = []
        for chain in chains:
            end, junction = (chain[0], chain[-1]) if degrees[chain[0]] == 1 else (chain[-1], chain[0])
            x, y = skeleton.points[end].astype(int).tolist()
            if degrees[end] == 1 and degrees[junction] > 2 and (x, y) not in kept:
                spurs.append((skeleton.length(chain), junction, [pixel for pixel in chain if pixel != junction]))
        is_pruned = False
        for length, junction, pixels in sorted(spurs):
            if length <= max_spur and degrees[junction] > 2:
                degrees[junction] -= 1
                columns, rows = skeleton.points[pixels].astype(int).T
                mask[rows, columns] = False
                is_pruned = True
        if not is_pruned:
            return mask


def bridge_gaps(mask: Mask, max_gap: float) -> Mask:
    """The skeleton with its small gaps closed: between ends that point at each other, the nearest ones first.

    Args:
        mask: (h, w).
        max_gap: between the two ends, in pixels.
    """
    skeleton = read_skeleton(mask)
    _, parts = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    ends = [pixel for pixel, beside in enumerate(skeleton.neighbours) if len(beside) < 2]
    if len(ends) < 2:
        return mask
    places = skeleton.points[ends]
    part_of = parts[places[:, 1].astype(int), places[:, 0].astype(int)]
    directions = np.array([_direction_out(skeleton, end) for end in ends])
    between = places[None] - places[:, None]  # (E, E, 2), from the first to the second
    gaps = np.hypot(between[..., 0], between[..., 1])
    with np.errstate(invalid="ignore", divide="ignore"):
        cosines = np.einsum("ijk,ik->ij", between, directions) / gaps
    # A speck has no direction: it may lie in any.
    cosines[np.isnan(directions[:, 0])] = 1.0
    is_near = (gaps <= max_gap) & (part_of[:, None] != part_of[None])
    is_facing = (cosines >= MIN_COSINE) & (cosines.T >= MIN_COSINE)
    pairs = [(gaps[one, two], one, two) for one, two in np.argwhere(np.triu(is_near & is_facing, 1)).tolist()]
    bridged = mask.astype(np.uint8)
    num_free = [1 if len(skeleton.neighbours[end]) else 2 for end in ends]  # a speck has two sides
    joined = list(range(int(parts.max()) + 1))
    for _, one, two in sorted(pairs):
        if num_free[one] and num_free[two] and joined[part_of[one]] != joined[part_of[two]]:
            num_free[one] -= 1
            num_free[two] -= 1
            old, new = joined[part_of[one]], joined[part_of[two]]
            joined = [new if part == old else part for part in joined]
            cv2.line(bridged, places[one].astype(int).tolist(), places[two].astype(int).tolist(), 1)
    return bridged > 0


def _direction_out(skeleton: Skeleton, end: int) -> Floats:
    """The unit vector in which a line would go on beyond its end; NaN of a lone pixel."""
    chain = [end]
    while len(chain) <= TANGENT_PIXELS:
        following = [pixel for pixel in skeleton.neighbours[chain[-1]] if pixel not in chain]
        if len(following) != 1:
            break
        chain.append(following[0])
    step = skeleton.points[end] - skeleton.points[chain[-1]]
    length = float(np.hypot(*step))
    return step / length if length else np.full(2, np.nan)
