"""What was found out as `metrics.json` and `metrics.csv`, for other programs; see docs/reference/metrics-json.md."""

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from catheters.errors import UserError
from catheters.evaluation.caveats import Caveat
from catheters.evaluation.comparison import Comparison
from catheters.evaluation.evaluation import Evaluation
from catheters.evaluation.hard_cases import SharedCases
from catheters.evaluation.intervals import COVERAGE_EXCEPTIONS, FEW_PATIENTS_NOTE, LEVEL, METHOD, Estimate
from catheters.evaluation.lines.results import describe_lines, list_line_estimates
from catheters.evaluation.operating_points import OperatingPoint
from catheters.evaluation.paired_tests import SIGNIFICANT
from catheters.evaluation.prediction_set import presence_rule
from catheters.evaluation.recalibration import Recalibration
from catheters.evaluation.scores import METRICS, Scores
from catheters.evaluation.selective_prediction import Abstention, Band
from catheters.io.files import read_written_json, write_json, write_whole

FORMAT_VERSION = 2
METRICS_FILE, CALIBRATION_FILE = "metrics.json", "calibration.json"
"""What other commands read of an evaluation; the first one, written last, says that it is complete."""
RATES = ("sensitivity", "specificity", "ppv", "npv")
"""Of an operating point."""
DECIDED_RATES = ("decided", "missed", "false_alarms", "accuracy")
"""Of what is decided."""
RECALIBRATION = ("slope", "intercept", "in_the_large", "observed_to_expected")
"""Of a label's probabilities."""
Row = tuple[str, str, str, float, float, float]
"""Of `metrics.csv`: of, name, metric, value, low, high."""


def write_metrics(
    file: Path,
    evaluation: Evaluation,
    predictions: Path,
    predictions_sha256: str,
    calibration_sha256: str,
    labels: str,
    num_labelled: int,
    shared: SharedCases | None = None,
) -> None:
    """Write `metrics.json`; what is undefined is null. The file is whole or absent.

    It says that the evaluation is complete, so it is written after all other files.

    Args:
        file: the JSON file.
        evaluation: what was found out.
        predictions: the file of them.
        predictions_sha256: of that file's content as it was read.
        calibration_sha256: of the `calibration.json` of the same evaluation.
        labels: where the true ones come from.
        num_labelled: images in the label table.
        shared: what this and other models name to be read again; None for a single model.
    """
    scores, choices = evaluation.scores, evaluation.choices
    content = {
        "format_version": FORMAT_VERSION,
        "predictions": str(predictions),
        "predictions_sha256": predictions_sha256,
        "labels": labels,
        "num_images": scores.num_images,
        "num_patients": scores.num_patients,
        "num_images_in_label_table": num_labelled,
        "caveats": _caveats(evaluation.caveats),
        "intervals": {
            "level": LEVEL,
            "method": METHOD,
            "few_patients": FEW_PATIENTS_NOTE,
            "exceptions": list(COVERAGE_EXCEPTIONS),
        },
        "macro": _macro(scores),
        "operating_point_rule": str(choices.rule),
        "presence_rule": presence_rule(evaluation.evaluated.exclusive),
        "per_label": _labels(scores, evaluation.points),
        "per_device": _labels(evaluation.presence_scores, evaluation.presence_points),
        "abstention": {
            "error_rate": choices.abstain_error,
            "per_label": [_abstention(abstention) for abstention in evaluation.abstentions],
        },
        "calibration": {
            "chosen": evaluation.calibrator.method,
            "reason": evaluation.calibration.reason,
            "sha256": calibration_sha256,
            "methods": [
                {
                    "method": calibrated.method,
                    "brier_skill": calibrated.brier_skill,
                    "log_loss": calibrated.log_loss,
                    "expected_calibration_error": calibrated.expected_error,
                }
                for calibrated in evaluation.calibrations
            ],
            "steps": [
                {
                    "method": step.method,
                    "simpler": step.simpler,
                    "is_better": step.is_better,
                    "brier_skill_difference": _interval(step.brier_skill),
                    "log_loss_difference": _interval(step.log_loss),
                }
                for step in evaluation.calibration.steps
            ],
            "per_label": _recalibrations(evaluation.recalibrations),
            "per_label_of_calibrated": _recalibrations(evaluation.recalibrations_of_calibrated),
        },
        "folds": [
            {
                "fold": fold.fold,
                **_counts(fold.scores),
                "macro": {metric: _interval(evaluation.fold_macros(metric)[number]) for metric in METRICS},
            }
            for number, fold in enumerate(evaluation.folds)
        ],
        "subgroups": [
            {
                "column": group.column,
                "value": group.value,
                **_counts(group.scores),
                "macro": {metric: _interval(group.macros(metric)[0]) for metric in METRICS},
                "macro_of_rest": {metric: _interval(group.macros(metric)[1]) for metric in METRICS},
                "difference": {metric: _interval(group.macros(metric)[2]) for metric in METRICS},
                "is_case_mix": group.is_case_mix,
                "apart": {metric: group.apart(metric) for metric in METRICS},
                "per_label": _labels(group.scores, None),
                "difference_per_label": None if group.differences is None else _labels(group.differences, None),
            }
            for group in evaluation.subgroups
        ],
        "read_again": _read_again(evaluation, shared),
        "explanations": None if evaluation.explanations is None else evaluation.explanations.describe(),
        "lines": None if evaluation.lines is None else describe_lines(evaluation.lines),
    }
    write_json(file, content)


