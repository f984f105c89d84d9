"""`predictions.csv`: the one file by which predictions travel, ours and anybody's.

Columns: the image id, `patient` and `fold` where known, one probability per label, named as the labels are. predict.py
adds `quality_flags` about an image, and the `reason` why one has no probabilities.
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import expit

from catheters.config.settings import PREDICTION_COLUMNS
from catheters.errors import counted, listed
from catheters.evaluation.caveats import Caveat
from catheters.io.csv_files import TableError, check_columns, check_ids, read_csv
from catheters.io.files import write_whole
from catheters.runtime.console import warn

FLAGS_OF_0_2 = "doubts"
"""Name of the column `quality_flags` in files that version 0.2.0 wrote."""


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
    columns: dict[str, object] = {uid_column: uids, "patient": patient_ids}
    if folds is not None:
        columns["fold"] = folds
    columns |= dict(zip(label_columns, probabilities.T, strict=True))
    frame = pd.DataFrame(columns)
    write_whole(file, lambda part: frame.to_csv(part, index=False))


def read_predictions(
    file: Path, uid_column: str | None = None, *, are_logits: bool = False, caveats: list[Caveat] | None = None
) -> tuple[str, pd.DataFrame, tuple[str, ...]]:
    """Read a file of predictions.

    Args:
        file: a CSV.
        uid_column: name of the id column; None: the first column.
        are_logits: the columns hold logits, whose sigmoids are the probabilities.
        caveats: takes what has to be known of the predictions; None: that is warned of.

    Images that could not be predicted are left out, with a caveat.

    Returns:
        The id column's name; the table, ids as text and probabilities as float64; the label columns.

    Raises:
        UserError: not a CSV, a column without a name, no label columns, an id that is empty or stands twice, or a value
            outside 0..1.
    """
    frame = read_csv(file)
    if "" in frame:
        raise TableError(
            f"{file}: column {frame.columns.tolist().index('') + 1} of {len(frame.columns)} has no name; if it holds "
            "pandas' row numbers, write the file with index=False"
        )
    uid_column = uid_column or str(frame.columns[0])
    check_columns(frame, (uid_column,), file)
    check_ids(frame, uid_column, file)
    others = (uid_column, *PREDICTION_COLUMNS, FLAGS_OF_0_2)
    labels = tuple(column for column in frame.columns if column not in others)
    if not labels:
        raise TableError(f"{file}: no column of probabilities beside {listed(frame.columns)}")
    frame, found = _leave_out_unpredicted(frame, file)
    values = frame[list(labels)].apply(pd.to_numeric, errors="coerce")
    is_probability = (values >= 0) & (values <= 1)  # NaN is neither
    is_right = np.isfinite(values) if are_logits else is_probability
    if not is_right.all(axis=None):
        column, row = np.argwhere(~is_right.to_numpy().T)[0]
        found = frame[labels[column]].iloc[row]
        expected = "a logit" if are_logits else "a probability in 0..1"
        raise TableError(
            f"{file}: id {frame[uid_column].iloc[row]}, column '{labels[column]}': "
            f"{repr(found) if found.strip() else 'nothing'} is not {expected}; every column but "
            f"{', '.join((uid_column, *PREDICTION_COLUMNS))} is a label's"
            f"{_guess_scale(values.to_numpy())}"
        )
    if are_logits and is_probability.all(axis=None):
        text = (
            f"{file}: every value lies in 0..1, as probabilities do; they are taken for logits, since --logits says so"
        )
        found.append(Caveat(kind="taken_for_logits", text=text))
    if caveats is None:
        for caveat in found:
            warn(caveat.text)
    else:
        caveats += found
    frame[list(labels)] = expit(values) if are_logits else values
    return uid_column, frame, labels


def _leave_out_unpredicted(frame: pd.DataFrame, file: Path) -> tuple[pd.DataFrame, list[Caveat]]:
    if "reason" not in frame:
        return frame, []
    has_reason = (frame["reason"].str.strip() != "").to_numpy()
    if has_reason.all():
        raise TableError(f"{file}: none of its images could be predicted; the first: {frame['reason'].iloc[0]}")
    if not has_reason.any():
        return frame, []
    text = f"{file}: {has_reason.sum()} of {counted(len(frame), 'image')} could not be predicted and are left out"
    return frame[~has_reason].reset_index(drop=True), [Caveat(kind="left_out_images", text=text)]


def _guess_scale(values: npt.NDArray[np.float64]) -> str:
    """What (n, K) numbers that are no probabilities may be instead."""
    if not np.isfinite(values).all():
        return ""
    if values.min() < 0:
        return "; are they logits? then say --logits"
    is_beyond_rounding = values.max(axis=0) > 2
    return "; are they in per cent? then divide them by 100" if is_beyond_rounding.all() else ""
