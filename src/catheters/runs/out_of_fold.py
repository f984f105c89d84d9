"""Out-of-fold predictions of a run: each fold's, and all finished folds' together."""

import numpy as np
import numpy.typing as npt
import pandas as pd

from catheters.checkpoints.finished import (
    LINES_FILE,
    MEASUREMENTS_FILE,
    check_finished,
    finished_folds,
    forget_finished,
    remedy,
    write_finished,
)
from catheters.config.settings import Settings
from catheters.errors import UserError, counted
from catheters.evaluation.metrics import macro_mean, metrics_table, one_class_warnings, score_labels
from catheters.evaluation.predictions import read_predictions, write_predictions
from catheters.io.csv_files import TableError, check_columns
from catheters.runs.out_of_fold_lines import join_lines
from catheters.runs.run_data import RunData
from catheters.runtime.console import say, warn


def write_fold(settings: Settings, data: RunData, fold: int, probabilities: npt.NDArray[np.float32]) -> None:
    """Write a fold's `predictions.csv`; `probabilities` is (n, K), in the order of the fold's images."""
    _write(settings, data, data.folds == fold, probabilities, f"fold{fold}/predictions.csv")


def join_folds(settings: Settings, data: RunData) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float32]]:
    """Write the run's `predictions.csv`, of all folds finished so far.

    Returns:
        (N,) which images are predicted; (n, K) their probabilities.

    Raises:
        UserError: a fold's predictions are not what was written.
    """
    frames = []
    files = [folder / "predictions.csv" for folder in finished_folds(settings.run_folder)]
    for file in files:
        check_finished(file.parent, names=(file.name,))
        try:
            _, frame, _ = read_predictions(file, settings.uid_column)
            check_columns(frame, settings.label_columns, file)
        except TableError as error:
            raise UserError(f"{error}; the file is damaged: {remedy(file.parent)}") from None
        frames.append(frame.set_index(settings.uid_column)[list(settings.label_columns)])
    predictions = pd.concat(frames)
    is_predicted = pd.Index(data.uids).isin(predictions.index)  # numpy's own goes through all pairs of texts
    probabilities = predictions.loc[data.uids[is_predicted].tolist()].to_numpy(dtype=np.float32)
    forget_finished(settings.run_folder)
    _write(settings, data, is_predicted, probabilities, "predictions.csv")
    # Those of the folds too: `is_joined` asks whether they are still the same.
    of_lines = join_lines([file.parent for file in files], settings.run_folder)
    joined = [file.relative_to(settings.run_folder).as_posix() for file in (*files, *of_lines)]
    write_finished(settings.run_folder, ("predictions.csv", LINES_FILE, MEASUREMENTS_FILE, *joined))
    return is_predicted, probabilities


def print_scores(
    settings: Settings, data: RunData, is_predicted: npt.NDArray[np.bool_], probabilities: npt.NDArray[np.float32]
) -> None:
    """Print a table of the out-of-fold predictions of all finished folds, as one set."""
    metrics = score_labels(data.labels[is_predicted], probabilities, settings.label_columns)
    for warning in one_class_warnings(metrics):
        warn(warning)
    num_finished = len(np.unique(data.folds[is_predicted]))
    folds = f"{num_finished} of {counted(settings.num_folds, 'fold')}"
    say(f"\nout-of-fold predictions of {counted(len(probabilities), 'image')}, {folds}")
    say(metrics_table(metrics))
    macro_auc = macro_mean([metric.roc_auc for metric in metrics])
    say(f"macro AUC {macro_auc:.4f} -> {settings.run_folder / 'predictions.csv'}")


def _write(
    settings: Settings,
    data: RunData,
    is_chosen: npt.NDArray[np.bool_],
    probabilities: npt.NDArray[np.float32],
    name: str,
) -> None:
    """Write the predictions of the chosen images, (N,), to a file of the run folder."""
    write_predictions(
        settings.run_folder / name,
        settings.uid_column,
        data.uids[is_chosen],
        data.patient_ids[is_chosen],
        data.folds[is_chosen],
        probabilities,
        settings.label_columns,
    )
