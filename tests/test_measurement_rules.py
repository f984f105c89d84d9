"""Rules: what a length stands for, at and between the edges, and bands that cannot be."""

import pytest

from catheters.measurement_rules import Band, Rule
from catheters.measurements import Measurement, MeasurementDefinition

ABOVE = MeasurementDefinition("ETT tip", "carina", "vertical")
ETT = Rule("mm", ((None, 20.0, "low"), (20.0, 30.0, "rather low"), (30.0, 70.0, "right"), (70.0, None, "high")))


def length(mm: float | None, share: float = 0.1) -> Measurement:
    return Measurement(ABOVE, (0.0, 0.0), (0.0, 0.0), 100.0, mm, share)


@pytest.mark.parametrize(
    ("mm", "label"),
    [
        (-300.0, "low"),
        (19.999, "low"),
        (20.0, "rather low"),
        (30.0, "right"),
        (69.9, "right"),
        (70.0, "high"),
        (1e9, "high"),
    ],
)
def test_the_lower_edge_belongs_to_a_band(mm: float, label: str) -> None:
    assert ETT.judge(length(mm)) == (label, "")


def test_without_the_unit_there_is_no_label() -> None:
    assert ETT.judge(length(None)) == (None, "the rule is in mm, so it gives no label")


def test_shares_of_the_height_need_no_spacing() -> None:
    rule = Rule("share of height", ((None, 0.1, "low"), (0.1, None, "high")))
    assert [rule.judge(length(None, share))[0] for share in (-0.2, 0.0999, 0.1, 0.5)] == ["low", "low", "high", "high"]


@pytest.mark.parametrize(
    ("bands", "message"),
    [
        (((None, 20, "a"), (25, None, "b")), "no band holds 20 to 25, between [-inf, 20, 'a'] and [25, inf, 'b']"),
        (((None, 20, "a"), (15, None, "b")), "15 to 20 is in two bands, [-inf, 20, 'a'] and [15, inf, 'b']"),
        (((0, 20, "a"), (5, 10, "b")), "5 to 10 is in two bands, [0, 20, 'a'] and [5, 10, 'b']"),
        (((None, 20, "a"), (None, 20, "b")), "-inf to 20 is in two bands, [-inf, 20, 'a'] and [-inf, 20, 'b']"),
        (((20, None, "a"), (None, 20, "b")), "the bands [20, inf, 'a'] and [-inf, 20, 'b'] stand out of order"),
        (((30, 20, "a"),), "the band [30, 20, 'a'] ends before it begins"),
        (((20, 20, "a"),), "the band [20, 20, 'a'] ends before it begins"),
    ],
)
def test_bands_that_cannot_be(bands: tuple[Band, ...], message: str) -> None:
    with pytest.raises(ValueError) as error:
        Rule("mm", bands)
    assert str(error.value) == message