def write_table(file: Path, evaluation: Evaluation) -> None:
    """Write `metrics.csv`, one row per number: of, name, metric, value, low, high. The file is whole or absent."""
    rows = list(list_estimates(evaluation))
    if evaluation.lines is not None:
        rows += [_row(*of_lines) for of_lines in list_line_estimates(evaluation.lines)]
    frame = pd.DataFrame(rows, columns=["of", "name", "metric", "value", "low", "high"])
    write_whole(file, lambda part: frame.to_csv(part, index=False))


def write_comparison(file: Path, comparison: Comparison) -> None:
    """Write the paired differences of two models as JSON. The file is whole or absent."""
    differences, tests = comparison.differences, comparison.tests
    macro, per_label = _macro(differences), _labels(differences, None)
    for metric in METRICS:
        # The means are one test each: there is nothing to adjust for.
        macro[metric] |= {"p": tests.p_macro[metric]}
        for entry in per_label:
            p, p_holm = tests.of(metric, entry["label"])
            entry[metric] |= {"p": p, "p_holm": p_holm}
    content = {
        "format_version": FORMAT_VERSION,
        "first": comparison.first.name,
        "second": comparison.second.name,
        "difference": "second minus first, of the same patients",
        "test": {
            "method": "permutation within patients, of ranks (roc_auc, average_precision) and probabilities (brier)",
            "num_permutations": tests.num_permutations,
            "adjustment": "Holm, over the labels of a metric",
            "significant_below": SIGNIFICANT,
        },
        "macro": macro,
        "per_label": per_label,
        "caveats_of_first": _caveats(comparison.caveats_of_first),
    }
    write_json(file, content)


def list_estimates(evaluation: Evaluation) -> Iterator[Row]:
    """Every number that has an interval or should have one, but those of lines."""
    parts = (
        ("label", evaluation.scores, evaluation.points),
        ("device", evaluation.presence_scores, evaluation.presence_points),
    )
    for of, scores, points in parts:
        for label, point in zip(scores.labels, points, strict=True):
            for metric in METRICS:
                yield _row(of, label, metric, scores.estimate(metric, label))
            for metric, estimate in _estimates(point, RATES).items():
                yield _row(of, label, metric, estimate)
    for abstention in evaluation.abstentions:
        for metric, estimate in _estimates(abstention, DECIDED_RATES).items():
            yield _row("decided", abstention.label, metric, estimate)
    for of, recalibrations in (
        ("calibration", evaluation.recalibrations),
        ("calibration of calibrated", evaluation.recalibrations_of_calibrated),
    ):
        for recalibration in recalibrations:
            for metric, estimate in _estimates(recalibration, RECALIBRATION).items():
                yield _row(of, recalibration.label, metric, estimate)
    for metric in METRICS:
        yield _row("macro", "all images", metric, evaluation.scores.macro(metric))
    for number, fold in enumerate(evaluation.folds):
        for metric in METRICS:
            yield _row("macro of a fold", str(fold.fold), metric, evaluation.fold_macros(metric)[number])
    for group in evaluation.subgroups:
        for metric in METRICS:
            here, _, gap = group.macros(metric)
            yield _row("macro of a group", f"{group.column}: {group.value}", metric, here)
            if group.differences is not None:
                yield _row("macro of a group minus of the rest", f"{group.column}: {group.value}", metric, gap)
    for pointing in () if evaluation.explanations is None else evaluation.explanations.scores:
        for metric, estimate in pointing.estimates.items():
            yield _row(f"tips in the hottest part, {pointing.method}", pointing.device_type, metric, estimate)


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """The operating points for new images; labels that could not be judged are not among them.

    Attributes:
        rule: how they were chosen.
        labels: label -> the probability, uncalibrated, from which on it is predicted positive.
        device_types: device type -> likewise.
        outdated_device_types: those that have none, since an earlier version, which combined the labels by another
            rule, has chosen it.
        predictions_sha256: of the file of predictions on which they were chosen.
        calibration_sha256: of the `calibration.json` of the same evaluation; None where an earlier version, which did
            not write that, has written them.
        bands: label -> the probabilities, uncalibrated, at which it is deferred.
        abstain_error: share of each class that may be decided wrongly outside of the bands.
    """

    rule: str
    labels: Mapping[str, float]
    device_types: Mapping[str, float]
    outdated_device_types: tuple[str, ...] = ()
    predictions_sha256: str
    calibration_sha256: str | None
    bands: Mapping[str, Band]
    abstain_error: float


