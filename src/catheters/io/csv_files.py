"""CSV files from elsewhere, read without guessing and checked before anything is built on them.

`read_csv` strips blanks from column names and cells, once for all; `holds` is the one comparison of a cell with a value
that a setting names.
"""

import csv
import gzip
import math
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from decimal import Decimal
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from catheters.errors import UserError, one_line, unknown_name
from catheters.io.near_misses import number_in
from catheters.labels import UNKNOWN, LabelValue
from catheters.runtime.console import warn

LARGEST_EXACT = 2**53
"""Below it every whole number is a float64 of its own."""


VALUES_SOUGHT, VALUES_PROPOSED = 1000, 8
"""Cells of a label column that are looked at for values that are not understood; different ones that are named."""
MAX_SHOWN = 60
"""Characters of a broken value that its message quotes."""


class TableError(UserError):
    """A table that is missing, or whose content cannot be trusted."""


def read_csv(file: Path, *, may_be_empty: bool = False, row_is_of: str = "image") -> pd.DataFrame:
    """A CSV (also gzipped) as text: no guessed types, so ids keep their leading zeros.

    Blanks around column names and values are no part of them. The index counts the file's rows from 0: rows that are
    left out later keep their number, and with it their line.

    Args:
        file: the CSV.
        may_be_empty: whether a header without rows is a table.
        row_is_of: what has a row each, for the message.

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
    header = [name.strip() for name in header]
    repeated = sorted({str(name) for name in header if header.count(name) > 1})
    if repeated:
        raise TableError(f"{file}: column '{repeated[0]}' stands twice in the header")
    cells = rows.iloc[1:].reset_index(drop=True).set_axis(header, axis=1)
    frame: pd.DataFrame = cells.apply(lambda column: column.str.strip())
    if frame.empty and not may_be_empty:
        raise TableError(f"{file}: no rows; a CSV with a header line and one row per {row_is_of} is expected")
    return frame


def _read_rows(file: Path, num_rows: int | None) -> pd.DataFrame:
    """The first rows or all of them, the header as a row like the others.

    pandas itself would rename repeated columns, and take a first column for row names where the rows are longer.
    """
    return pd.read_csv(file, header=None, nrows=num_rows, dtype=str, na_filter=False, encoding="utf-8-sig")


def check_columns(frame: pd.DataFrame, columns: tuple[str, ...], file: Path) -> None:
    """Raise a TableError that names the first of `columns` that the table lacks.

    The column that may be meant is none of the others: `spacing_x` is not `spacing_y` under another name.
    """
    for column in columns:
        if column not in frame:
            others = [name for name in frame.columns if name not in columns]
            raise TableError(f"{file}: {unknown_name(column, 'a column', frame.columns, may_be_meant=others)}")


def check_ids(frame: pd.DataFrame, uid_column: str, file: Path, advice: str = "") -> None:
    """Raise a TableError where an id is empty or stands twice; `advice` ends the message about the latter."""
    check_filled(frame, uid_column, file)
    repeated = frame[uid_column].duplicated()
    if repeated.any():
        row = int(np.flatnonzero(repeated)[0])
        raise TableError(
            f"{file}: {int(repeated.sum())} duplicate ids in column {uid_column}; the first is "
            f"{frame[uid_column].iloc[row]} in line {line_number(frame, row, file)}{advice}"
        )


def holds(column: pd.Series, value: str) -> npt.NDArray[np.bool_]:
    """(N,) whether each cell of a text column holds the value; numbers are the same however they are written."""
    number = number_in(value)
    holds_text: npt.NDArray[np.bool_] = (column == value.strip()).to_numpy(dtype=np.bool_)
    if number is None:
        return holds_text
    numbers: npt.NDArray[np.float64] = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64)
    is_number: npt.NDArray[np.bool_] = numbers == number
    if abs(number) >= LARGEST_EXACT:  # where several whole numbers are one float
        exact = Decimal(value.strip())
        for row in np.flatnonzero(is_number & ~holds_text):
            is_number[row] = Decimal(column.iloc[row]) == exact
    return holds_text | is_number


def warn_of_similar_values(counts: Iterable[tuple[object, int]], value: str, num_meant: int, where: str) -> None:
    """Warn of values that differ from the meant one by upper and lower case or inner blanks alone, with their counts.

    Args:
        counts: other values with their rows.
        value: what a setting names.
        num_meant: rows that hold it.
        where: file and column, for the message.
    """
    wanted = _plain(value)
    similar = [f"{other!r} ({count} rows)" for other, count in counts if _plain(str(other)) == wanted]
    if similar:
        warn(f"{where}: {', '.join(similar)} only looks like {value.strip()!r} ({num_meant} rows) and is another value")


def _plain(text: str) -> str:
    """Without case and blanks."""
    return "".join(text.casefold().split())


def read_label_cells(
    frame: pd.DataFrame,
    label_columns: tuple[str, ...],
    file: Path,
    label_values: Mapping[str, LabelValue],
    *,
    may_be_soft: bool = False,
) -> npt.NDArray[np.float32]:
    """The label columns as numbers.

    Args:
        frame: the table.
        label_columns: (K,) its columns to read.
        file: where the table comes from, for the message.
        label_values: the setting of that name.
        may_be_soft: whether shares between 0 and 1 are labels as well.

    Returns:
        (N, K) float32, 0, 1, a share between them, or NaN where it is unknown.

    Raises:
        TableError: a value is none of these, nor one of `label_values`.
    """
    labels = np.empty((len(frame), len(label_columns)), dtype=np.float32)
    wrong: dict[str, tuple[str, int]] = {}  # value -> the first column and row that hold it
    for k, column in enumerate(label_columns):
        values = pd.to_numeric(frame[column], errors="coerce").to_numpy(dtype=np.float64, copy=True)
        is_right = (values >= 0) & (values <= 1) if may_be_soft else np.isin(values, (0.0, 1.0))
        for value, label in label_values.items():
            is_meant = holds(frame[column], value)
            values[is_meant] = math.nan if label == UNKNOWN else label
            is_right |= is_meant
        for row in np.flatnonzero(~is_right)[:VALUES_SOUGHT].tolist():
            wrong.setdefault(frame[column].iloc[row], (column, row))
        labels[:, k] = values
    if wrong:
        value, (column, row) = next(iter(wrong.items()))
        where = f"{file}: line {line_number(frame, row, file)}, column '{column}'"
        expected = "a share in 0..1" if may_be_soft else "0 or 1"
        is_share = not may_be_soft and 0 < (number_in(value) or 0) < 1
        hint = "; soft_labels=True takes shares" if is_share else _proposal(label_values, wrong)
        raise TableError(f"{where}: {value!r} is not {expected}{hint}")
    return labels


def _proposal(label_values: Mapping[str, LabelValue], wrong: Iterable[str]) -> str:
    """What to set, so that the values that are not understood are unknown."""
    further = list(wrong)[:VALUES_PROPOSED]
    proposed = dict(label_values) | dict.fromkeys(further, UNKNOWN)
    what = "it is" if len(further) == 1 else f"{', '.join(map(repr, further))} are"
    return f"; say with label_values that {what} unknown, or 0, or 1: label_values={proposed}"


def check_filled(frame: pd.DataFrame, column: str, file: Path, advice: str = "") -> None:
    """Raise a TableError, which ends with `advice`, where the column is empty."""
    empty = (frame[column].str.strip() == "").to_numpy()
    if empty.any():
        line = line_number(frame, int(np.flatnonzero(empty)[0]), file)
        raise TableError(f"{file}: column '{column}' is empty in line {line}{advice}")


def finite_numbers(frame: pd.DataFrame, column: str, file: Path, meaning: str) -> npt.NDArray[np.float64]:
    """A column as (N,) float64.

    Args:
        frame: the table.
        column: its column to read.
        file: where the table comes from, for the message.
        meaning: what the numbers are, for the message, as in "pixels of the X-ray".

    Raises:
        TableError: a cell is empty, no number, or not finite.
    """
    check_filled(frame, column, file)
    numbers = [number_in(text) for text in frame[column]]
    if None in numbers:
        row = numbers.index(None)
        found = one_line(ValueError(frame[column].iloc[row]), MAX_SHOWN)
        raise TableError(
            f"{file}: line {line_number(frame, row, file)}, column '{column}': {found!r} is not a finite number; "
            f"{meaning} are expected"
        )
    return np.array(numbers, dtype=np.float64)


def line_number(frame: pd.DataFrame, row: int, file: Path) -> int:
    """Line of the file, counted from 1, in which the row at a position, counted from 0, begins.

    Rows may have been left out since the file was read: the index still counts all of them. The file is read again,
    since blank lines and quoted texts of several lines make lines and rows differ.
    """
    number = int(frame.index[row]) + 1  # the header is row 0
    open_file = gzip.open if file.suffix == ".gz" else open
    try:
        with open_file(file, "rt", encoding="utf-8-sig", newline="") as opened:
            reader = csv.reader(opened)
            first_line = 1
            for cells in reader:
                is_blank = not cells or (len(cells) == 1 and not cells[0].strip())
                if not is_blank and number == 0:
                    return first_line
                number -= not is_blank
                first_line = reader.line_num + 1
    except (csv.Error, OSError, EOFError, ValueError):
        pass  # another archive, or a cell too long for this reader: rows are taken for lines
    return int(frame.index[row]) + 2
