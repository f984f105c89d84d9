"""Measurements in plain words, and where the label by rule is not what the model says."""

from collections.abc import Sequence

from catheters.inference.interpretation import Findings
from catheters.inference.lines.measuring import TakenMeasurement
from catheters.labels import tip_name


def describe_measurement(taken: TakenMeasurement) -> str:
    """As in "ETT tip 12.0 mm above the carina, by rule ETT - Abnormal", with what makes the length doubtful."""
    measurement = taken.measurement
    doubt = f" ({taken.doubt})" if taken.doubt else ""
    by_rule = "" if taken.label_by_rule is None else f", by rule {taken.label_by_rule}"
    return f"{measurement.describe()}{doubt}{by_rule}"


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
    said = ", ".join(_short(positive, device_type) for positive in positives) or "none of its labels"
    where = taken.measurement.describe().removeprefix(f"{device_type} ")
    return f"{device_type}: the model says {said}; by rule {_short(label, device_type)} ({where})"


def describe_disagreements(findings: Findings, row: int, taken: Sequence[TakenMeasurement]) -> tuple[str, ...]:
    """Those of an image, each once."""
    return tuple(dict.fromkeys(filter(None, (describe_disagreement(findings, row, each) for each in taken))))


def describe_lengths(findings: Findings, row: int, device_type: str, taken: Sequence[TakenMeasurement]) -> str:
    """The measurements that have a tip of a device type, to follow its sentence; empty where there are none.

    As in "; ETT tip 12.0 mm above the carina, by rule ETT - Abnormal, but the model says Normal".
    """
    parts = []
    for each in taken:
        definition = each.measurement.definition
        if tip_name(device_type) in (definition.start, definition.end):
            disagrees = describe_disagreement(findings, row, each) != ""
            said = [_short(label, device_type) for label in _positives(findings, row, device_type)]
            but = f", but the model says {', '.join(said) or 'none of its labels'}" if disagrees else ""
            parts.append(f"; {describe_measurement(each)}{but}")
    return "".join(dict.fromkeys(parts))


def _positives(findings: Findings, row: int, device_type: str) -> list[str]:
    return [findings.labels[k] for k in findings.of_device_type(device_type) if findings.is_predicted_positive[row, k]]


def _short(label: str, device_type: str) -> str:
    """`ETT - Abnormal` -> `Abnormal`."""
    return label.removeprefix(device_type).strip(" -") or label
