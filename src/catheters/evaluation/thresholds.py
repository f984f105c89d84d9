"""What other commands read of an evaluation's `metrics.json`: operating points and bands."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from catheters.errors import UserError
from catheters.evaluation.prediction_set import presence_rule
from catheters.evaluation.results import FORMAT_VERSION
from catheters.evaluation.selective_prediction import Band
from catheters.io.files import read_written_json


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
