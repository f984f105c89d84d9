"""`evaluate.py`: predictions and labels to metrics."""

import argparse
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
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
from catheters.run_record import describe_environment_in_words, read_record
from catheters.settings_file import changed_settings, settings_from_json

DESCRIPTION = """\
Score predictions against labels: ROC AUC and average precision of every label, and their means.

  python evaluate.py saved_models/config                             a run, against its own label table
  python evaluate.py saved_models/config saved_models/multi_config   several runs, side by side as well
  python evaluate.py --predictions FILE.csv --labels FILE.csv        any program's predictions
"""


@dataclass(frozen=True, kw_only=True)
class Predicted:
    """Predictions with the true labels of their images.

    Attributes:
        file: where the predictions come from.
        labels: (K,) names.
        uids: (n,) image ids.
        probabilities: (n, K).
        targets: the label table.
        matched: (n, K) the true labels of these images.
    """

    file: Path
    labels: tuple[str, ...]
    uids: list[str]
    probabilities: npt.NDArray[np.float64]
    targets: Targets
    matched: npt.NDArray[np.uint8]


def main(arguments: list[str]) -> int:
    """Print a table of metrics and write `metrics.json` for each run or file. Returns the exit status."""
    options = _parse(arguments)
    if options.out is not None and (options.out.is_dir() or not options.out.parent.is_dir()):
        raise UserError(f"{options.out}: a file in a folder that exists is expected for the metrics")
    if options.predictions is not None:
        _evaluate(_read_files(options.predictions, options.id_column, options.labels), options.out)
        return 0
    runs = {str(run): _read_run(run, options) for run in options.runs}  # all of them, before anything is written
    metrics = {}
    for name, predicted in runs.items():
        metrics[name] = _evaluate(predicted, options.out)
        _describe_run(Path(name))
    if len(runs) > 1:
        print(f"\n{comparison_table(metrics)}")
        images = [
            {(uid, *row) for uid, row in zip(predicted.uids, predicted.matched.tolist(), strict=True)}
            for predicted in runs.values()
        ]
        if any(of_run != images[0] for of_run in images):
            print("warning: the runs predicted other images or labels, their scores do not compare", file=sys.stderr)
    return 0


def _read_run(run: Path, options: argparse.Namespace) -> Predicted:
    settings_file = run / "settings.json"
    if not settings_file.is_file():
        raise UserError(f"{run}: no run folder (it has no settings.json); give one that train.py wrote")
    settings = settings_from_json(settings_file.read_text(encoding="utf-8"), str(settings_file))
    if settings.all_data:
        raise UserError(f"{run}: was trained on all data, so it has no predictions of images that it had not seen")
    file = run / "predictions.csv"
    if not file.is_file():
        raise UserError(f"{file}: no such file; no fold of this run is finished: run train.py")
    if options.labels is not None:
        return _read_files(file, options.id_column, options.labels)
    uid_column, predictions, _ = read_predictions(file, settings.uid_column)
    table = read_label_table(settings)
    check_columns(predictions, table.label_columns, file)
    source = str(Path(settings.dataset_folder) / settings.label_table)
    targets = Targets(source=source, uids=table.uids, labels=table.labels)
    return _match(file, uid_column, predictions, table.label_columns, targets)


def _describe_run(run: Path) -> None:
    """Print what the run was trained with: settings, data, versions, commit, command, hardware."""
    try:
        fingerprint, environments = read_record(run)
    except UserError as error:
        print(f"warning: {error}: what it was trained with is not known", file=sys.stderr)
        return
    settings = settings_from_json((run / "settings.json").read_text(encoding="utf-8"), str(run / "settings.json"))
    print(f"\n{run}, as its folder records it\n{_indent(f'data fingerprint: {fingerprint}')}")
    for number, environment in enumerate(environments):
        if number:
            print("  and went on with")
        print(_indent(describe_environment_in_words(environment)))
    changed = ", ".join(f"{name}={value!r}" for name, value in changed_settings(settings).items())
    print(
        _indent(
            textwrap.fill(
                f"settings other than the defaults: {changed}", 116, subsequent_indent="  ", break_long_words=False
            )
        )
    )


def _indent(text: str) -> str:
    return textwrap.indent(text, "  ")


def _read_files(file: Path, id_column: str | None, labels_file: Path) -> Predicted:
    uid_column, predictions, labels = read_predictions(file, id_column)
    return _match(file, uid_column, predictions, labels, _read_targets(labels_file, uid_column, labels))


def _match(
    file: Path, uid_column: str, predictions: pd.DataFrame, labels: tuple[str, ...], targets: Targets
) -> Predicted:
    uids = predictions[uid_column].tolist()
    return Predicted(
        file=file,
        labels=labels,
        uids=uids,
        probabilities=predictions[list(labels)].to_numpy(dtype=np.float64),
        targets=targets,
        matched=match_targets(targets, uids, file),
    )


def _evaluate(predicted: Predicted, metrics_file: Path | None) -> list[LabelMetrics]:
    """Score predictions, print the table and write it, beside the predictions unless a file is given."""
    metrics_file = metrics_file or predicted.file.with_name("metrics.json")
    metrics = score_labels(predicted.matched, predicted.probabilities, predicted.labels)
    for warning in one_class_warnings(metrics):
        print(f"warning: {warning}", file=sys.stderr)
    targets = predicted.targets
    print(f"{predicted.file}: {len(predicted.uids)} of the {len(targets.uids)} images in {targets.source}")
    print(metrics_table(metrics))
    write_metrics(metrics_file, metrics, predicted.file, targets)
    print(f"macro AUC {macro_mean([metric.roc_auc for metric in metrics]):.4f} -> {metrics_file}")
    return metrics


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
