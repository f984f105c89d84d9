"""CSV files from elsewhere, read without guessing and checked before anything is built on them."""

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from catheters.errors import UserError, one_line, unknown_name
from catheters.setting_checks import number_in


class TableError(UserError):
    """A table that is missing, or whose content cannot be trusted."""


def read_csv(file: Path) -> pd.DataFrame:
    """A CSV (also gzipped) as text: no guessed types, so ids keep their leading zeros.

    Raises:
        TableError: no such file, not a CSV, or no rows.
    """
    if not file.is_file():
        what = "is a folder" if file.is_dir() else "no such file"
        raise TableError(f"{file}: {what}; a CSV with a header line is expected")
    try:
        header = _read_rows(file, 1).iloc[0].tolist()
        if len(header) == 1 and any(separator in header[0] for separator in ";\t"):
            raise TableError(f"{file}: its columns are not separated by commas: {header[0]!r}")
        rows = _read_rows(file, None)
    except UnicodeDecodeError:
        raise TableError(f"{file}: is not UTF-8 text; save it as CSV in UTF-8") from None
    except pd.errors.EmptyDataError:
        raise TableError(f"{file}: is empty; a CSV with a header line is expected") from None
    except (ValueError, OSError, EOFError, zlib.error, zipfile.BadZipFile) as error:  # pandas' own are ValueErrors
        raise TableError(f"{file}: not a readable CSV ({one_line(error)})") from None
    repeated = sorted({str(name) for name in header if header.count(name) > 1})
    if repeated:
        raise TableError(f"{file}: column '{repeated[0]}' stands twice in the header")
    frame = rows.iloc[1:].reset_index(drop=True).set_axis(header, axis=1)
    if frame.empty:
        raise TableError(f"{file}: no rows; a CSV with a header line and one row an image is expected")
    return frame


def _read_rows(file: Path, num_rows: int | None) -> pd.DataFrame:
    """The first rows or all of them, the header as a row like the others.

    pandas itself would rename repeated columns, and take a first column for row names where the rows are longer.
    """
    return pd.read_csv(file, header=None, nrows=num_rows, dtype=str, na_filter=False, encoding="utf-8-sig")


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
            f"{frame[uid_column].iloc[row]} in line {line_number(frame, row)}"
        )


def binary_labels(
    frame: pd.DataFrame, label_columns: tuple[str, ...], file: Path, label_values: Mapping[str, int] | None = None
) -> npt.NDArray[np.uint8]:
    """The label columns as (N, K) uint8.

    Args:
        frame: the table.
        label_columns: (K,) its columns to read.
        file: where the table comes from, for the message.
        label_values: the setting of that name; None where there are no settings to speak of.

    Raises:
        TableError: a value is neither 0 nor 1, nor one of `label_values`.
    """
    labels = np.empty((len(frame), len(label_columns)), dtype=np.uint8)
    for k, column in enumerate(label_columns):
        numbers = pd.to_numeric(frame[column], errors="coerce").to_numpy(dtype=np.float64)
        values = numbers.copy()
        for value, label in (label_values or {}).items():
            number = number_in(value)
            holds_text = (frame[column].str.strip() == value.strip()).to_numpy()
            values[holds_text if number is None else holds_text | (numbers == number)] = label
        wrong = ~np.isin(values, (0.0, 1.0))
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            found = frame[column].iloc[row]
            hint = "" if label_values is None else f"; label_values can say what it means, as in {{{found!r}: 0}}"
            raise TableError(
                f"{file}: line {line_number(frame, row)}, column '{column}': {found!r} is not 0 or 1{hint}"
            )
        labels[:, k] = values
    return labels


def check_filled(frame: pd.DataFrame, column: str, file: Path) -> None:
    """Raise a TableError where the column is empty."""
    empty = (frame[column].str.strip() == "").to_numpy()
    if empty.any():
        raise TableError(
            f"{file}: column '{column}' is empty in line {line_number(frame, int(np.flatnonzero(empty)[0]))}"
        )


def line_number(frame: pd.DataFrame, row: int) -> int:
    """Line of the file, counted from 1 (the header), of the row at a position, counted from 0.

    Rows may have been left out since the file was read: the index still counts all of them.
    """
    return int(frame.index[row]) + 2
