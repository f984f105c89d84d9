"""The label table: which images there are, whose they are, and what they show."""

import string
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from catheters.errors import UserError
from catheters.settings import Settings, unknown_name


class TableError(UserError):
    """A label table that is missing, or whose content cannot be trusted."""


@dataclass(frozen=True, kw_only=True)
class LabelTable:
    """One row an image, in the order of the file.

    Attributes:
        uids: (N,) unique names of the images.
        patient_ids: (N,) patients.
        paths: (N,) image files.
        labels: (N, K) uint8, 0 or 1, columns in the order of `label_columns`.
        label_columns: (K,) names.
    """

    uids: npt.NDArray[np.str_]
    patient_ids: npt.NDArray[np.str_]
    paths: tuple[Path, ...]
    labels: npt.NDArray[np.uint8]
    label_columns: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.uids)


def read_label_table(settings: Settings) -> LabelTable:
    """Read the label table that the settings name.

    Raises:
        TableError: the folder, file, a column or a value is missing or wrong.
    """
    folder = Path(settings.dataset_folder)
    if not folder.is_dir():
        raise TableError(f"{folder}: no such folder; put the data set there or set dataset_folder")
    file = folder / settings.label_table
    frame = read_csv(file)
    frame = frame.assign(**_derive_labels(frame, settings, file))
    check_columns(frame, (settings.uid_column, settings.patient_column, *settings.label_columns), file)
    check_ids(frame, settings.uid_column, file)
    _check_filled(frame, settings.patient_column, file)
    return LabelTable(
        uids=frame[settings.uid_column].to_numpy(dtype=np.str_),
        patient_ids=frame[settings.patient_column].to_numpy(dtype=np.str_),
        paths=_fill_in_paths(frame, settings, folder, file),
        labels=binary_labels(frame, settings.label_columns, file),
        label_columns=settings.label_columns,
    )


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
    _check_filled(frame, uid_column, file)
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


def _derive_labels(frame: pd.DataFrame, settings: Settings, file: Path) -> dict[str, Any]:
    derived = {}
    for label, (column, value) in settings.derived_labels.items():
        check_columns(frame, (column,), file)
        _check_filled(frame, column, file)
        is_positive = frame[column] == value
        if not is_positive.any():
            raise TableError(
                f"{file}: column '{column}' never holds {value!r}, which derived_labels['{label}'] asks for"
            )
        derived[label] = is_positive.map({True: "1", False: "0"})
    return derived


def _fill_in_paths(frame: pd.DataFrame, settings: Settings, folder: Path, file: Path) -> tuple[Path, ...]:
    pattern = settings.path_pattern
    columns = {name for _, name, _, _ in string.Formatter().parse(pattern) if name is not None}
    check_columns(frame, tuple(sorted(columns - {"uid"})), file)
    values = {name: frame[settings.uid_column if name == "uid" else name] for name in columns}
    return tuple(
        folder / pattern.format(**dict(zip(values, row, strict=True))) for row in zip(*values.values(), strict=True)
    )


def _check_filled(frame: pd.DataFrame, column: str, file: Path) -> None:
    empty = (frame[column].str.strip() == "").to_numpy()
    if empty.any():
        raise TableError(f"{file}: column '{column}' is empty in line {_line(int(np.flatnonzero(empty)[0]))}")


def _line(row: int) -> int:
    """Line of the file, counted from 1, of a row counted from 0: the header is line 1."""
    return row + 2
