"""An external validation as `external.json` and `external.csv`, for other programs."""

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from catheters.evaluation.external.case_mix import ColumnShift, intercept_by_prevalence
from catheters.evaluation.external.decision_curve import THRESHOLDS, DecisionCurve
from catheters.evaluation.external.measures import CHECKED, MEASURES, LabelResult
from catheters.evaluation.external.validation import ExternalValidation
from catheters.evaluation.external.verdict import advise, judge, summarise
from catheters.evaluation.intervals import LEVEL, METHOD, Estimate
from catheters.evaluation.paired_tests import SIGNIFICANT
from catheters.evaluation.scores import METRICS
from catheters.io.files import write_json, write_whole

FORMAT_VERSION = 1
JSON_FILE, CSV_FILE, PAGE_FILE, CARD_FILE = "external.json", "external.csv", "external.html", "EXTERNAL_CARD.md"
Row = tuple[str, str, str, float, float, float]


def write_validation(file: Path, validation: ExternalValidation, inputs: Mapping[str, Any]) -> None:
    """Write all numbers; what is undefined is null. The file is whole or absent, and says that all others are complete.

    Args:
        file: the JSON file.
        validation: what was found out.
        inputs: what it was made of, name -> value.
    """
    features = validation.features
    content = {
        "format_version": FORMAT_VERSION,
        **inputs,
        "summary": summarise(validation),
        "num_images": validation.num_images,
        "num_patients": validation.num_patients,
        "caveats": [{"kind": caveat.kind, "text": caveat.text} for caveat in validation.caveats],
        "intervals": {
            "level": LEVEL,
            "method": METHOD,
            "differences": "alike minus own, of samples that share no patient: variances add",
        },
        "alarms": {
            "checked": list(validation.checked),
            "adjustment": "Holm, over all labels and all that is checked",
            "below": SIGNIFICANT,
        },
        "is_model_by_model": validation.is_model_by_model,
        "macro_roc_auc": _interval(validation.macro_auc),
        "alike_macro_roc_auc": _interval(validation.alike_macro_auc),
        "own_macro_roc_auc": _interval(validation.own_macro_auc),
        "per_label": [_label(result) for result in validation.results],
        "calibration_curves": {
            label: {
                "predicted": curve.predicted.tolist(),
                "observed": [_interval(estimate) for estimate in curve.observed],
            }
            for label, curve in validation.calibration_curves.items()
        },
        "decision_curves": {
            "thresholds": list(THRESHOLDS),
            "per_label": {label: _curve(curve) for label, curve in validation.decision_curves.items()},
            "own_per_label": {label: _curve(curve) for label, curve in validation.own_decision_curves.items()},
        },
        "case_mix": {
            "logits": [
                {"label": spread.label}
                | {
                    field.name: _interval(getattr(spread, field.name))
                    for field in dataclasses.fields(spread)
                    if field.name != "label"
                }
                for spread in validation.spreads
            ],
            "columns": [_column(shift) for shift in validation.columns],
            "columns_passed_over": validation.columns_passed_over,
            "features": None
            if features is None
            else {
                "far": _interval(features.far),
                "farthest": [
                    {"uid": str(validation.predictions.evaluated.uids[row]), "distance": float(features.distances[row])}
                    for row in features.farthest(50)
                ],
            },
        },
        "subgroups": [
            {
                "column": group.column,
                "value": group.value,
                "num_images": group.scores.num_images,
                "num_patients": group.scores.num_patients,
                **{metric: _interval(group.macros(metric)[0]) for metric in METRICS},
                "difference_from_rest": {metric: _interval(group.macros(metric)[2]) for metric in METRICS},
            }
            for group in validation.subgroups
        ],
        "local": [
            {
                "label": fit.label,
                "num_patients": fit.num_patients,
                "method": fit.method,
                "num_draws": fit.num_draws,
                **{name: dataclasses.asdict(drawn) for name, drawn in fit.numbers.items()},
            }
            for fit in validation.local_fits
        ],
        "sample_sizes": [dataclasses.asdict(size) for size in validation.sample_sizes],
    }
    write_json(file, content)


def write_table(file: Path, validation: ExternalValidation) -> None:
    """Write `external.csv`, one row per label and measure: here, own and their difference."""
    rows = list(_rows(validation.results))
    columns = ["label", "measure", "of", "value", "low", "high"]
    frame = pd.DataFrame(rows, columns=columns)
    write_whole(file, lambda part: frame.to_csv(part, index=False))


def _rows(results: Sequence[LabelResult]) -> Iterator[Row]:
    for result in results:
        for measure in MEASURES:
            kinds = {"here": result.here, "alike": result.alike, "own": result.own, "difference": result.differences}
            for of, numbers in kinds.items():
                estimate = numbers[measure]
                yield result.label, measure, of, estimate.value, estimate.low, estimate.high


def _label(result: LabelResult) -> dict[str, Any]:
    return {
        "label": result.label,
        "verdict": judge(result),
        "advice": advise(result),
        "num_known": result.num_known,
        "num_positives": result.num_positives,
        "num_positive_patients": result.num_positive_patients,
        "num_negative_patients": result.num_negative_patients,
        "alarms": list(result.alarms),
        "not_compared": list(result.not_compared),
        "in_the_large_by_prevalence": intercept_by_prevalence(result),
        **{
            measure: {
                "here": _interval(result.here[measure]),
                "alike": _interval(result.alike[measure]),
                "own": _interval(result.own[measure]),
                "difference": _interval(result.differences[measure]),
            }
            | ({"p_holm": result.p_holm[measure]} if measure in CHECKED else {})
            for measure in MEASURES
        },
    }


def _column(shift: ColumnShift) -> dict[str, Any]:
    difference = shift.difference if math.isfinite(shift.difference) else None  # a group that is all here, none there
    return dataclasses.asdict(shift) | {"difference": difference, "is_large": shift.is_large}


def _curve(curve: DecisionCurve) -> dict[str, Any]:
    return {
        "net_benefit": [_interval(estimate) for estimate in curve.net_benefit],
        "treat_all": [_interval(estimate) for estimate in curve.treat_all],
        "over_all": [_interval(estimate) for estimate in curve.over_all],
    }


def _interval(estimate: Estimate) -> dict[str, float | bool]:
    return dataclasses.asdict(estimate)