def read_thresholds(file: Path, exclusive: Sequence[Sequence[str]] = ()) -> Thresholds:
    """The operating points in a `metrics.json`.

    Raises:
        UserError: it is missing, damaged or of another version.
    """
    content = read_written_json(file, FORMAT_VERSION)
    try:
        labels, device_types = (
            {
                str(entry["label"]): float(entry["operating_point"]["threshold"])
                for entry in content[part]
                if entry["operating_point"]["threshold"] is not None
            }
            for part in ("per_label", "per_device")
        )
        bands = {
            str(entry["label"]): Band(
                low=-math.inf if entry["low"] is None else float(entry["low"]),
                high=math.inf if entry["high"] is None else float(entry["high"]),
            )
            for entry in content["abstention"]["per_label"]
        }
        outdated_device_types: tuple[str, ...] = ()
        if content.get("presence_rule") != presence_rule(exclusive):
            device_types, outdated_device_types = {}, tuple(device_types)
        of_calibration = content["calibration"].get("sha256")
        return Thresholds(
            rule=str(content["operating_point_rule"]),
            labels=labels,
            device_types=device_types,
            outdated_device_types=outdated_device_types,
            predictions_sha256=str(content["predictions_sha256"]),
            calibration_sha256=None if of_calibration is None else str(of_calibration),
            bands=bands,
            abstain_error=float(content["abstention"]["error_rate"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        raise UserError(f"{file}: damaged; run evaluate.py again") from None


def some_lack_intervals(evaluation: Evaluation) -> bool:
    """Whether a number that the tables show lacks an interval that such a number has; of groups they show the ROC AUC
    alone."""
    return any(
        not math.isnan(value) and math.isnan(low) and (not of.startswith("macro of a group") or metric == "roc_auc")
        for of, _, metric, value, low, _ in list_estimates(evaluation)
    )


def _row(of: str, name: str, metric: str, estimate: Estimate) -> Row:
    return of, name, metric, estimate.value, estimate.low, estimate.high


def _caveats(caveats: Sequence[Caveat]) -> list[dict[str, str]]:
    return [{"kind": caveat.kind, "text": caveat.text} for caveat in caveats]


def _read_again(evaluation: Evaluation, shared: SharedCases | None) -> dict[str, Any]:
    labels = evaluation.evaluated.labels
    content: dict[str, Any] = {
        "num_cases": len(evaluation.read_again),
        "per_label": {label: sum(case.label == label for case in evaluation.read_again) for label in labels},
        "models": None,
    }
    if shared is not None:
        counts = {label: shared.count(label) for label in labels} | {"all labels": shared.count()}
        content["models"] = {
            "names": list(shared.names),
            "num_named": {
                name: {"by_each": by_each, "by_all": by_all, "by_any": by_any}
                for name, (by_each, by_all, by_any) in counts.items()
            },
        }
    return content


def _counts(scores: Scores) -> dict[str, int]:
    return {"num_images": scores.num_images, "num_patients": scores.num_patients}


def _macro(scores: Scores) -> dict[str, Any]:
    return {metric: _interval(scores.macro(metric)) for metric in METRICS}


def _labels(scores: Scores, points: Sequence[OperatingPoint] | None) -> list[dict[str, Any]]:
    return [
        {
            "label": label,
            "num_known": scores.num_known[k],
            "num_positives": scores.num_positives[k],
            "num_positive_patients": scores.num_positive_patients[k],
            **{metric: _interval(scores.estimate(metric, label)) for metric in METRICS},
            **({} if points is None else {"operating_point": _point(points[k])}),
        }
        for k, label in enumerate(scores.labels)
    ]


def _point(point: OperatingPoint) -> dict[str, Any]:
    return {
        "threshold": point.threshold,
        "fold_thresholds": {str(fold): threshold for fold, threshold in point.fold_thresholds.items()},
        "confusion": dict(
            zip(("true_positive", "false_positive", "false_negative", "true_negative"), point.confusion, strict=True)
        ),
        **{name: _interval(estimate) for name, estimate in _estimates(point, RATES).items()},
        "prevalence": point.prevalence,
        "prevalence_is_restated": point.is_restated,
    }


def _abstention(abstention: Abstention) -> dict[str, Any]:
    edges = {"low": abstention.band.low, "high": abstention.band.high}
    return {
        "label": abstention.label,
        **{name: edge if math.isfinite(edge) else None for name, edge in edges.items()},
        **{name: _interval(estimate) for name, estimate in _estimates(abstention, DECIDED_RATES).items()},
    }


def _recalibrations(recalibrations: Sequence[Recalibration]) -> list[dict[str, Any]]:
    return [
        {
            "label": recalibration.label,
            **{name: _interval(estimate) for name, estimate in _estimates(recalibration, RECALIBRATION).items()},
        }
        for recalibration in recalibrations
    ]


def _estimates(of: OperatingPoint | Abstention | Recalibration, names: Sequence[str]) -> dict[str, Estimate]:
    """Its attributes of these names."""
    return {name: getattr(of, name) for name in names}


def _interval(estimate: Estimate) -> dict[str, float | bool]:
    return dataclasses.asdict(estimate)
