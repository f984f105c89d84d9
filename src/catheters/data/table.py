"""The label table: which images there are, whose they are, and what they show."""

import string
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from catheters.csv_files import TableError, binary_labels, check_columns, check_filled, check_ids, read_csv
from catheters.settings import Settings


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

    def take(self, rows: npt.NDArray[np.intp]) -> "LabelTable":
        """The table of some of the rows, in that order."""
        return LabelTable(
            uids=self.uids[rows],
            patient_ids=self.patient_ids[rows],
            paths=tuple(self.paths[row] for row in rows),
            labels=self.labels[rows],
            label_columns=self.label_columns,
        )


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
    check_filled(frame, settings.patient_column, file)
    return LabelTable(
        uids=frame[settings.uid_column].to_numpy(dtype=np.str_),
        # A stray blank must not make two patients of one, who would then be in two folds.
        patient_ids=frame[settings.patient_column].str.strip().to_numpy(dtype=np.str_),
        paths=_fill_in_paths(frame, settings, folder, file),
        labels=binary_labels(frame, settings.label_columns, file),
        label_columns=settings.label_columns,
    )


def _derive_labels(frame: pd.DataFrame, settings: Settings, file: Path) -> dict[str, Any]:
    derived = {}
    for label, (column, value) in settings.derived_labels.items():
        check_columns(frame, (column,), file)
        check_filled(frame, column, file)
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
