"""The run's own out-of-fold numbers, as its evaluation has written them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from catheters.errors import UserError
from catheters.evaluation.external.measures import Numbers
from catheters.evaluation.intervals import Estimate
from catheters.evaluation.results import FORMAT_VERSION, RATES, RECALIBRATION
from catheters.io.files import read_written_json


def read_own_numbers(metrics: Path) -> dict[str, Numbers]:
    """Label -> name of the measure -> the run's own number, out of fold, calibrated by the method that it keeps.

    PPV and NPV that were restated for another prevalence are left out, and so is the Brier score, which is there of the
    probabilities before calibration, where a calibration is kept.

    Args:
        metrics: a `metrics.json`.

    Raises:
        UserError: it is missing, damaged or of another version.
    """
    content = read_written_json(metrics, FORMAT_VERSION)
    try:
        return _own_numbers(content)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise UserError(f"{metrics}: damaged; run evaluate.py again") from None


def read_own_macro_auc(metrics: Path) -> Estimate:
    """The mean ROC AUC over the run's labels.

    Raises:
        UserError: as `read_own_numbers`.
    """
    try:
        return _estimate(read_written_json(metrics, FORMAT_VERSION)["macro"]["roc_auc"])
    except (KeyError, TypeError, ValueError):
        raise UserError(f"{metrics}: damaged; run evaluate.py again") from None


def read_own_counts(metrics: Path) -> tuple[int, list[tuple[str, int, int]]]:
    """The images of the evaluation; of each label its name, and how many of them are known and positive.

    Raises:
        UserError: as `read_own_numbers`.
    """
    content = read_written_json(metrics, FORMAT_VERSION)
    try:
        per_label = [(str(of["label"]), int(of["num_known"]), int(of["num_positives"])) for of in content["per_label"]]
        return int(content["num_images"]), per_label
    except (KeyError, TypeError, ValueError):
        raise UserError(f"{metrics}: damaged; run evaluate.py again") from None


def read_fold_thresholds(metrics: Path) -> dict[str, dict[int, float]]:
    """Label -> fold -> the threshold, for probabilities before calibration, by which its own numbers were judged.

    Raises:
        UserError: as `read_own_numbers`.
    """
    try:
        return {
            str(entry["label"]): {
                int(fold): float(value) for fold, value in entry["operating_point"]["fold_thresholds"].items()
            }
            for entry in read_written_json(metrics, FORMAT_VERSION)["per_label"]
            if entry["operating_point"]["threshold"] is not None
        }
    except (KeyError, TypeError, ValueError, AttributeError):
        raise UserError(f"{metrics}: damaged; run evaluate.py again") from None


def _own_numbers(content: Mapping[str, Any]) -> dict[str, Numbers]:
    calibration = content["calibration"]
    calibrated = {str(entry["label"]): entry for entry in calibration["per_label_of_calibrated"]}
    found: dict[str, Numbers] = {}
    for entry in content["per_label"]:
        label, point = str(entry["label"]), entry["operating_point"]
        scores = ["roc_auc", "average_precision", *(["brier"] if calibration["chosen"] == "none" else [])]
        rates = RATES[:2] if point["prevalence_is_restated"] else RATES
        found[label] = {
            **{name: _estimate(entry[name]) for name in scores},
            **{name: _estimate(point[name]) for name in rates},
            **{name: _estimate(calibrated[label][name]) for name in RECALIBRATION},
        }
    return found


def _estimate(fields: Mapping[str, Any]) -> Estimate:
    value, low, high = (
        float("nan") if fields[name] is None else float(fields[name]) for name in ("value", "low", "high")
    )
    return Estimate(value=value, low=low, high=high, few_patients=bool(fields["few_patients"]))
