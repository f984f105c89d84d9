"""Measurements: numbers worked out by hand, signs, several tips, and what is said where mm are not known."""

from typing import get_args

import numpy as np
import pytest

from catheters.errors import SettingsError
from catheters.measurements import (
    KINDS,
    NO_SPACING,
    KindName,
    Measurement,
    MeasurementDefinition,
    PixelSpacing,
    check_point_names,
    measure,
)

ABOVE = MeasurementDefinition("ETT tip", "carina", "vertical")
BESIDE = MeasurementDefinition("ETT tip", "carina", "horizontal")
APART = MeasurementDefinition("ETT tip", "carina", "distance")
SHAPE = (200, 400)
POINTS = {"ETT tip": (103, 46), "carina": (100, 50)}  # 3 px to the right of the carina, 4 px above it


@pytest.mark.parametrize(
    ("definition", "pixels", "mm"),
    [(ABOVE, 4, 4 * 0.5), (BESIDE, 3, 3 * 0.6), (APART, 5, (1.8**2 + 2**2) ** 0.5)],
    ids=lambda value: getattr(value, "kind", ""),
)
def test_lengths_with_pixels_that_are_wider_than_high(
    definition: MeasurementDefinition, pixels: float, mm: float
) -> None:
    (measurement,) = measure(definition, POINTS, PixelSpacing((0.6, 0.5)), SHAPE)
    assert measurement.definition == definition
    assert measurement.pixels == pytest.approx(pixels)
    assert measurement.mm == pytest.approx(mm)
    assert measurement.share_of_height == pytest.approx(pixels / 200)
    assert measurement.doubt == ""


def test_signs() -> None:
    """Above and to the image's right is positive, below and to the left negative; a distance is neither."""
    below_left = {"ETT tip": (90, 60), "carina": (100, 50)}
    spacing = PixelSpacing((0.4, 0.5))
    assert [measure(each, below_left, spacing, SHAPE)[0].pixels for each in (ABOVE, BESIDE)] == [-10, -10]
    assert [measure(each, below_left, spacing, SHAPE)[0].mm for each in (ABOVE, BESIDE)] == [-5, -4]
    assert measure(ABOVE, below_left, spacing, SHAPE)[0].share_of_height == -0.05
    assert measure(APART, below_left, spacing, SHAPE)[0].pixels == pytest.approx(200**0.5)


def test_several_tips_and_none() -> None:
    points = {"ETT tip": [(0, 10), (0, 80)], "carina": np.array([0.0, 50.0])}
    assert [each.pixels for each in measure(ABOVE, points, None, SHAPE)] == [40, -30]
    assert measure(ABOVE, {**points, "ETT tip": []}, None, SHAPE) == []
    assert measure(ABOVE, {**points, "carina": np.empty((0, 2))}, None, SHAPE) == []
    two_ends = {"ETT tip": [(0, 10), (0, 80)], "carina": [(0, 50), (0, 60)]}
    assert [each.pixels for each in measure(ABOVE, two_ends, None, SHAPE)] == [40, 50, -30, -20]


@pytest.mark.parametrize(
    ("spacing", "doubt"),
    [
        (None, NO_SPACING),
        (PixelSpacing(None), NO_SPACING),
        (PixelSpacing(None, "the header has no spacing"), "the header has no spacing"),
    ],
)
def test_without_spacing(spacing: PixelSpacing | None, doubt: str) -> None:
    assert measure(ABOVE, POINTS, spacing, SHAPE) == [
        Measurement(ABOVE, (103.0, 46.0), (100.0, 50.0), 4.0, None, 0.02, doubt)
    ]


def test_doubt_of_the_spacing_goes_with_the_length() -> None:
    (measurement,) = measure(ABOVE, POINTS, PixelSpacing((1.0, 1.0), "measured at the detector"), SHAPE)
    assert measurement.mm == 4
    assert measurement.doubt == "measured at the detector"


