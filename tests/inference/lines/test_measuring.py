"""From maps to measurements with their labels by rule: numbers worked out by hand."""

import dataclasses

import numpy as np
import pytest

from catheters.data.preprocessing import Preprocessing, place
from catheters.inference.lines.landmarks import FoundLandmark, find_landmarks
from catheters.inference.lines.maps import Frame, LineMaps
from catheters.inference.lines.measuring import (
    NO_TIP,
    PlannedMeasurement,
    TakenMeasurement,
    plan,
    planned_of,
    take_measurements,
)
from catheters.inference.lines.prediction import PredictedLine, find_lines
from catheters.measurement_rules import Rule
from catheters.measurements import NO_SPACING, PixelSpacing
from tests.inference.conftest import make_checkpoint, make_models
from tests.inference.lines.drawing import draw_line_map, draw_tip_map, smooth

WIDTH = 64
SHAPE = (300, 500)
"""Height and width of the original, which is stretched to a square."""
TUBE = smooth((0.5, 0.02), (0.49, 0.12), (0.48, 0.22), (0.48, 0.3))
OTHER = smooth((0.7, 0.02), (0.69, 0.2), (0.68, 0.4), (0.68, 0.6))
CARINA = np.array([0.5, 0.5])
RULE = Rule("mm", ((None, 20.0, "ETT - Abnormal"), (20.0, None, "ETT - Normal")))
MEASUREMENTS = {
    "above": ("ETT tip", "carina", "vertical"),
    "beside": ("ETT tip", "carina", "horizontal"),
    "apart": ("carina", "ETT tip", "distance"),
}


def measure(
    spacing: PixelSpacing | None, *tubes: np.ndarray, planned: tuple[PlannedMeasurement, ...], height: float = 0.9
) -> tuple[TakenMeasurement, ...]:
    """Of an image with these tubes and a carina whose peak is so high."""
    frame = Frame(
        placement=place((0.0, 0.0, 300.0, 500.0), Preprocessing(image_shape=(128, 128))),
        image_shape=(128, 128),
        map_shape=(WIDTH, WIDTH),
    )
    maps = LineMaps(
        device_types={"ETT": ("ETT - Abnormal", "ETT - Normal")},
        lines=draw_line_map(tubes, WIDTH)[None],
        tips=draw_tip_map([tube[-1] for tube in tubes], WIDTH)[None],
        positions={},
        frame=frame,
        landmarks={"carina": draw_tip_map([CARINA], WIDTH, height)},
    )
    lines = find_lines(maps, {"ETT - Normal": 0.9})
    return take_measurements(planned, lines, ["ETT", "NGT"], find_landmarks(maps), spacing, SHAPE)


def test_pixels_that_are_higher_than_wide() -> None:
    """The tip lies at x .48 x 500 and y .3 x 300, the carina at 250 and 150: 10 px to its left, 60 px above it.

    With pixels of .45 x .5 mm that is 4.5 mm and 30 mm.
    """
    planned = plan(MEASUREMENTS, {"above": RULE})
    above, beside, apart = measure(PixelSpacing((0.45, 0.5)), TUBE, planned=planned)
    assert [taken.name for taken in (above, beside, apart)] == ["above", "beside", "apart"]
    assert above.measurement.start == pytest.approx((239.5, 89.5), abs=1)
    assert above.measurement.end == pytest.approx((249.5, 149.5), abs=1)
    assert above.measurement.pixels == pytest.approx(60, abs=1)
    assert above.measurement.mm == pytest.approx(30, abs=0.5)
    assert above.measurement.share_of_height == pytest.approx(0.2, abs=0.004)
    assert (above.label_by_rule, above.doubt) == ("ETT - Normal", "")
    assert beside.measurement.mm == pytest.approx(-4.5, abs=0.45)
    assert apart.measurement.mm == pytest.approx(np.hypot(4.5, 30), abs=0.5)
    assert apart.measurement.start == above.measurement.end
    assert (beside.label_by_rule, apart.label_by_rule) == (None, None)  # no rule


