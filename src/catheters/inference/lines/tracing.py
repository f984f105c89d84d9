"""From the maps of one image and one device type to its lines: polylines from the entry to the tip.

The map of lines is thresholded with hysteresis and thinned to a skeleton, gaps are closed and spurs removed. Tips and
free ends of the skeleton are terminals; the fewest and straightest courses through the skeleton that have a terminal at
either end, and leave none out, are the lines.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter1d, map_coordinates
from skimage.filters import apply_hysteresis_threshold
from skimage.morphology import skeletonize

from catheters.data.annotations import distance_from_entries, tip_end
from catheters.data.preprocessing import Placement
from catheters.inference.lines.courses import Network, cover
from catheters.inference.lines.skeleton import TANGENT_PIXELS, Mask, Skeleton, bridge_gaps, prune, read_skeleton
from catheters.inference.lines.tips import Map, Tip, find_tips
from catheters.polylines import lengths_along, resample

Floats = npt.NDArray[np.float64]

MAX_TERMINALS = 10
"""Of the connected part of a skeleton; beyond these the ends of its shortest branches are passed over."""
MAX_TOTAL_LENGTH = 12
"""Of all lines of a map, in widths: a skeleton of more pixels is noise."""
LEAST_PROBABILITY = 0.05
"""Of a pixel, where the cost of a course is counted: gaps are dear, but not closed."""
MIN_MERGED = 8.0
"""Pixels: junctions so close to each other are one, however small the map."""
LOST_BY_THINNING = 2.0
"""Pixels: of the two ends at a gap together, and between a coil's end and its junction."""
EDGE_REACH = 3.5
"""Pixels: a line that ends so close to the edge of the map goes on to it."""
SMOOTHING = 2.0
"""Pixels: the sigma along a polyline by which the steps of its pixels are smoothed away."""
CERTAIN_DEPTH = 0.1
"""Parts of the image: an end that lies so much farther in than a tip is hardly that tip's entry."""
UNLIKELY, VERY_UNLIKELY = 0.5, 2.0
"""What it costs that a tip's entry lies deeper than the tip or that a line has no tip though there are some; and that
it has two."""


@dataclass(frozen=True, kw_only=True)
class TracingOptions:
    """How maps become lines. Lengths are parts of the map's width unless they say otherwise.

    Attributes:
        high: a line has a pixel of at least this probability,
        low: and all pixels that hang together with it and have at least this one.
        tip_threshold: lower peaks of the tip map are no tips,
        tip_threshold_at_end: but where the skeleton ends, those down to this height are,
        min_depth_at_end: if they lie so far from the edges by which catheters come in. Nearer ones are entries.
        tip_reach: how far from the skeleton a tip may lie that belongs to a line.
        max_gap: between two ends that point at each other, up to which they are joined.
        max_spur: side branches up to this length are no lines, unless a tip lies at their end.
        min_length: shorter lines without a tip are none.
        min_length_to_tip: shorter lines are none, even with a tip.
        min_confidence: less certain lines are none,
        min_confidence_without_tip: nor are lines without a tip in the tip map, unless they are as certain as this.
        max_thickness: thicker regions are no lines.
        point_spacing: of the polylines, in pixels of the map.
    """

    high: float = 0.5
    low: float = 0.25
    tip_threshold: float = 0.5
    tip_threshold_at_end: float = 0.5
    min_depth_at_end: float = 0.0
    tip_reach: float = 0.05
    max_gap: float = 0.07
    max_spur: float = 0.08
    min_length: float = 0.08
    min_length_to_tip: float = 0.04
    min_confidence: float = 0.3
    min_confidence_without_tip: float = 0.3
    max_thickness: float = 0.1
    point_spacing: float = 2.0


DEFAULT = TracingOptions()


@dataclass(frozen=True, kw_only=True)
class TracedLine:
    """A line as the maps show it.

    Attributes:
        points: (n, 2) float64, n at least 2: x and y in pixels of the map, pixel centres whole, from the entry to the
            tip.
        confidence: the mean probability of a line along `points`, in 0..1. Gaps that were bridged count as they are.
        tip_probability: height of the tip map's peak at the tip, in 0..1; 0 where there is none, so that the tip is
            the line's own end, the one that `tip_end` takes for it.
        length: of the polyline, in pixels of the map.
    """

    points: Floats
    confidence: float
    tip_probability: float
    length: float

    @property
    def tip(self) -> tuple[float, float]:
        """The last point, x and y in pixels of the map, to a fraction of a pixel where the tip map has a peak there."""
        x, y = self.points[-1].tolist()
        return x, y


