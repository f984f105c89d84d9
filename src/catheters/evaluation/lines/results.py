"""What was found out about lines as part of `metrics.json` and `metrics.csv`, and `lines_cases.csv`."""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from catheters.evaluation.intervals import Estimate
from catheters.evaluation.lines.comparison import MAP_WIDTH, DeviceLines, TipCase
from catheters.evaluation.lines.evaluation import LineEvaluation
from catheters.evaluation.lines.measurements import MeasuredLengths, Pair, RuleEvaluation
from catheters.evaluation.lines.tips import TOLERANCE_MM, TOLERANCE_SHARE
from catheters.evaluation.prediction_set import PredictionSet
from catheters.io.files import write_whole

CASES_FILE = "lines_cases.csv"
ERROR_NAMES = ("median", "percentile_90")


def describe_lines(lines: LineEvaluation) -> dict[str, Any]:
    """The object `lines` of `metrics.json`; NaN is for its writer to replace."""
    return {
        "predictions": lines.predictions,
        "annotations": lines.annotations,
        "found_within": {"mm": TOLERANCE_MM, "share_of_width": TOLERANCE_SHARE},
        "dice_map_width": MAP_WIDTH,
        "per_device": [_describe_device(device) for device in lines.per_device],
        "measurements": [
            {
                "measurement": of_name.name,
                "unit": of_name.unit,
                "num_true": len(of_name.truth),
                "num_pairs": of_name.agreement.num_pairs,
                **{name: _interval(estimate) for name, estimate in _differences(of_name).items()},
            }
            for of_name in lines.lengths
        ],
        "labels_by_rule": [_describe_rule(rule) for rule in lines.rules],
    }


def list_line_estimates(lines: LineEvaluation) -> Iterator[tuple[str, str, str, Estimate]]:
    """Every number that has an interval or should have one: of, name, metric, estimate."""
    for device in lines.per_device:
        name = device.summary.device_type
        for metric, estimate in _shares(device).items():
            yield "lines", name, metric, estimate
        for metric, pair in _errors(device).items():
            for part, estimate in zip(ERROR_NAMES, pair, strict=True):
                yield "lines", name, f"{metric}_{part}", estimate
    for of_name in lines.lengths:
        for metric, estimate in _differences(of_name).items():
            yield "measurement", of_name.name, metric, estimate
    for rule in lines.rules:
        rates = [(rule.name, "accuracy", rule.accuracy)]
        for label in rule.labels:
            named = f"{rule.name}: {label.label}"
            rates += [(named, "sensitivity", label.sensitivity), (named, "specificity", label.specificity)]
        for name, metric, rate in rates:
            for part, estimate in _parts(rate).items():
                yield "label by rule", name, f"{metric}_{part}", estimate
        yield "label by rule", rule.name, "disagreement", rule.disagreement


def write_tip_cases(file: Path, evaluated: PredictionSet, cases: Sequence[TipCase], uid_column: str) -> None:
    """Write one row per drawn tip that was not found, as the page shows them. The file is whole or absent.

    A missed tip has neither a predicted one nor an error.
    """
    none = (math.nan, math.nan)
    frame = pd.DataFrame(
        {
            uid_column: [evaluated.uids[case.row] for case in cases],
            "patient": [evaluated.patient_ids[case.row] for case in cases],
            "device_type": [case.device_type for case in cases],
            "error": [case.kind for case in cases],
            "tip_x": [case.tip[0] for case in cases],
            "tip_y": [case.tip[1] for case in cases],
            "predicted_x": [(case.predicted or none)[0] for case in cases],
            "predicted_y": [(case.predicted or none)[1] for case in cases],
            "share_of_width": [case.error if case.predicted else math.nan for case in cases],
            "mm": [case.error_mm if case.predicted else math.nan for case in cases],
        }
    )
    write_whole(file, lambda part: frame.to_csv(part, index=False))


def _shares(device: DeviceLines) -> dict[str, Estimate]:
    summary = device.summary
    return {
        "tips_found": summary.found,
        "false_lines_per_image": summary.false_per_image,
        "dice": summary.dice,
    }


def _errors(device: DeviceLines) -> dict[str, tuple[Estimate, Estimate]]:
    """Medians and 90th percentiles."""
    return {
        "tip_error": (device.summary.median_error, device.summary.error_90),
        "tip_error_mm": (device.tip_error_mm, device.tip_error_90_mm),
        "centreline_distance": (device.distance, device.distance_90),
        "centreline_distance_mm": (device.distance_mm, device.distance_90_mm),
    }


def _differences(lengths: MeasuredLengths) -> dict[str, Estimate]:
    """Predicted minus true, and how many were measured."""
    agreement = lengths.agreement
    return {
        "measured": lengths.measured,
        "mean_difference": agreement.mean_difference,
        "lower_limit": agreement.lower_limit,
        "upper_limit": agreement.upper_limit,
        "median_absolute_error": agreement.median_absolute_error,
    }


def _parts(pair: Pair) -> dict[str, Estimate]:
    return {"by_rule": pair.rule, "by_model": pair.model, "difference": pair.difference}


def _describe_pair(pair: Pair) -> dict[str, Any]:
    return {name: _interval(estimate) for name, estimate in _parts(pair).items()}


def _describe_rule(rule: RuleEvaluation) -> dict[str, Any]:
    return {
        "measurement": rule.name,
        "num_images": rule.num_images,
        "num_several": rule.num_several,
        "num_without_label": rule.num_without_label,
        "accuracy": _describe_pair(rule.accuracy),
        "disagreement": _interval(rule.disagreement),
        "per_label": [
            {
                "label": label.label,
                "num_positives": label.num_positives,
                "num_negatives": label.num_negatives,
                "sensitivity": _describe_pair(label.sensitivity),
                "specificity": _describe_pair(label.specificity),
            }
            for label in rule.labels
        ],
    }


def _describe_device(device: DeviceLines) -> dict[str, Any]:
    return {
        "device_type": device.summary.device_type,
        "num_images": device.summary.num_images,
        "num_tips": device.summary.num_tips,
        "num_pairs": device.num_pairs,
        "num_tips_in_mm": device.num_tips_in_mm,
        "num_pairs_in_mm": device.num_pairs_in_mm,
        **{name: _interval(estimate) for name, estimate in _shares(device).items()},
        **{
            name: dict(zip(ERROR_NAMES, map(_error_interval, pair), strict=True))
            for name, pair in _errors(device).items()
        },
    }


def _interval(estimate: Estimate) -> dict[str, Any]:
    return dataclasses.asdict(estimate)


def _error_interval(estimate: Estimate) -> dict[str, Any]:
    """JSON has no infinity: what is infinite, since tips are missed, is null and named."""
    numbers = _interval(estimate)
    missed = [name for name, number in numbers.items() if math.isinf(number)]
    return {**numbers, **dict.fromkeys(missed), "missed": missed}
