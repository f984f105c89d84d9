"""Measurements of one image, from the tips and landmarks that the models see, and the labels that rules give them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from catheters.inference.lines.landmarks import FoundLandmark, places_of
from catheters.inference.lines.prediction import PredictedLine, tips_of
from catheters.inference.loading import Models
from catheters.labels import tip_name
from catheters.measurement_rules import Rule
from catheters.measurements import Measurement, MeasurementDefinition, PixelSpacing, measure

NO_TIP = "no tip is seen there, the line just ends"


@dataclass(frozen=True, kw_only=True)
class PlannedMeasurement:
    """What is measured on each image.

    Attributes:
        name: in the setting `measurements`.
        definition: from where to where.
        rule: which label which length stands for; None: nobody says.
    """

    name: str
    definition: MeasurementDefinition
    rule: Rule | None


@dataclass(frozen=True, kw_only=True)
class TakenMeasurement:
    """What was measured on an image, between two of its points.

    Attributes:
        name: in the setting `measurements`.
        measurement: the length.
        label_by_rule: what the rule says of it; None where there is no rule, or the rule cannot say.
        doubt: why there is no length in mm and no label, or why the length may be wrong. Empty: none.
    """

    name: str
    measurement: Measurement
    label_by_rule: str | None
    doubt: str


def plan(measurements: Mapping[str, tuple[str, str, str]], rules: Mapping[str, Rule]) -> tuple[PlannedMeasurement, ...]:
    """What the settings of these names ask for."""
    return tuple(
        PlannedMeasurement(name=name, definition=MeasurementDefinition(start, end, kind), rule=rules.get(name))
        for name, (start, end, kind) in measurements.items()
    )


def planned_of(models: Models) -> tuple[PlannedMeasurement, ...]:
    """What the checkpoints measure; of several that give one name to different measurements, or different rules to one
    measurement, the first decides. Nothing where none has a line decoder."""
    found: dict[str, PlannedMeasurement] = {}
    for checkpoint in models.checkpoints:
        if checkpoint.model.finds_lines:
            for planned in plan(checkpoint.settings.measurements, checkpoint.settings.rules_by_name):
                found.setdefault(planned.name, planned)
    return tuple(found.values())


def take_measurements(
    planned: Sequence[PlannedMeasurement],
    lines: Sequence[PredictedLine],
    device_types: Sequence[str],
    landmarks: Mapping[str, FoundLandmark | None],
    spacing: PixelSpacing | None,
    full_shape: tuple[int, int],
) -> tuple[TakenMeasurement, ...]:
    """Measure one image: each pair of points of a measurement, so that two tubes of one type have two lengths.

    Lines that end at the same tip are one tube as far as that tip goes.

    Args:
        planned: what to measure.
        lines: those of the image.
        device_types: all that the models know.
        landmarks: see `find_landmarks`.
        spacing: of the image's pixels; None: not known.
        full_shape: (H, W) of the original image, in pixels.
    """
    tips = {tip_name(name): places for name, places in tips_of(lines, device_types).items()}
    points = tips | places_of(landmarks)
    seen = {line.tip for line in lines if line.tip_probability > 0}
    unseen = {line.tip for line in lines} - seen
    taken = []
    for of_plan in planned:
        for measurement in measure(of_plan.definition, points, spacing, full_shape):
            label, reason = (None, "") if of_plan.rule is None else of_plan.rule.judge(measurement)
            just_ends = NO_TIP if unseen & {measurement.start, measurement.end} else ""
            doubt = "; ".join(filter(None, [just_ends, measurement.doubt, reason]))
            taken.append(TakenMeasurement(name=of_plan.name, measurement=measurement, label_by_rule=label, doubt=doubt))
    return tuple(taken)