def trace_lines(line: Map, tip: Map, options: TracingOptions = DEFAULT) -> list[TracedLine]:
    """The lines of one device type in one image, the most confident first.

    Catheters that run together share that part of their polylines. A tip without a line near it is left out: it has no
    course by which it could be checked, and would be one more false line; `find_tips` has all of them.

    Args:
        line: (h, w) probability in 0..1 that a pixel belongs to a line of the device type.
        tip: (h, w) probability in 0..1 with a bump at each tip.
        options: how.

    Raises:
        ValueError: the maps differ in shape, or have numbers outside of 0..1.
    """
    for name, values in (("line", line), ("tip", tip)):
        if values.ndim != 2 or values.shape != line.shape or not ((values >= 0) & (values <= 1)).all():
            raise ValueError(f"{name}: two maps (h, w) of one shape with probabilities in 0..1 are expected")
    width = line.shape[1]
    mask = _skeleton_of_lines(line, options)
    if not mask.any():
        return []
    mask = bridge_gaps(mask, options.max_gap * width + LOST_BY_THINNING)
    skeleton = read_skeleton(mask)
    tips = _tips_in_question(tip, options)
    reach = options.tip_reach * width + LOST_BY_THINNING
    kept = {_pixel(skeleton, pixel) for pixel in _snap(tips, skeleton, reach, options.tip_threshold)}
    mask = prune(mask, kept, options.max_spur * width)
    skeleton = read_skeleton(mask)
    for pixel in _build_network(skeleton, set(), line, options).coil_ends(_places(tips), options.tip_reach * width):
        column, row = _pixel(skeleton, pixel)
        mask[row, column] = False
    skeleton = read_skeleton(mask)
    tip_at = _snap(tips, skeleton, reach, options.tip_threshold)
    network = _build_network(skeleton, set(tip_at), line, options)
    lines = []
    for part in _connected_parts(skeleton, mask):
        for pixels, found in _find_courses(network, skeleton, part, tip_at, line.shape):
            points = _finish(pixels, found, line, options)
            length = float(lengths_along(points)[-1])
            confidence = float(_probabilities(line, points).mean())
            least, certain = (
                (options.min_length, options.min_confidence_without_tip)
                if found is None
                else (options.min_length_to_tip, options.min_confidence)
            )
            if length >= least * width and confidence >= certain:
                probability = found.probability if found is not None else 0.0
                lines.append(
                    TracedLine(points=points, confidence=confidence, tip_probability=probability, length=length)
                )
    return sorted(lines, key=lambda traced: -traced.confidence)


def to_image(points: Floats, map_shape: tuple[int, int], image_shape: tuple[int, int]) -> Floats:
    """(n, 2) x, y in pixels of a map of `map_shape` (h, w) -> (n, 2) in pixels of its image of `image_shape` (H, W)."""
    scale = np.array([image_shape[1] / map_shape[1], image_shape[0] / map_shape[0]])
    moved: Floats = (points + 0.5) * scale - 0.5
    return moved


def to_original(
    points: Floats, placement: Placement, map_shape: tuple[int, int], image_shape: tuple[int, int]
) -> Floats:
    """Points of a map in pixels of the original image.

    Args:
        points: (n, 2) x and y in pixels of the map, pixel centres whole.
        placement: where the original's pixels lie in the preprocessed image, see `place`.
        map_shape: (h, w).
        image_shape: (H, W) of the preprocessed image.

    Returns:
        (n, 2) float64 x and y in pixels of the original image as shown.
    """
    return placement.undo(to_image(points, map_shape, image_shape))


def _tips_in_question(tip: Map, options: TracingOptions) -> list[Tip]:
    """Peaks that are tips wherever they lie on a line, and those that are where one ends."""
    found = find_tips(tip, min(options.tip_threshold, options.tip_threshold_at_end))
    depths = [distance_from_entries(place, tip.shape) for place in _places(found)]
    return [
        one
        for one, depth in zip(found, depths, strict=True)
        if one.probability >= options.tip_threshold or depth >= options.min_depth_at_end
    ]


