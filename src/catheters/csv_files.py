"""CSV files from elsewhere, read without guessing and checked before anything is built on them."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from catheters.errors import UserError
from catheters.settings import unknown_name


class TableError(UserError):
    """A table that is missing, or whose content cannot be trusted."""


def read_csv(file: Path) -> pd.DataFrame:
    """A CSV (also gzipped) as text, untouched: no guessed types, so ids keep their leading zeros.

    Raises:
        TableError: no such file, not a CSV, or no rows.
    """
    if not file.is_file():
        raise TableError(f"{file}: no such file; a CSV with a header line is expected")
    try:
        frame = pd.read_csv(file, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError, OSError) as error:
        raise TableError(f"{file}: not a readable CSV ({str(error).strip()})") from None
    if frame.empty:
        raise TableError(f"{file}: no rows; a CSV with a header line and one row an image is expected")
    return frame


def check_columns(frame: pd.DataFrame, columns: tuple[str, ...], file: Path) -> None:
    """Raise a TableError that names the first of `columns` that the table lacks."""
    for column in columns:
        if column not in frame:
            raise TableError(f"{file}: {unknown_name(column, 'a column', frame.columns)}")


def check_ids(frame: pd.DataFrame, uid_column: str, file: Path) -> None:
    """Raise a TableError where an id is empty or stands twice."""
    check_filled(frame, uid_column, file)
    repeated = frame[uid_column].duplicated()
    if repeated.any():
        row = int(np.flatnonzero(repeated)[0])
        raise TableError(
            f"{file}: {int(repeated.sum())} duplicate ids in column {uid_column}; the first is "
            f"{frame[uid_column].iloc[row]} in line {_line(row)}"
        )


def binary_labels(frame: pd.DataFrame, label_columns: tuple[str, ...], file: Path) -> npt.NDArray[np.uint8]:
    """The label columns as (N, K) uint8.

    Raises:
        TableError: a value is not 0 or 1.
    """
    labels = np.empty((len(frame), len(label_columns)), dtype=np.uint8)
    for k, column in enumerate(label_columns):
        values = pd.to_numeric(frame[column], errors="coerce").to_numpy(dtype=np.float64)
        wrong = ~np.isin(values, (0.0, 1.0))
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            raise TableError(f"{file}: line {_line(row)}, column '{column}': {frame[column].iloc[row]!r} is not 0 or 1")
        labels[:, k] = values
    return labels


def check_filled(frame: pd.DataFrame, column: str, file: Path) -> None:
    """Raise a TableError where the column is empty."""
    empty = (frame[column].str.strip() == "").to_numpy()
    if empty.any():
        raise TableError(f"{file}: column '{column}' is empty in line {_line(int(np.flatnonzero(empty)[0]))}")


def _line(row: int) -> int:
    """Line of the file, counted from 1, of a row counted from 0: the header is line 1."""
    return row + 2
