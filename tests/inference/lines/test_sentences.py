"""Measurements in words, and rules that the models do not agree with."""

import numpy as np
import pytest

from catheters.inference.interpretation import Findings
from catheters.inference.lines.finding import FoundLines
from catheters.inference.lines.measuring import TakenMeasurement
from catheters.inference.lines.prediction import PredictedLine
from catheters.inference.lines.sentences import (
    describe_disagreement,
    describe_disagreements,
    describe_found,
    describe_lengths,
    describe_measurement,
    describe_tips,
)
from catheters.labels import RANZCR_HEADS
from catheters.measurements import Measurement, MeasurementDefinition

LABELS = (*RANZCR_HEADS["ETT"], "CVC - Normal", "Effusion")
ABOVE = MeasurementDefinition("ETT tip", "carina", "vertical")


@pytest.fixture
def findings() -> Findings:
    """Of three images: a tube in normal position; one that is borderline and normal at once; nothing."""
    probabilities = np.array([[0.1, 0.2, 0.9, 0.0, 0.0], [0.1, 0.6, 0.7, 0.9, 0.0], np.zeros(5)])
    return Findings(
        labels=LABELS,
        heads={"ETT": RANZCR_HEADS["ETT"], "CVC": ("CVC - Normal",)},
        rule="chosen by youden",
        probabilities=probabilities,
        uncalibrated=probabilities,
        thresholds=np.full(5, 0.5),
        is_predicted_positive=probabilities >= 0.5,
        presence={"ETT": probabilities[:, :3].max(axis=1), "CVC": probabilities[:, 3]},
        presence_thresholds={"ETT": 0.5, "CVC": 0.5},
        is_deferred=np.zeros(probabilities.shape, dtype=np.bool_),
        spread=None,
    )


def taken(
    mm: float | None, label: str | None, doubt: str = "", definition: MeasurementDefinition = ABOVE
) -> TakenMeasurement:
    measurement = Measurement(definition, (0.0, 0.0), (0.0, 0.0), 50.0, mm, 0.1, doubt)
    return TakenMeasurement(name="height", measurement=measurement, label_by_rule=label, doubt=doubt)


@pytest.mark.parametrize(
    ("row", "mm", "label", "sentence"),
    [
        (0, 12.0, "ETT - Abnormal", "ETT: the model says Normal; by rule Abnormal (tip 12.0 mm above the carina)"),
        (0, -8.0, "ETT - Abnormal", "ETT: the model says Normal; by rule Abnormal (tip 8.0 mm below the carina)"),
        (1, 12.0, "ETT - Abnormal", "ETT: the model says Normal (or Borderline); by rule Abnormal (tip 12.0 mm above"),
        (2, 50.0, "ETT - Normal", "ETT: the model says none of its labels; by rule Normal (tip 50.0 mm above"),
        (0, 50.0, "ETT - Normal", ""),
        (1, 25.0, "ETT - Borderline", ""),
        (0, 50.0, None, ""),
        (0, 50.0, "Effusion", ""),  # of no device type
    ],
)
def test_disagreement(findings: Findings, row: int, mm: float, label: str | None, sentence: str) -> None:
    found = describe_disagreement(findings, row, taken(mm, label))
    assert found.startswith(sentence) and bool(found) == bool(sentence)


def test_each_disagreement_once(findings: Findings) -> None:
    lengths = [taken(12.0, "ETT - Abnormal"), taken(50.0, "ETT - Normal"), taken(12.0, "ETT - Abnormal")]
    assert describe_disagreements(findings, 0, lengths) == (
        "ETT: the model says Normal; by rule Abnormal (tip 12.0 mm above the carina)",
    )


def test_what_follows_a_device_types_sentence(findings: Findings) -> None:
    """Measurements that have its tip, with the doubt; of another's there is nothing."""
    between = MeasurementDefinition("carina", "dome", "distance")
    lengths = [taken(50.0, "ETT - Normal"), taken(9.0, None, definition=between)]
    assert describe_lengths(findings, 0, "ETT", lengths) == ("; ETT tip 50.0 mm above the carina, by rule ETT - Normal")
    assert describe_lengths(findings, 0, "CVC", lengths) == ""
    assert describe_lengths(findings, 0, "ETT", [taken(12.0, "ETT - Abnormal", "at the detector")]) == (
        "; ETT tip 12.0 mm above the carina (at the detector), by rule ETT - Abnormal, but the model says Normal"
    )
    assert describe_lengths(findings, 0, "ETT", [taken(None, None, "no spacing")]) == (
        "; ETT tip 10.0% of the image's height above the carina (no spacing)"
    )
    to_another = [taken(9.0, None, definition=MeasurementDefinition("ETT tip", "CVC tip", "distance"))]
    assert describe_lengths(findings, 0, "ETT", to_another) == ""  # no CVC is seen
    assert describe_lengths(findings, 1, "ETT", to_another).startswith("; ETT tip 9.0 mm")


def test_where_lines_end() -> None:
    """Two lines that end at one place are told as such."""
    ends = [(0.484, 0.312), (0.62, 1.0)]
    assert describe_tips(ends[:1]) == "; line ends at (48%, 31%) of width and height"
    assert describe_tips(ends) == "; lines end at (48%, 31%), (62%, 100%) of width and height"
    assert describe_tips([ends[0], ends[0]]) == "; lines end at (48%, 31%) of width and height"
    assert describe_tips([]) == ""


def line(tip_probability: float, device_type: str = "ETT") -> PredictedLine:
    return PredictedLine(
        device_type=device_type,
        label=f"{device_type} - Normal",
        points=np.array([[49.5, 0.0], [49.5, 39.5]]),
        confidence=0.9,
        tip_probability=tip_probability,
        length=39.5,
    )


@pytest.mark.parametrize(
    ("row", "tip_probabilities", "sentence"),
    [
        (
            0,
            [0.9],
            "; line ends at (50%, 20%) of width and height; ETT tip 50.0 mm above the carina, by rule ETT - Normal",
        ),
        (2, [0.412], "; a line is drawn all the same, tip probability 0.41"),
        (2, [0.412, 0.0, 0.3], "; 3 lines are drawn all the same, tip probabilities 0.41, 0.30"),
        (2, [0.0], "; a line is drawn all the same, no tip is seen"),
        (2, [], ""),
    ],
)
def test_what_is_not_seen_has_no_lengths(
    findings: Findings, row: int, tip_probabilities: list[float], sentence: str
) -> None:
    lines = (*map(line, tip_probabilities), line(0.8, "CVC"))
    found = FoundLines(lines=lines, full_shape=(200, 100), measurements=(taken(50.0, "ETT - Normal"),))
    assert describe_found(findings, row, "ETT", found) == sentence


def test_a_length_from_what_is_not_predicted_is_doubtful() -> None:
    length = taken(50.0, "ETT - Normal", "at the detector")
    assert describe_measurement(length, ["CVC", "ETT"]) == (
        "ETT tip 50.0 mm above the carina (ETT not predicted; at the detector), by rule ETT - Normal"
    )
    assert describe_measurement(length, ["CVC"]) == (
        "ETT tip 50.0 mm above the carina (at the detector), by rule ETT - Normal"
    )
