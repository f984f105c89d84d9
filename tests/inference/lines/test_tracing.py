"""Lines traced from maps of drawn polylines, against those polylines."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest

from catheters.data.preprocessing import Preprocessing, place
from catheters.inference.lines.tracing import TracedLine, TracingOptions, to_image, to_original, trace_lines
from catheters.point_maps import sigma_of
from tests.inference.lines.drawing import (
    Floats,
    Map,
    add_noise,
    densely,
    distances_to,
    draw_line_map,
    draw_tip_map,
    in_pixels,
    smooth,
)

ETT = smooth((0.5, 0.0), (0.5, 0.15), (0.48, 0.3), (0.48, 0.42))
FROM_RIGHT = smooth((0.1, 0.25), (0.25, 0.2), (0.38, 0.3), (0.4, 0.5))
FROM_LEFT = smooth((0.9, 0.3), (0.75, 0.25), (0.6, 0.35), (0.55, 0.6))
CROSSING = (smooth((0.1, 0.2), (0.4, 0.4), (0.8, 0.7)), smooth((0.9, 0.2), (0.6, 0.4), (0.2, 0.75)))
INTO_THE_CAVA = (
    smooth((0.1, 0.2), (0.3, 0.2), (0.42, 0.35), (0.42, 0.6)),
    smooth((0.9, 0.2), (0.6, 0.22), (0.43, 0.36), (0.42, 0.5), (0.42, 0.6)),
)
ONE_ENTRY = (
    smooth((0.3, 0.0), (0.35, 0.2), (0.42, 0.35), (0.42, 0.6)),
    smooth((0.3, 0.0), (0.35, 0.2), (0.45, 0.33), (0.6, 0.4), (0.75, 0.42)),
)
OUT_BELOW = smooth((0.5, 0.0), (0.51, 0.3), (0.52, 0.6), (0.6, 0.85), (0.62, 1.02))
COILED = smooth((0.4, 0.0), (0.42, 0.2), (0.5, 0.45), (0.65, 0.5), (0.7, 0.38), (0.6, 0.3), (0.45, 0.38), (0.38, 0.55))
COILED = np.concatenate([COILED, [[0.38, 0.7]]])

WIDTHS = pytest.mark.parametrize("width", [64, 128])
NOISE = pytest.mark.parametrize("noise", [0.0, 0.05])


def nothing(width: int) -> Map:
    return np.zeros((width, width), dtype=np.float32)


def draw(
    courses: Sequence[Floats], width: int, tips: Sequence[npt.ArrayLike], rng: np.random.Generator, noise: float
) -> tuple[Map, Map]:
    line, tip = draw_line_map(courses, width), draw_tip_map(tips, width)
    return (add_noise(line, rng, noise), add_noise(tip, rng, noise)) if noise else (line, tip)


def centreline_distance(traced: TracedLine, course: Floats) -> float:
    """The mean of the distances both ways, so that a line that is too short is none that fits."""
    there = distances_to(course, traced.points).mean()
    back = distances_to(traced.points, densely(course)[::10]).mean()
    return float((there + back) / 2)


def check(lines: Sequence[TracedLine], courses: Sequence[Floats], width: int, tip_error: float = 0.5) -> None:
    """Each course, in parts of the width, is traced once from its entry to its tip."""
    assert len(lines) == len(courses)
    left = list(lines)
    for course in courses:
        course = in_pixels(course, width)
        best = left.pop(int(np.argmin([centreline_distance(traced, course) for traced in left])))
        assert centreline_distance(best, course) < 1
        assert np.hypot(*(np.array(best.tip) - course[-1])) < tip_error
        assert np.hypot(*(best.points[0] - course[0])) < 2.5
        assert best.length == pytest.approx(np.hypot(*np.diff(course, axis=0).T).sum(), rel=0.1)


@WIDTHS
@NOISE
def test_one_line(rng: np.random.Generator, width: int, noise: float) -> None:
    lines = trace_lines(*draw([ETT], width, [ETT[-1]], rng, noise))
    check(lines, [ETT], width)
    fit = noise / (np.sqrt(np.pi) * sigma_of(width))  # standard deviation of a height by least squares
    assert lines[0].tip_probability == pytest.approx(0.9, abs=0.01 + 4 * fit)
    assert lines[0].points.dtype == np.float64


@WIDTHS
@NOISE
def test_two_apart(rng: np.random.Generator, width: int, noise: float) -> None:
    courses = [FROM_RIGHT, FROM_LEFT]
    check(trace_lines(*draw(courses, width, [course[-1] for course in courses], rng, noise)), courses, width)


@WIDTHS
def test_close_parallels_stay_apart(rng: np.random.Generator, width: int) -> None:
    """Even where one begins as the other ends: they do not point at each other."""
    courses = [smooth((0.4, 0.1), (0.4, 0.3), (0.4, 0.5)), smooth((0.49, 0.45), (0.49, 0.6), (0.49, 0.8))]
    check(trace_lines(*draw(courses, width, [course[-1] for course in courses], rng, 0.0)), courses, width)


@WIDTHS
@NOISE
@pytest.mark.parametrize("courses", [CROSSING, INTO_THE_CAVA, ONE_ENTRY], ids=["crossing", "merging", "parting"])
def test_lines_that_share_pixels(
    rng: np.random.Generator, width: int, noise: float, courses: tuple[Floats, Floats]
) -> None:
    """Where both end at one tip, there is one bump."""
    check(trace_lines(*draw(courses, width, [course[-1] for course in courses], rng, noise)), courses, width)


@WIDTHS
@pytest.mark.parametrize("courses", [CROSSING, INTO_THE_CAVA, ONE_ENTRY], ids=["crossing", "merging", "parting"])
def test_lines_that_share_pixels_without_tips(
    rng: np.random.Generator, width: int, courses: tuple[Floats, Floats]
) -> None:
    lines = trace_lines(draw_line_map(courses, width), nothing(width))
    check(lines, courses, width, tip_error=2)
    assert {traced.tip_probability for traced in lines} == {0.0}


@WIDTHS
def test_two_tips_in_one_vein(rng: np.random.Generator, width: int) -> None:
    """One catheter ends on the other's course. Which entry belongs to which tip cannot be seen: both are found."""
    shorter, longer = INTO_THE_CAVA[0], np.concatenate([INTO_THE_CAVA[1], [[0.42, 0.75]]])
    lines = trace_lines(*draw([shorter, longer], width, [shorter[-1], longer[-1]], rng, 0.0))
    assert len(lines) == 2
    for traced, tip in zip(sorted(lines, key=lambda traced: traced.tip[1]), (shorter[-1], longer[-1]), strict=True):
        assert traced.tip == pytest.approx(in_pixels(tip, width), abs=0.5)
    entries = sorted(traced.points[0].tolist() for traced in lines)
    for entry, course in zip(entries, (shorter, longer), strict=True):
        assert entry == pytest.approx(in_pixels(course[0], width), abs=2.5)


