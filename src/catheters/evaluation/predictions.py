"""`predictions.csv`: the one file by which predictions travel, ours and anybody's.

Columns: the image id, `patient` and `fold` where known, one probability a label, named as the labels are.
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import expit

from catheters.csv_files import TableError, check_columns, check_ids, read_csv
from catheters.files import write_whole
from catheters.settings import PREDICTION_COLUMNS


def write_predictions(
    file: Path,
    uid_column: str,
    uids: npt.NDArray[np.str_],
    patient_ids: npt.NDArray[np.str_],
    folds: npt.NDArray[np.integer] | None,
    probabilities: npt.NDArray[np.floating],
    label_columns: tuple[str, ...],
) -> None:
    """Write predictions; the file is whole or absent.

    Args:
        file: the CSV.
        uid_column: name of the id column.
        uids: (N,) image ids.
        patient_ids: (N,) patients.
        folds: (N,) fold whose model, which had not seen the image, predicted it; None where that is not known.
        probabilities: (N, K) in 0..1.
        label_columns: (K,) names.
    """
    frame = pd.DataFrame({uid_column: uids, "patient": patient_ids})
    if folds is not None:
        frame["fold"] = folds
    frame[list(label_columns)] = probabilities
    write_whole(file, lambda part: frame.to_csv(part, index=False))


def read_predictions(
    file: Path, uid_column: str | None = None, *, are_logits: bool = False
) -> tuple[str, pd.DataFrame, tuple[str, ...]]:
    """Read a file of predictions.

    Args:
        file: a CSV.
        uid_column: name of the id column; None: the first column.
        are_logits: the columns hold logits, whose sigmoids are the probabilities.

    Returns:
        The id column's name; the table, ids as text and probabilities as float64; the label columns.

    Raises:
        UserError: not a CSV, no label columns, an id that is empty or stands twice, or a value outside 0..1.
    """
    frame = read_csv(file)
    uid_column = uid_column or str(frame.columns[0])
    check_columns(frame, (uid_column,), file)
    check_ids(frame, uid_column, file)
    labels = tuple(column for column in frame.columns if column not in (uid_column, *PREDICTION_COLUMNS))
    if not labels:
        raise TableError(f"{file}: no column of probabilities beside {', '.join(frame.columns)}")
    for label in labels:
        values = pd.to_numeric(frame[label], errors="coerce")
        wrong = ~(np.isfinite(values) if are_logits else values.between(0.0, 1.0))  # NaN is not between either
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            expected, hint = "a logit" if are_logits else "a probability in 0..1", ""
            if not are_logits and np.isfinite(values).all():
                hint = "; are they logits? then say --logits"
            raise TableError(
                f"{file}: id {frame[uid_column].iloc[row]}, column '{label}': {frame[label].iloc[row]!r} is not "
                f"{expected}; every column but {', '.join((uid_column, *PREDICTION_COLUMNS))} is a label's{hint}"
            )
        frame[label] = expit(values) if are_logits else values
    return uid_column, frame, labels
