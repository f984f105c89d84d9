"""Lines and measurements in plain words, and where the label by rule is not what the model says."""

from collections.abc import Collection, Sequence

from catheters.inference.interpretation import Findings, positions_of
from catheters.inference.lines.finding import FoundLines
from catheters.inference.lines.measuring import TakenMeasurement
from catheters.inference.lines.prediction import PredictedLine
from catheters.labels import tip_name
from catheters.measurements import MeasurementDefinition


def describe_measurement(taken: TakenMeasurement, not_predicted: Collection[str] = ()) -> str:
    """As in "ETT tip 12.0 mm above the carina, by rule ETT - Abnormal", with what makes the length doubtful.

    Args:
        taken: the measurement.
        not_predicted: device types that are not predicted positive; a length from the tip of one is doubtful.
    """
    measurement = taken.measurement
    doubts = [f"{name} not predicted" for name in not_predicted if _has_tip_of(measurement.definition, name)]
    doubt = "; ".join(filter(None, [*doubts, taken.doubt]))
    in_brackets = f" ({doubt})" if doubt else ""
    by_rule = "" if taken.label_by_rule is None else f", by rule {taken.label_by_rule}"
    return f"{measurement.describe()}{in_brackets}{by_rule}"


def describe_found(findings: Findings, row: int, device_type: str, found: FoundLines) -> str:
    """What was found of a device type, to follow its sentence; empty where that is nothing.

    Of one that is predicted positive: where its lines end, and what is measured from there. Of another one that lines
    are drawn all the same, and how sure their tips are, but neither places nor lengths, which would look like facts.

    Args:
        findings: what n images show.
        row: of the image.
        device_type: whose lines they are.
        found: in that image.
    """
    if findings.is_present(device_type, row):
        tips = found.tip_shares().get(device_type, ())
        return describe_tips(tips) + describe_lengths(findings, row, device_type, found.measurements)
    return describe_unsure([line for line in found.lines if line.device_type == device_type])


def describe_tips(tips: Sequence[tuple[float, float]]) -> str:
    """As in "; lines end at (56%, 25%), (43%, 30%) of width and height"; empty where there are none.

    It does not speak of tips, since that of a line which leaves the image is not in it.

    Args:
        tips: x and y of each line's end, as shares of the image's width and height.
    """
    if not tips:
        return ""
    places = dict.fromkeys(f"({x:.0%}, {y:.0%})" for x, y in tips)
    return f"; {'line ends' if len(tips) == 1 else 'lines end'} at {', '.join(places)} of width and height"


def describe_unsure(lines: Sequence[PredictedLine]) -> str:
    """As in "; a line is drawn all the same, tip probability 0.41"; empty where there is none."""
    if not lines:
        return ""
    seen = [f"{line.tip_probability:.2f}" for line in lines if line.tip_probability > 0]
    tips = f"tip {'probability' if len(seen) == 1 else 'probabilities'} {', '.join(seen)}" if seen else "no tip is seen"
    count = "a line is" if len(lines) == 1 else f"{len(lines)} lines are"
    return f"; {count} drawn all the same, {tips}"


def describe_disagreement(findings: Findings, row: int, taken: TakenMeasurement) -> str:
    """As in "ETT: the model says Normal; by rule Abnormal (tip 12.0 mm above the carina)"; empty where they agree.

    They disagree where the label by rule is not among those labels of its device type that are predicted positive.

    Args:
        findings: what n images show.
        row: of the image.
        taken: a measurement on it.
    """
    label = taken.label_by_rule
    device_type = next((name for name, labels in findings.heads.items() if label in labels), None)
    if label is None or device_type is None:
        return ""
    positives = _positives(findings, row, device_type)
    if label in positives:
        return ""
    where = taken.measurement.describe().removeprefix(f"{device_type} ")
    said = _said(findings, row, device_type)
    return f"{device_type}: the model says {said}; by rule {_short(label, device_type)} ({where})"


def describe_disagreements(findings: Findings, row: int, taken: Sequence[TakenMeasurement]) -> tuple[str, ...]:
    """Those of an image, each once."""
    return tuple(dict.fromkeys(filter(None, (describe_disagreement(findings, row, each) for each in taken))))


def describe_lengths(findings: Findings, row: int, device_type: str, taken: Sequence[TakenMeasurement]) -> str:
    """The measurements that have a tip of a device type, to follow its sentence; empty where there are none.

    Those that go to the tip of another device type that is not predicted positive are left out.
    As in "; ETT tip 12.0 mm above the carina, by rule ETT - Abnormal, but the model says Normal".
    """
    parts = []
    unsure = findings.not_predicted(row)
    for each in taken:
        definition = each.measurement.definition
        if _has_tip_of(definition, device_type) and not any(_has_tip_of(definition, name) for name in unsure):
            disagrees = describe_disagreement(findings, row, each) != ""
            but = f", but the model says {_said(findings, row, device_type)}" if disagrees else ""
            parts.append(f"; {describe_measurement(each)}{but}")
    return "".join(dict.fromkeys(parts))


def _has_tip_of(definition: MeasurementDefinition, device_type: str) -> bool:
    return tip_name(device_type) in (definition.start, definition.end)


def _positives(findings: Findings, row: int, device_type: str) -> list[str]:
    return [findings.labels[k] for k in findings.of_device_type(device_type) if findings.is_predicted_positive[row, k]]


def _said(findings: Findings, row: int, device_type: str) -> str:
    """As in "Normal", or "Normal (or Abnormal)" where a tube, which has one position, may have another."""
    said = []
    for position in positions_of(findings, findings.of_device_type(device_type), row):
        name, *others = (_short(findings.labels[k], device_type) for k in (position.column, *position.alternatives))
        said.append(f"{name} (or {', '.join(others)})" if others else name)
    return ", ".join(said) or "none of its labels"


def _short(label: str, device_type: str) -> str:
    """`ETT - Abnormal` -> `Abnormal`."""
    return label.removeprefix(device_type).strip(" -") or label