@WIDTHS
@NOISE
def test_a_coil_is_followed(rng: np.random.Generator, width: int, noise: float) -> None:
    """Straight over its own crossing; the shortest path would cut it off."""
    check(trace_lines(*draw([COILED], width, [COILED[-1]], rng, noise)), [COILED], width)


@WIDTHS
@NOISE
def test_a_loop_whose_tip_touches_the_line(rng: np.random.Generator, width: int, noise: float) -> None:
    """As that of a Swan-Ganz catheter in the right pulmonary artery: the tip lies on the line, not at a free end."""
    loop = smooth(
        (0.3, 0.0), (0.33, 0.2), (0.36, 0.4), (0.35, 0.6), (0.42, 0.72), (0.54, 0.66), (0.55, 0.5), (0.36, 0.41)
    )
    check(trace_lines(*draw([loop], width, [loop[-1]], rng, noise)), [loop], width)


@WIDTHS
def test_a_ring(width: int) -> None:
    angles = np.linspace(0, 2 * np.pi, 100)
    ring = 0.5 + 0.2 * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    (traced,) = trace_lines(draw_line_map([ring], width), nothing(width))
    assert distances_to(in_pixels(ring, width), traced.points).max() < 1
    assert traced.length == pytest.approx(2 * np.pi * 0.2 * width, rel=0.1)


@WIDTHS
def test_a_coil_at_the_end(width: int) -> None:
    """One free end: the line goes once round."""
    angles = np.linspace(-np.pi / 2, 1.5 * np.pi, 100)
    coil = np.stack([0.5 + 0.12 * np.cos(angles), 0.6 + 0.12 * np.sin(angles)], axis=1)
    course = np.concatenate([[[0.5, 0.1]], coil])
    (traced,) = trace_lines(draw_line_map([course], width), nothing(width))
    assert traced.length == pytest.approx((0.38 + 2 * np.pi * 0.12) * width, rel=0.1)