def _skeleton_of_lines(line: Map, options: TracingOptions) -> Mask:
    """(h, w) the skeleton of what is thin enough for a line; empty where there is far too much of it."""
    width = line.shape[1]
    mask = apply_hysteresis_threshold(line, options.low, options.high)
    count, parts = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    skeleton: Mask = skeletonize(mask)
    areas = np.bincount(parts.ravel(), minlength=count)
    lengths = np.bincount(parts[skeleton], minlength=count)
    is_line = areas <= options.max_thickness * width * lengths
    is_line[0] = False
    skeleton &= is_line[parts]
    return skeleton if skeleton.sum() <= MAX_TOTAL_LENGTH * width else np.zeros_like(skeleton)


def _build_network(skeleton: Skeleton, stops: set[int], line: Map, options: TracingOptions) -> Network:
    columns, rows = skeleton.points.astype(int).T
    resistance = 1 / np.maximum(line[rows, columns].astype(np.float64), LEAST_PROBABILITY)
    width = line.shape[1]
    return Network(skeleton, stops, resistance, width, merged=max(options.max_spur * width, MIN_MERGED))


def _places(tips: Sequence[Tip]) -> Floats:
    """(T, 2) x and y."""
    return np.array([[tip.x, tip.y] for tip in tips]).reshape(-1, 2)


def _pixel(skeleton: Skeleton, pixel: int) -> tuple[int, int]:
    x, y = skeleton.points[pixel].astype(int).tolist()
    return x, y


def _snap(tips: Sequence[Tip], skeleton: Skeleton, reach: float, threshold: float) -> dict[int, Tip]:
    """Pixel of the skeleton -> the tip that lies there: at an end in reach, else at the nearest pixel in reach.

    An end and a pixel is one tip's only, that of the nearest, then of the highest. Tips below the threshold lie at an
    end or nowhere.
    """
    if not tips or not len(skeleton.points):
        return {}
    distances = np.hypot(*(skeleton.points[None] - _places(tips)[:, None]).transpose(2, 0, 1))  # (T, P)
    snapped: dict[int, Tip] = {}
    left = set(range(len(tips)))
    everywhere = list(range(len(skeleton.points)))
    for candidates in (skeleton.ends(), everywhere):
        if candidates is everywhere:
            left = {row for row in left if tips[row].probability >= threshold}
        near = distances[:, candidates]
        rows, columns = np.nonzero(near <= reach)
        for index in np.argsort(near[rows, columns], kind="stable").tolist():
            row, pixel = int(rows[index]), candidates[int(columns[index])]
            if row in left and pixel not in snapped:
                snapped[pixel] = tips[row]
                left.remove(row)
    return snapped


def _connected_parts(skeleton: Skeleton, mask: Mask) -> list[list[int]]:
    """The pixels of each connected part of more than one pixel."""
    count, parts = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    part_of = parts[mask]
    found = (np.flatnonzero(part_of == part).tolist() for part in range(1, count))
    return [pixels for pixels in found if len(pixels) > 1]


def _find_courses(
    network: Network, skeleton: Skeleton, part: list[int], tip_at: dict[int, Tip], shape: tuple[int, int]
) -> list[tuple[Floats, Tip | None]]:
    """The (n, 2) pixels of each line of one connected part, from its entry to its tip."""
    in_part = set(part)
    at_tips = sorted((pixel for pixel in tip_at if pixel in in_part), key=lambda pixel: -tip_at[pixel].probability)
    at_ends = [pixel for pixel in part if len(skeleton.neighbours[pixel]) == 1 and pixel not in tip_at]
    at_ends = sorted(at_ends, key=network.free_length, reverse=True)
    terminals = (at_tips + at_ends)[:MAX_TERMINALS]
    if len(terminals) < 2:
        starts = terminals or [pixel for pixel in part if network.is_node(pixel)]  # of a ring the uppermost
        course = network.longest_course_from(starts[0]) if starts else None
        return [] if course is None else [_turn_to_tip(network.points(course), tip_at.get(starts[0]), None, shape)]
    courses = {
        (one, other): course
        for one in range(len(terminals))
        for other, course in enumerate(network.courses_from(terminals[one], terminals))
        if one < other and course is not None
    }
    costs = np.full((len(terminals), len(terminals)), np.inf)
    for (one, other), course in courses.items():
        unlikely = _implausibility(terminals[one], terminals[other], tip_at, bool(at_tips), skeleton, shape)
        costs[one, other] = costs[other, one] = course.cost + unlikely
    pairs = cover(costs)
    taken = network.with_coils([courses[pair] for pair in pairs], in_part)
    return [
        _turn_to_tip(network.points(course), tip_at.get(terminals[one]), tip_at.get(terminals[other]), shape)
        for (one, other), course in zip(pairs, taken, strict=True)
    ]


