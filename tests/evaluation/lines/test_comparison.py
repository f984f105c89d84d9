"""Lines of a few images, compared by hand."""

import math

import numpy as np
import pytest

from catheters.data.line_targets import draw_line
from catheters.evaluation.lines.comparison import DeviceLines, LineSet, compare_lines
from catheters.evaluation.patients import Patients

Line = list[tuple[float, float]]


def as_lines(*lines: Line) -> dict[str, list[np.ndarray]]:
    return {"ETT": [np.array(line, dtype=float) for line in lines]} if lines else {}


def compare(
    images: list[tuple[list[Line], list[Line]]],
    is_known: list[bool] | None = None,
    mm_per_pixel: tuple[float, float] = (math.nan, math.nan),
) -> DeviceLines:
    """Predicted and drawn lines of images of 1000 x 800 pixels, each of a patient of its own."""
    count = len(images)
    lines = LineSet(
        device_types=("ETT",),
        predicted=[as_lines(*predicted) for predicted, _ in images],
        drawn=[as_lines(*drawn) for _, drawn in images],
        is_known=np.array([True] * count if is_known is None else is_known)[:, None],
        full_shapes=np.array([(800, 1000)] * count),
        mm_per_pixel=np.array([mm_per_pixel] * count),
    )
    (found,) = compare_lines(lines, Patients(np.arange(count).astype(str)), draw_line)
    return found


def down(x: float, y: float) -> Line:
    return [(x, 0.0), (x, y)]


def test_shares_of_the_width() -> None:
    """Errors of 5 (3, 4, 5), 50 (30, 40, 50), 0 and a missed tip; a false line; an image of which nothing is known."""
    found = compare(
        [
            ([down(503, 404)], [down(500, 400)]),
            ([down(530, 440)], [down(500, 400)]),
            ([down(700, 300)], [down(700, 300)]),
            ([], [down(600, 200)]),
            ([down(100, 100)], []),
            ([down(200, 100)], []),
        ],
        is_known=[True] * 5 + [False],
    )
    summary = found.summary
    assert (summary.num_images, summary.num_tips, found.num_pairs, found.num_tips_in_mm) == (5, 4, 3, 0)
    assert found.num_pairs_in_mm == 0
    assert summary.found.value == 2 / 4
    assert summary.median_error.value == pytest.approx((0.005 + 0.05) / 2)
    assert summary.error_90.value == math.inf
    assert summary.false_per_image.value == 2 / 5
    assert summary.median_error.high == math.inf
    assert not found.tip_error_mm.is_defined and not found.distance_mm.is_defined
    far, missed = found.cases
    assert (far.row, far.tip, far.predicted, far.error) == (1, (500, 400), (530, 440), 0.05)
    assert math.isnan(far.error_mm)
    assert (missed.row, missed.tip, missed.predicted, missed.error) == (3, (600, 200), None, math.inf)


def test_dice_of_drawn_lines() -> None:
    """Lines 5.12 of 256 pixels wide: one upon the other, apart, absent, and 2 of 256 pixels beside each other."""
    for drawn, predicted, expected in (
        ([down(500, 400)], [down(500, 400)], 1.0),
        ([down(500, 400)], [down(600, 400)], 0.0),
        ([down(500, 400)], [], 0.0),
        ([], [down(500, 400)], math.nan),
        ([down(500, 400)], [down(500 + 2 * 1000 / 256, 400)], (5.12 - 2) / 5.12),
    ):
        value = compare([(predicted, drawn)]).summary.dice.value
        assert value == pytest.approx(expected, abs=0.06, nan_ok=True)  # whole pixels: 6 wide, 4 common


def test_centreline_distances() -> None:
    """Parallels 10, 20 and 40 pixels apart, whichever way their points run: a median of 2% of the width."""
    found = compare([([down(500 + gap, 400)], [down(500, 400)]) for gap in (10, 20, 40)])
    assert found.num_pairs == 3
    assert found.distance.value == pytest.approx(0.02)
    assert found.distance_90.value == pytest.approx(0.036)  # at 1.8 of 0.01, 0.02 and 0.04
    assert found.distance.has_interval


def test_millimetres_of_pixels_that_are_not_square() -> None:
    """6 and 16 pixels of 0.5 and 0.25 mm are 3 and 4 mm: 5 mm of the width's 500; 10 mm are found and 10.1 are not."""
    found = compare([([down(506, 416)], [down(500, 400)])], mm_per_pixel=(0.5, 0.25))
    assert (found.num_tips_in_mm, found.num_pairs_in_mm) == (1, 1)
    assert found.tip_error_mm.value == pytest.approx(5)
    assert found.summary.median_error.value == pytest.approx(0.01)
    for pixels, is_found in ((20.0, 1.0), (20.2, 0.0)):
        beside = compare([([down(500 + pixels, 400)], [down(500, 400)])], mm_per_pixel=(0.5, 0.25))
        assert beside.summary.found.value == is_found
        assert beside.distance_mm.value == pytest.approx(pixels / 2)
        assert [case.error_mm for case in beside.cases] == pytest.approx([] if is_found else [10.1])


def test_lines_are_paired_by_their_tips() -> None:
    """Two lines whose predictions come in the other order."""
    found = compare([([down(800, 300), down(204, 303)], [down(200, 300), down(800, 300)])])
    assert found.summary.found.value == 1
    assert found.summary.median_error.value == pytest.approx(0.0025)  # between 5 pixels and none
    assert found.distance_90.value < 0.004


def test_nothing_known() -> None:
    found = compare([([down(1, 1)], [down(1, 1)])], is_known=[False])
    assert (found.summary.num_images, found.summary.num_tips, found.num_pairs) == (0, 0, 0)
    assert not found.distance.is_defined and not found.summary.dice.is_defined
    assert found.cases == []


def test_few_cases_of_many() -> None:
    """The five farthest, the farthest first, then five missed ones."""
    images = [([down(500 + 10 * number, 400)], [down(500, 400)]) for number in range(3, 12)]
    images += [([], [down(500, 400)])] * 7
    cases = compare(images).cases
    assert [round(case.error, 3) for case in cases[:5]] == [0.11, 0.1, 0.09, 0.08, 0.07]
    assert [case.row for case in cases[5:]] == [9, 10, 11, 12, 13]
    assert all(case.error == math.inf for case in cases[5:])