@WIDTHS
def test_a_gap_is_bridged(rng: np.random.Generator, width: int) -> None:
    line, tip = draw([ETT], width, [ETT[-1]], rng, 0.0)
    row = width // 4
    line[row : row + 3] = 0
    lines = trace_lines(line, tip)
    check(lines, [ETT], width)
    assert lines[0].confidence < trace_lines(*draw([ETT], width, [ETT[-1]], rng, 0.0))[0].confidence
    without = trace_lines(line, tip, TracingOptions(max_gap=0))
    assert len(without) == 2
    wide = draw_line_map([OUT_BELOW], width)
    wide[width // 3 : width // 2] = 0
    assert len(trace_lines(wide, nothing(width))) == 2


@WIDTHS
@NOISE
def test_a_line_that_leaves_below(rng: np.random.Generator, width: int, noise: float) -> None:
    """Its tip is not in the image: the line ends at the edge below, from which nothing comes in."""
    (traced,) = trace_lines(*draw([OUT_BELOW], width, [], rng, noise))
    assert traced.tip_probability == 0
    assert traced.points[0][1] < 3
    assert traced.tip[1] > width - 4
    assert distances_to(in_pixels(OUT_BELOW, width), traced.points).max() < 1


@WIDTHS
def test_ends_without_a_peak_are_told_by_the_edges(width: int) -> None:
    for course in (ETT, FROM_RIGHT, FROM_LEFT):
        check(trace_lines(draw_line_map([course], width), nothing(width)), [course], width, tip_error=2.5)


@WIDTHS
def test_a_tip_short_of_the_end_and_beyond_it(width: int) -> None:
    """The polyline is cut off at the peak, or led on to it."""
    for shift in (-0.03, 0.03):
        tip = ETT[-1] + [0, shift]
        (traced,) = trace_lines(draw_line_map([ETT], width), draw_tip_map([tip], width))
        assert traced.tip == pytest.approx(in_pixels(tip, width), abs=0.2)
        assert traced.points[:, 1].max() == pytest.approx(traced.tip[1], abs=0.1)


@WIDTHS
def test_a_low_peak_is_a_tip_where_the_line_ends(width: int) -> None:
    """A peak of 0.2 in the middle of the line is none; at its end it is one, unless the threshold there is higher."""
    options = TracingOptions(tip_threshold=0.3, tip_threshold_at_end=0.1)
    line, middle = draw_line_map([ETT], width), ETT[len(ETT) // 2]
    at_end, in_middle = (0.2 * draw_tip_map([place], width) for place in (ETT[-1], middle))
    (traced,) = trace_lines(line, at_end, options)
    assert traced.tip_probability == pytest.approx(0.2, abs=0.03)
    assert traced.tip == pytest.approx(in_pixels(ETT[-1], width), abs=0.3)
    (unseen,) = trace_lines(line, in_middle, options)
    assert unseen.tip_probability == 0
    (unseen,) = trace_lines(line, at_end, TracingOptions(tip_threshold=0.3, tip_threshold_at_end=0.3))
    assert unseen.tip_probability == 0
    higher = trace_lines(line, 2 * in_middle, options)
    assert max(traced.tip_probability for traced in higher) == pytest.approx(0.4, abs=0.05)


@WIDTHS
def test_a_low_peak_where_catheters_come_in(width: int) -> None:
    """At the entry of two lines with one tip it is none, so that both of them lead to that tip; a high one is one."""
    one, other = (np.array([(x, 0.02), (x, 0.3), (0.5, 0.5), (0.5, 0.8)]) for x in (0.2, 0.8))
    line, tip = draw_line_map([one, other], width), draw_tip_map([one[-1]], width)
    at_entry = draw_tip_map([one[0]], width)
    options = TracingOptions(tip_threshold=0.35, tip_threshold_at_end=0.1, min_depth_at_end=0.2)
    traced = trace_lines(line, np.maximum(tip, 0.25 * at_entry), options)
    assert [found.tip for found in traced] == [pytest.approx(in_pixels(one[-1], width), abs=0.5)] * 2
    for low, others in ((0.25, TracingOptions(tip_threshold=0.35, tip_threshold_at_end=0.1)), (0.9, options)):
        found = trace_lines(line, np.maximum(tip, low * at_entry), others)
        assert min(float(traced.tip[1]) for traced in found) < 0.1 * width


@WIDTHS
def test_what_is_no_line(rng: np.random.Generator, width: int) -> None:
    """Blobs, specks, a pixel, a short stroke, a tip far from any line: none is a line, and the line is still found."""
    line, tip = draw([ETT], width, [ETT[-1], (0.85, 0.85)], rng, 0.0)
    rows, columns = np.mgrid[:width, :width] / width
    for x, y, radius in ((0.2, 0.2, 0.03), (0.8, 0.3, 0.08), (0.3, 0.8, 0.012)):
        line[(columns - x) ** 2 + (rows - y) ** 2 < radius**2] = 0.9
    line[width // 2, width // 8] = 1
    line[int(0.9 * width), int(0.6 * width) : int(0.65 * width)] = 1
    check(trace_lines(line, tip), [ETT], width)


@WIDTHS
def test_spurs_are_pruned(width: int) -> None:
    line = draw_line_map([ETT, np.array([(0.5, 0.2), (0.55, 0.22)]), np.array([(0.48, 0.35), (0.44, 0.33)])], width)
    check(trace_lines(line, draw_tip_map([ETT[-1]], width)), [ETT], width)


@pytest.mark.parametrize("value", [0.0, 0.1, 1.0])
def test_even_maps_have_no_lines(value: float) -> None:
    even = np.full((128, 128), value, dtype=np.float32)
    assert trace_lines(even, nothing(128)) == []
    assert trace_lines(even, even) == []


def test_one_pixel_is_no_line() -> None:
    line = nothing(64)
    line[30, 30] = 1
    assert trace_lines(line, draw_tip_map([(0.477, 0.477)], 64)) == []


def test_noise_all_over_has_no_lines(rng: np.random.Generator) -> None:
    noise = rng.random((128, 128), dtype=np.float32)
    assert trace_lines(noise, noise) == []


@WIDTHS
def test_a_short_line_with_a_tip(width: int) -> None:
    """A tube that only just comes in: 6% of the width, too short for a line that has no tip."""
    course = np.array([(0.5, 0.0), (0.5, 0.06)])
    line = draw_line_map([course], width)
    (traced,) = trace_lines(line, draw_tip_map([course[-1]], width))
    assert traced.tip == pytest.approx(in_pixels(course[-1], width), abs=0.3)
    assert trace_lines(line, nothing(width)) == []


def test_least_length_and_confidence() -> None:
    line, tip = draw_line_map([ETT], 128), draw_tip_map([ETT[-1]], 128)
    assert trace_lines(line, nothing(128), TracingOptions(min_length=0.5)) == []  # it is 0.42 long
    assert trace_lines(line, tip, TracingOptions(min_length_to_tip=0.5)) == []
    assert len(trace_lines(line, tip, TracingOptions(min_length=0.5))) == 1
    assert trace_lines(line, tip, TracingOptions(min_confidence=0.95)) == []
    (traced,) = trace_lines(line, tip)
    assert 0.8 < traced.confidence < 0.9  # of a line 2.6 pixels wide, blurred
    (fainter,) = trace_lines(0.7 * line, tip)
    assert fainter.confidence == pytest.approx(0.7 * traced.confidence, rel=0.03)


def test_spacing_of_the_points() -> None:
    line, tip = draw_line_map([ETT], 128), draw_tip_map([ETT[-1]], 128)
    for spacing in (1.0, 2.0, 5.0):
        (traced,) = trace_lines(line, tip, TracingOptions(point_spacing=spacing))
        steps = np.hypot(*np.diff(traced.points, axis=0).T)
        assert steps.max() <= spacing + 1e-9
        assert steps.min() > 0.85 * spacing


def test_wrong_maps() -> None:
    with pytest.raises(ValueError, match=r"line: two maps \(h, w\) of one shape with probabilities in 0..1"):
        trace_lines(np.full((8, 8), 1.5, dtype=np.float32), nothing(8))
    with pytest.raises(ValueError, match="tip: "):
        trace_lines(nothing(8), nothing(16))
    with pytest.raises(ValueError, match="tip: "):
        trace_lines(nothing(8), np.full((8, 8), np.nan, dtype=np.float32))


def test_points_of_the_image_by_hand() -> None:
    """4 x 8 on 12 x 16: 2 columns and 3 rows for each. The first pixel's centre lies at 0.5 and 1, edges stay edges."""
    points = np.array([[0.0, 0.0], [-0.5, -0.5], [7.5, 3.5]])
    assert to_image(points, (4, 8), (12, 16)).tolist() == [[0.5, 1.0], [-0.5, -0.5], [15.5, 11.5]]


def test_points_of_the_original(rng: np.random.Generator) -> None:
    """There and back: what `place` puts on the preprocessed image, averaged to a map, returns to its place."""
    preprocessing = Preprocessing(image_shape=(256, 320), resize="pad", crop_borders=True)
    placement = place((13.0, 40.0, 2000.0, 1600.0), preprocessing)
    points = rng.uniform(0, 1500, (20, 2))
    on_map = (placement.apply(points) + 0.5) * [80 / 320, 64 / 256] - 0.5
    assert to_original(on_map, placement, (64, 80), (256, 320)) == pytest.approx(points, abs=1e-9)