def _implausibility(
    one: int, other: int, tip_at: dict[int, Tip], has_tips: bool, skeleton: Skeleton, shape: tuple[int, int]
) -> float:
    """What it costs to take two terminals for the ends of a line, whatever the course."""
    if one in tip_at and other in tip_at:
        return VERY_UNLIKELY
    if one not in tip_at and other not in tip_at:
        return UNLIKELY if has_tips else 0.0
    tip, entry = (one, other) if one in tip_at else (other, one)
    tip_depth, entry_depth = (distance_from_entries(skeleton.points[pixel], shape) for pixel in (tip, entry))
    return UNLIKELY if entry_depth > tip_depth + CERTAIN_DEPTH else 0.0


def _turn_to_tip(
    points: Floats, at_start: Tip | None, at_end: Tip | None, shape: tuple[int, int]
) -> tuple[Floats, Tip | None]:
    """A line's pixels so that they end at its tip, the peak or else the end that `tip_end` takes for it; the peak."""
    is_undecided = (at_start is None) == (at_end is None)
    is_backwards = tip_end(points, shape) == 0 if is_undecided else at_start is not None
    return (points[::-1], at_start) if is_backwards else (points, at_end)


def _finish(points: Floats, tip: Tip | None, line: Map, options: TracingOptions) -> Floats:
    """Pixels of a skeleton, from the entry to the tip, as a smooth polyline that ends at the tip's place."""
    points = _reach_edges(_recentre(points, line), line.shape)
    if tip is not None:
        place = np.array([tip.x, tip.y])
        num_last = max(2, round(2 * options.tip_reach * line.shape[1]))
        distances = np.hypot(*(points[-num_last:] - place).T)
        # The skeleton may go on beyond the tip.
        kept = points[: max(1, len(points) - len(distances) + int(distances.argmin()))]
        points = np.concatenate([kept, place[None]])
    points = resample(points, 1.0)
    before, after = 2 * points[0] - points[:0:-1], 2 * points[-1] - points[-2::-1]  # so that both ends stay
    smooth = gaussian_filter1d(np.concatenate([before, points, after]), SMOOTHING, axis=0)
    return resample(smooth[len(before) : len(before) + len(points)], options.point_spacing)


def _reach_edges(points: Floats, shape: tuple[int, int]) -> Floats:
    """A line whose end all but touches the edge of the map and points at it goes on to the edge.

    Thinning takes some pixels off each end. Elsewhere they make up for half the thickness of the line.
    """
    corner = np.array([shape[1], shape[0]]) - 0.5
    for _ in range(2):  # each end in turn
        step = points[0] - points[min(TANGENT_PIXELS, len(points) - 1)]
        with np.errstate(divide="ignore", invalid="ignore"):
            # How many steps lead to the edge in each direction.
            steps = np.where(step > 0, (corner - points[0]) / step, (-0.5 - points[0]) / step)
        steps = steps[step != 0]
        if len(steps) and 0 < steps.min() * np.hypot(*step) <= EDGE_REACH:
            points = np.concatenate([(points[0] + steps.min() * step)[None], points])
        points = points[::-1]
    return points


def _recentre(points: Floats, line: Map) -> Floats:
    """Each pixel at the centroid of the probabilities around it: a line of even thickness runs between two pixels."""
    columns, rows = points.astype(int).T
    padded = np.pad(line.astype(np.float64), 1)
    total, x, y = np.zeros(len(points)), np.zeros(len(points)), np.zeros(len(points))
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            weights = padded[rows + 1 + down, columns + 1 + right]
            total += weights
            x += weights * right
            y += weights * down
    total = np.maximum(total, 1e-12)
    return points + np.stack([x / total, y / total], axis=1)


def _probabilities(line: Map, points: Floats) -> Floats:
    """(n,) of a line along a polyline, pixel by pixel, bilinear."""
    x, y = resample(points, 1.0).T
    values: Floats = map_coordinates(line.astype(np.float64), [y, x], order=1, mode="nearest")
    return values
