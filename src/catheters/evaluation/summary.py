"""Predictions against labels: rows matched by id, columns by name, results as a table and as `metrics.json`."""

import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from catheters.csv_files import TableError
from catheters.evaluation.metrics import LabelMetrics, macro_mean
from catheters.files import write_text


@dataclass(frozen=True, kw_only=True)
class Targets:
    """The true labels that predictions are held against.

    Attributes:
        source: where they come from, for messages.
        uids: (N,) image ids.
        labels: (N, K) 0/1.
    """

    source: str
    uids: npt.NDArray[np.str_]
    labels: npt.NDArray[np.uint8]


def match_targets(targets: Targets, prediction_uids: Sequence[str], predictions_file: Path) -> npt.NDArray[np.uint8]:
    """The true labels of the predicted images, (n, K), in the order of the predictions.

    The predictions may cover a part of the label table.

    Raises:
        TableError: a predicted image has no row in the label table.
    """
    row_of = {uid: row for row, uid in enumerate(targets.uids.tolist())}
    unknown = [uid for uid in prediction_uids if uid not in row_of]
    if unknown:
        raise TableError(
            f"{predictions_file}: {len(unknown)} of {len(prediction_uids)} ids have no row in {targets.source}, "
            f"{unknown[0]} for one; give the label table of these images with --labels"
        )
    return targets.labels[[row_of[uid] for uid in prediction_uids]]


def write_metrics(file: Path, metrics: Sequence[LabelMetrics], predictions_file: Path, targets: Targets) -> None:
    """Write `metrics.json`; what is undefined is null.

    Args:
        file: the JSON file.
        metrics: one entry a label.
        predictions_file: what was evaluated.
        targets: what it was held against.
    """
    content = {
        "predictions": str(predictions_file),
        "labels": targets.source,
        "num_images": metrics[0].num_images,
        "num_images_in_label_table": len(targets.uids),
        "macro_roc_auc": macro_mean([metric.roc_auc for metric in metrics]),
        "macro_average_precision": macro_mean([metric.average_precision for metric in metrics]),
        "per_label": [dataclasses.asdict(metric) for metric in metrics],
    }
    write_text(file, json.dumps(_null_for_nan(content), indent=2) + "\n")


def _null_for_nan(value: Any) -> Any:
    """JSON has no NaN."""
    if isinstance(value, dict):
        return {key: _null_for_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_null_for_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value