def test_names() -> None:
    assert ABOVE.name == "ETT tip above carina"
    assert BESIDE.name == "ETT tip to the image's right of carina"
    assert APART.name == "ETT tip from carina"


@pytest.mark.parametrize(
    ("definition", "mm", "share", "text"),
    [
        (ABOVE, 12.0, 0.03, "ETT tip 12.0 mm above the carina"),
        (ABOVE, -7.26, -0.03, "ETT tip 7.3 mm below the carina"),
        (ABOVE, None, 0.031, "ETT tip 3.1% of the image's height above the carina"),
        (ABOVE, None, -0.2, "ETT tip 20.0% of the image's height below the carina"),
        (BESIDE, 3.0, 0.01, "ETT tip 3.0 mm to the image's right of the carina"),
        (BESIDE, -3.0, -0.01, "ETT tip 3.0 mm to the image's left of the carina"),
        (APART, 5.0, 0.01, "ETT tip 5.0 mm from the carina"),
    ],
)
def test_descriptions(definition: MeasurementDefinition, mm: float | None, share: float, text: str) -> None:
    assert Measurement(definition, (0.0, 0.0), (0.0, 0.0), 1.0, mm, share).describe() == text


def test_wrong_definitions() -> None:
    with pytest.raises(ValueError, match=r"^'vertial' is not a kind of measurement; did you mean 'vertical'"):
        MeasurementDefinition("ETT tip", "carina", "vertial")
    with pytest.raises(ValueError, match="there are: vertical, horizontal, distance"):
        MeasurementDefinition("ETT tip", "carina", "")
    with pytest.raises(ValueError, match=r"^from 'carina' to itself"):
        MeasurementDefinition("carina", "carina", "distance")


def test_settings_take_the_kinds_that_there_are() -> None:
    assert get_args(KindName) == tuple(KINDS)


def test_points_that_there_are_not() -> None:
    with pytest.raises(SettingsError) as error:
        measure(MeasurementDefinition("ETT tip", "carnia", "vertical"), POINTS, None, SHAPE)
    assert str(error.value) == (
        "measurement 'ETT tip above carnia': 'carnia' is not a point that can be measured; did you mean 'carina'?"
    )
    check_point_names([ABOVE, APART], ["carina", "ETT tip"], "measurements")
    with pytest.raises(SettingsError, match="measurements: 'ETT tip' is not a point that can be measured; there are: "):
        check_point_names([ABOVE], ["carina"], "measurements")


@pytest.mark.parametrize("mm", [(143.0, 143.0), (0.0143, 0.0143), (0.08, 0.08), (0.143, 14.3)])
def test_a_spacing_in_another_unit_is_not_used(mm: tuple[float, float]) -> None:
    """In micrometres an X-ray would be 73 m wide, in cm 7 mm."""
    definition = MeasurementDefinition("ETT tip", "carina", "vertical")
    points = {"ETT tip": (100.0, 100.0), "carina": (100.0, 200.0)}
    (taken,) = measure(definition, points, PixelSpacing(mm), (512, 512))
    assert taken.mm is None
    assert f"{mm[0]:g} x {mm[1]:g} mm per pixel would make an X-ray of {512 * mm[0]:g} x" in taken.doubt
    (usual,) = measure(definition, points, PixelSpacing((0.8, 0.8)), (512, 512))
    assert usual.mm == pytest.approx(80)


@pytest.mark.parametrize(("mm", "is_doubted"), [((0.2, 0.8), True), ((0.8, 0.2), True), ((0.8, 0.66), False)])
def test_pixels_far_from_square_are_a_doubt(mm: tuple[float, float], is_doubted: bool) -> None:
    points = {"ETT tip": (100.0, 100.0), "carina": (100.0, 200.0)}
    (taken,) = measure(ABOVE, points, PixelSpacing(mm, "held to be so"), (512, 512))
    text = f"; {mm[0]:g} x {mm[1]:g} mm per pixel are far from square, so one of the two may be wrong"
    assert taken.doubt == "held to be so" + is_doubted * text
    assert taken.mm == pytest.approx(100 * mm[1])
