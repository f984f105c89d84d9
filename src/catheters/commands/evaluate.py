"""`evaluate.py`: predictions and labels to metrics."""

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from catheters.csv_files import TableError, binary_labels, check_columns, check_ids, read_csv
from catheters.data.table import read_label_table
from catheters.errors import UserError, unknown_name
from catheters.evaluation.metrics import (
    LabelMetrics,
    comparison_table,
    macro_mean,
    metrics_table,
    one_class_warnings,
    score_labels,
)
from catheters.evaluation.predictions import read_predictions
from catheters.evaluation.summary import Targets, match_targets, write_metrics
from catheters.settings_file import settings_from_json

DESCRIPTION = """\
Score predictions against labels: ROC AUC and average precision of every label, and their means.

  python evaluate.py saved_models/config                             a run, against its own label table
  python evaluate.py saved_models/config saved_models/multi_config   several runs, side by side as well
  python evaluate.py --predictions FILE.csv --labels FILE.csv        any program's predictions
"""


def main(arguments: list[str]) -> int:
    """Print a table of metrics and write `metrics.json` for each run or file. Returns the exit status."""
    options = _parse(arguments)
    if options.out is not None and (options.out.is_dir() or not options.out.parent.is_dir()):
        raise UserError(f"{options.out}: a file in a folder that exists is expected for the metrics")
    if options.predictions is not None:
        uid_column, predictions, labels = read_predictions(options.predictions, options.id_column)
        targets = _read_targets(options.labels, uid_column, labels)
        _evaluate(options.predictions, predictions, uid_column, labels, targets, options.out)
        return 0
    evaluated = [_evaluate_run(run, options) for run in options.runs]
    if len(evaluated) > 1:
        metrics, images = zip(*evaluated, strict=True)
        print(f"\n{comparison_table(dict(zip(map(str, options.runs), metrics, strict=True)))}")
        if any(of_run != images[0] for of_run in images):
            print("warning: the runs predicted other images or labels, their scores do not compare", file=sys.stderr)
    return 0


def _evaluate_run(run: Path, options: argparse.Namespace) -> tuple[list[LabelMetrics], set[tuple[str, ...]]]:
    """The run's metrics, and its images: an id and the true labels of each."""
    settings_file = run / "settings.json"
    if not settings_file.is_file():
        raise UserError(f"{run}: no run folder (it has no settings.json); give one that train.py wrote")
    settings = settings_from_json(settings_file.read_text(encoding="utf-8"), str(settings_file))
    if settings.all_data:
        raise UserError(f"{run}: was trained on all data, so it has no predictions of images that it had not seen")
    predictions_file = run / "predictions.csv"
    if not predictions_file.is_file():
        raise UserError(f"{predictions_file}: no such file; no fold of this run is finished: run train.py")
    uid_column, predictions, labels = read_predictions(
        predictions_file, options.id_column if options.labels else settings.uid_column
    )
    if options.labels is not None:
        targets = _read_targets(options.labels, uid_column, labels)
    else:
        table = read_label_table(settings)
        labels = table.label_columns
        check_columns(predictions, labels, predictions_file)
        source = str(Path(settings.dataset_folder) / settings.label_table)
        targets = Targets(source=source, uids=table.uids, labels=table.labels)
    return _evaluate(predictions_file, predictions, uid_column, labels, targets, options.out)


def _evaluate(
    predictions_file: Path,
    predictions: pd.DataFrame,
    uid_column: str,
    labels: tuple[str, ...],
    targets: Targets,
    metrics_file: Path | None,
) -> tuple[list[LabelMetrics], set[tuple[str, ...]]]:
    """Score one set of predictions, print it and write it, beside the predictions unless a file is given."""
    metrics_file = metrics_file or predictions_file.with_name("metrics.json")
    probabilities = predictions[list(labels)].to_numpy(dtype=np.float64)
    matched = match_targets(targets, predictions[uid_column].tolist(), predictions_file)
    metrics = score_labels(matched, probabilities, labels)
    for warning in one_class_warnings(metrics):
        print(f"warning: {warning}", file=sys.stderr)
    print(f"{predictions_file}: {len(matched)} of the {len(targets.uids)} images in {targets.source}")
    print(metrics_table(metrics))
    write_metrics(metrics_file, metrics, predictions_file, targets)
    print(f"macro AUC {macro_mean([metric.roc_auc for metric in metrics]):.4f} -> {metrics_file}")
    images = {(uid, *map(str, row)) for uid, row in zip(predictions[uid_column], matched.tolist(), strict=True)}
    return metrics, images


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "runs",
        nargs="*",
        type=Path,
        metavar="RUN",
        help="run folders, for example saved_models/config; several are compared",
    )
    parser.add_argument(
        "--predictions", type=Path, metavar="FILE", help="CSV: id column, one probability column a label"
    )
    parser.add_argument(
        "--labels", type=Path, metavar="FILE", help="CSV: the same id column, 0/1 columns of these names"
    )
    parser.add_argument("--id-column", metavar="NAME", help="id column of both files (default: the predictions' first)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="default: metrics.json beside the predictions")
    options = parser.parse_args(arguments)
    if not options.runs and (options.predictions is None or options.labels is None):
        parser.error("give run folders, or both --predictions and --labels")
    if options.runs and options.predictions is not None:
        parser.error("give run folders or --predictions, not both")
    if len(options.runs) > 1 and options.out is not None:
        parser.error("--out is one file, and each of several runs has its own")
    if options.id_column is not None and options.labels is None:
        parser.error("--id-column goes with --labels; a run knows its own")
    return options


def _read_targets(file: Path, uid_column: str, labels: tuple[str, ...]) -> Targets:
    frame = read_csv(file)
    check_columns(frame, (uid_column,), file)
    unknown = [label for label in labels if label not in frame]
    if unknown:
        raise TableError(f"{file}: the predictions' {unknown_name(unknown[0], 'a column of it', frame.columns)}")
    check_ids(frame, uid_column, file)
    return Targets(
        source=str(file), uids=frame[uid_column].to_numpy(dtype=np.str_), labels=binary_labels(frame, labels, file)
    )