def test_each_tube_is_measured() -> None:
    """The second one's tip lies 30 px below the carina, 15 mm."""
    planned = plan({"above": MEASUREMENTS["above"]}, {"above": RULE})
    taken = sorted(
        measure(PixelSpacing((0.45, 0.5)), TUBE, OTHER, planned=planned), key=lambda each: -each.measurement.pixels
    )
    assert [each.measurement.mm for each in taken] == [pytest.approx(30, abs=0.5), pytest.approx(-15, abs=0.5)]
    assert [each.label_by_rule for each in taken] == ["ETT - Normal", "ETT - Abnormal"]


def test_lines_that_end_at_one_tip_are_measured_once() -> None:
    """And a line that the tip map has no peak for is measured at its end, with a doubt."""
    planned = plan({"above": MEASUREMENTS["above"]}, {})

    def line(*points: tuple[float, float], tip_probability: float = 0.9) -> PredictedLine:
        return PredictedLine(
            device_type="ETT",
            label="ETT - Normal",
            points=np.array(points),
            confidence=0.9,
            tip_probability=tip_probability,
            length=1.0,
        )

    lines = [line((0, 0), (40, 30)), line((90, 0), (40, 30)), line((50, 0), (50, 20), tip_probability=0.0)]
    carina: dict[str, FoundLandmark | None] = {"carina": FoundLandmark(x=45.0, y=80.0, probability=0.9)}
    taken = take_measurements(planned, lines, ["ETT"], carina, PixelSpacing((0.6, 0.5)), (100, 100))
    assert [(each.measurement.start, each.measurement.mm) for each in taken] == [((40, 30), 25.0), ((50, 20), 30.0)]
    assert [each.doubt for each in taken] == ["", NO_TIP]


def test_without_spacing_a_rule_in_mm_gives_no_label() -> None:
    planned = plan({"above": MEASUREMENTS["above"]}, {"above": RULE})
    (taken,) = measure(None, TUBE, planned=planned)
    assert taken.measurement.mm is None
    assert taken.measurement.share_of_height == pytest.approx(0.2, abs=0.004)
    assert taken.label_by_rule is None
    assert taken.doubt == f"{NO_SPACING}; the rule is in mm, so it gives no label"
    (taken,) = measure(PixelSpacing((0.45, 0.5), "held at the detector"), TUBE, planned=planned)
    assert (taken.label_by_rule, taken.doubt) == ("ETT - Normal", "held at the detector")
    by_share = Rule("share of height", ((None, 0.25, "ETT - Abnormal"), (0.25, None, "ETT - Normal")))
    (taken,) = measure(None, TUBE, planned=plan({"above": MEASUREMENTS["above"]}, {"above": by_share}))
    assert (taken.label_by_rule, taken.doubt) == ("ETT - Abnormal", NO_SPACING)


def test_points_that_are_not_found_are_not_measured() -> None:
    planned = plan(MEASUREMENTS, {})
    assert measure(None, TUBE, planned=planned, height=0.1) == ()
    assert measure(None, planned=planned) == ()


LINES = {"annotation_table": "lines.csv", "lines": "auxiliary", "landmark_table": "landmarks.csv"}


def test_what_several_models_measure() -> None:
    """The first that has a name decides; those without a decoder, or without measurements, have no part."""
    rules = {"above": {"unit": "mm", "bands": [[None, None, "ETT - Normal"]]}}
    first = make_checkpoint(0, **LINES, measurements={"above": MEASUREMENTS["above"]}, rules=rules)
    second = make_checkpoint(1, **LINES, measurements=MEASUREMENTS)
    found = planned_of(make_models(make_checkpoint(2), make_checkpoint(3, **LINES), first, second))
    assert [planned.name for planned in found] == ["above", "beside", "apart"]
    assert found[0].rule == Rule("mm", ((None, None, "ETT - Normal"),))
    assert found[1].rule is None
    assert planned_of(make_models(make_checkpoint(2))) == ()
    assert dataclasses.replace(found[0], rule=None) == planned_of(make_models(second))[0]
