"""The label table: which images there are, whose they are, and what they show."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from catheters.data.tables.corrections import apply_corrections
from catheters.data.tables.dicom_ids import find_dicom_files
from catheters.data.tables.label_rules import (
    LabelRules,
    choose_rows,
    know_others,
    read_labels,
    read_patients,
    rows_that_hold,
    scored_labels,
)
from catheters.errors import counted
from catheters.io.csv_files import TableError, check_columns, check_filled, check_ids, line_number, read_csv
from catheters.io.near_misses import file_hint, number_in, same_id_hint
from catheters.io.path_pattern import fill_pattern, pattern_fields
from catheters.labels import RANZCR_LABELS
from catheters.runtime.console import say, warn

SAMPLE_FOLDER = "dataset/sample"
"""Where the preset `sample` looks for its data."""
ROUNDING = 1e-3
"""Of the soft labels of an exclusive group, whose sum is 1 at most."""


@dataclass(frozen=True, kw_only=True)
class LabelTable:
    """One row per image, in the order of the file.

    Attributes:
        uids: (N,) unique names of the images.
        patient_ids: (N,) patients.
        paths: (N,) image files.
        labels: (N, K) float32, 0, 1 or NaN where it is unknown, columns in the order of `label_columns`; for folds and
            scores.
        targets: (N, K) float32, the same, or shares in 0..1 where the table has soft labels; for the loss.
        label_columns: (K,) names.
        folds: (N,) the fold of each image where the table says it, else None; a patient may be in several.
        numbers: name -> (N,) further numbers of each image, 0 or more, see `TableSource`.
    """

    uids: npt.NDArray[np.str_]
    patient_ids: npt.NDArray[np.str_]
    paths: tuple[Path, ...]
    labels: npt.NDArray[np.float32]
    targets: npt.NDArray[np.float32]
    label_columns: tuple[str, ...]
    folds: npt.NDArray[np.int8] | None = None
    numbers: Mapping[str, npt.NDArray[np.float32]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.uids)

    def take(self, rows: npt.NDArray[np.intp]) -> "LabelTable":
        """The table of some of the rows, in that order."""
        return LabelTable(
            uids=self.uids[rows],
            patient_ids=self.patient_ids[rows],
            paths=tuple(self.paths[row] for row in rows),
            labels=self.labels[rows],
            targets=self.targets[rows],
            label_columns=self.label_columns,
            folds=None if self.folds is None else self.folds[rows],
            numbers={name: values[rows] for name, values in self.numbers.items()},
        )


@dataclass(frozen=True, kw_only=True)
class TableSource:
    """Where a label table stands and how it is read, by the settings of these names.

    Attributes:
        dataset_folder: holds the table and the images.
        label_table: the file's name in it.
        uid_column: names the images, each once.
        patient_column: names the patients.
        patient_pattern: finds the patient in its cells; None: a cell is the patient.
        path_pattern: of the image files, relative to the folder.
        dicom_id: DICOM keyword by which the files are found; None: by the pattern.
        dicom_headers: where headers are kept that were read for that.
        keep_rows: column -> the values with which a row counts.
        label_columns: (K,) the labels.
        label_rules: how cells become labels.
        label_corrections: a file of corrections.
        exclude_ids: a file with the ids of images that are left out.
        exclusive: name -> labels that exclude each other.
        exclusive_conflicts: what becomes of an image with two of them: "refuse" or "first".
        fold_column: has the fold of each image; None: folds are assigned, or there are none.
        num_folds: how many there are.
        number_columns: name -> column of further numbers, which go along in each batch.
    """

    dataset_folder: Path
    label_table: str
    uid_column: str
    patient_column: str
    patient_pattern: str | None
    path_pattern: str
    dicom_id: str | None
    dicom_headers: Path
    keep_rows: Mapping[str, str | tuple[str, ...]]
    label_columns: tuple[str, ...]
    label_rules: LabelRules
    label_corrections: Path | None
    exclude_ids: Path | None
    exclusive: Mapping[str, tuple[str, ...]]
    exclusive_conflicts: str
    fold_column: str | None
    num_folds: int
    number_columns: Mapping[str, str]

    @property
    def file(self) -> Path:
        """The table."""
        return self.dataset_folder / self.label_table


def read_label_table(source: TableSource) -> LabelTable:
    """Read a label table, without the images that its source leaves out.

    Raises:
        TableError: the folder, file, a column or a value is missing or wrong.
    """
    folder, file = source.dataset_folder, source.file
    if not folder.is_dir():
        raise TableError(
            f"{folder}: no such folder; put the data set there or set dataset_folder{_where_data_are(source)}"
        )
    if not file.exists():
        hint = file_hint(file) or f"; put it there, or set dataset_folder and label_table{_where_data_are(source)}"
        raise TableError(f"{file}: no such file{hint}")
    raw = read_csv(file)
    frame = choose_rows(raw, source.keep_rows, file)
    if len(frame) < len(raw):
        say(f"{len(frame)} of {len(raw)} rows of {file} are kept by keep_rows")
    check_columns(frame, (source.uid_column, source.patient_column), file)
    check_ids(frame, source.uid_column, file, _merging_advice(frame, source))
    uids = frame[source.uid_column].to_numpy(dtype=np.str_)
    column = f"column {source.uid_column} of {file}"
    patient_ids = read_patients(frame, source.patient_column, source.patient_pattern, file)
    targets = read_labels(frame, source.label_rules, source.label_columns, file)
    if source.label_corrections is not None:
        targets = apply_corrections(
            targets, uids, source.label_columns, source.label_corrections, source.uid_column, column
        )
    folds = _read_folds(frame, source)
    if source.dicom_id is None:
        paths = fill_in_paths(frame, source.path_pattern, source.uid_column, folder, file)
    else:
        paths = find_dicom_files(uids, folder, source.path_pattern, source.dicom_id, source.dicom_headers, column)
    table = LabelTable(
        uids=uids,
        patient_ids=patient_ids,
        paths=paths,
        labels=targets,  # until exclusive groups are settled
        targets=targets,
        label_columns=source.label_columns,
        folds=folds,
        numbers={name: _read_numbers(frame, number, file) for name, number in source.number_columns.items()},
    )
    if source.exclude_ids is not None:
        table = table.take(_rows_not_listed(table.uids, source.exclude_ids, column))
    return _settle_exclusive(table, source)


def _where_data_are(source: TableSource) -> str:
    """How to come by a data set of RANZCR CLiP's labels, as the end of a message; empty for other labels."""
    if source.label_columns != RANZCR_LABELS:
        return ""
    return (
        "; RANZCR CLiP is its train.csv and train/ from Kaggle, see docs/how-to/ranzcr.md; a synthetic sample for "
        f"`--config sample` is drawn by `python -m catheters.synthetic {SAMPLE_FOLDER}`, and `make demo` trains on it"
    )


def _settle_exclusive(table: LabelTable, source: TableSource) -> LabelTable:
    """One label at most of each exclusive group, by `exclusive_conflicts`; where one holds, the others are known."""
    targets = know_others(table.targets, source.label_columns, source.exclusive)
    for name, group in source.exclusive.items():
        columns = np.array([source.label_columns.index(label) for label in group])
        sums = np.nansum(targets[:, columns], axis=1)
        rounded = np.flatnonzero((sums > 1) & (sums <= 1 + ROUNDING))
        targets[np.ix_(rounded, columns)] /= sums[rounded, None]
        rows = np.flatnonzero(sums > 1 + ROUNDING)
        if not len(rows):
            continue
        images = "1 image has" if len(rows) == 1 else f"{len(rows)} images have"
        given = [label for label, value in zip(group, targets[rows[0], columns], strict=True) if value > 0]
        example = f"{table.uids[rows[0]]} has {' and '.join(map(repr, given))}"
        if source.exclusive_conflicts == "refuse":
            raise TableError(
                f"{source.file}: {images} two labels of exclusive['{name}'], {example}; correct the table (see "
                "label_corrections), or set exclusive_conflicts='first' to let the one that exclusive names first hold"
            )
        warn(f"{images} two labels of exclusive['{name}']: the first one holds; {example}")
        firsts = (targets[np.ix_(rows, columns)] > 0).argmax(axis=1)
        targets[np.ix_(rows, columns)] = np.eye(len(columns), dtype=targets.dtype)[firsts]
    labels = scored_labels(targets, source.label_rules, source.label_columns, source.exclusive)
    return replace(table, targets=targets, labels=labels)


def read_columns(source: TableSource) -> pd.DataFrame:
    """The label table's own columns, as text, of the rows that `read_label_table` reads or leaves out by their ids.

    That has been called, and has warned of what is odd about the table.

    Raises:
        TableError: the file is missing or wrong.
    """
    return rows_that_hold(read_csv(source.file), source.keep_rows)


def _merging_advice(frame: pd.DataFrame, source: TableSource) -> str:
    """How a table with several rows per image, one per box or reader, becomes one with a row per image."""
    is_mixed = frame.duplicated(source.uid_column) & ~frame.duplicated()
    if not is_mixed.any():
        return ""  # the same row again
    file, findings, derived = source.file, source.label_rules.findings_column, source.label_rules.derived_labels
    has_lists = findings in frame and frame[findings].str.startswith("[").any()
    if has_lists or any(label in derived for label in source.label_columns):
        return (
            "; one row per image is expected: give each label a 0/1 column, take its maximum over an image's rows, and "
            f"leave {'findings_column' if has_lists else 'derived_labels'} out"
        )
    merged = file.with_name(file.name.removesuffix(".gz").removesuffix(".csv") + "_per_image.csv")
    what, merge = "A|B where its rows differ", "lambda cells: '|'.join(sorted(set(cells)))"
    if findings is None:
        what, merge = "the maximum of each column", "'max'"
    return (
        f"; for one row per image, with {what}: "
        f"pd.read_csv({str(file)!r}, dtype=str, na_filter=False).rename(columns=str.strip)"
        f".apply(lambda column: column.str.strip()).groupby({source.uid_column!r}, as_index=False)"
        f".agg({merge}).to_csv({str(merged)!r}, index=False)"
    )


def _rows_not_listed(uids: npt.NDArray[np.str_], ids_file: Path, column: str) -> npt.NDArray[np.intp]:
    """The rows whose id the file does not list."""
    if not ids_file.is_file():
        raise TableError(f"exclude_ids={ids_file}: no such file; a text file with one image id per line is expected")
    try:
        lines = ids_file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise TableError(f"exclude_ids={ids_file}: is not UTF-8 text") from None
    listed = {line.strip() for line in lines} - {""}
    is_listed = np.isin(uids, list(listed))
    if not is_listed.any():
        raise TableError(
            f"exclude_ids={ids_file}: none of its {len(listed)} lines is an id in {column}, where an id looks like "
            f"{uids[0]}{same_id_hint(sorted(listed), uids.tolist())}"
        )
    if is_listed.all():
        raise TableError(f"exclude_ids={ids_file}: leaves out every image")
    say(f"left out: {counted(is_listed.sum(), 'image')} of {counted(len(listed), 'id')} in {ids_file}")
    unknown = listed - set(uids[is_listed].tolist())
    if unknown:
        warn(
            f"exclude_ids={ids_file}: {len(unknown)} of its lines are no id in {column}, {min(unknown)} for "
            f"one{same_id_hint(sorted(unknown), uids.tolist())}"
        )
    return np.flatnonzero(~is_listed)


def _read_folds(frame: pd.DataFrame, source: TableSource) -> npt.NDArray[np.int8] | None:
    column, file = source.fold_column, source.file
    if column is None:
        return None
    check_columns(frame, (column,), file)
    check_filled(frame, column, file)
    # As numbers: pandas writes 0.0 for 0 where some were missing.
    values = pd.to_numeric(frame[column], errors="coerce").to_numpy(dtype=np.float64)
    unknown = frame[column][~np.isin(values, range(source.num_folds))]
    if not unknown.empty:
        raise TableError(
            f"{file}: column '{column}' holds {unknown.iloc[0]!r}; a fold, counted from 0 to {source.num_folds - 1} "
            f"(num_folds={source.num_folds}), is expected"
        )
    folds = values.astype(np.int8)
    missing = set(range(source.num_folds)) - set(folds.tolist())
    if missing:
        raise TableError(
            f"{file}: column '{column}' has no image in fold {min(missing)}; set num_folds to the number of its folds"
        )
    return folds


def _read_numbers(frame: pd.DataFrame, column: str, file: Path) -> npt.NDArray[np.float32]:
    """(N,) the numbers of a column."""
    check_columns(frame, (column,), file)
    check_filled(frame, column, file)
    numbers = [number_in(cell) for cell in frame[column]]
    for row, number in enumerate(numbers):
        if number is None or not 0 <= number <= np.finfo(np.float32).max:
            raise TableError(
                f"{file}: line {line_number(frame, row, file)}, column '{column}': {frame[column].iloc[row]!r} came, a "
                "number of 0 or more is expected"
            )
    if not any(numbers):
        raise TableError(f"{file}: column '{column}' has no number above 0")
    return np.array(numbers, dtype=np.float32)


def fill_in_paths(frame: pd.DataFrame, pattern: str, uid_column: str, folder: Path, file: Path) -> tuple[Path, ...]:
    """The image file of each row.

    Args:
        frame: rows with the pattern's columns.
        pattern: of the files.
        uid_column: the id column, {uid} of the pattern.
        folder: that the pattern is relative to.
        file: where the rows come from, for messages.

    Raises:
        TableError: a column is missing, or an image lies in two of the folders that a pattern with * matches.
    """
    columns = pattern_fields(pattern)
    check_columns(frame, tuple(sorted(columns - {"uid"})), file)
    values = {name: frame[uid_column if name == "uid" else name] for name in columns}
    filled = fill_pattern(pattern, {name: column.tolist() for name, column in values.items()})
    if "*" not in pattern:
        return tuple(folder / path for path in filled)
    folders = pattern.rpartition("/")[0]  # no column stands in them
    names = [path.removeprefix(f"{folders}/") for path in filled]
    file_of_name = _find_files(folder, folders, set(names))
    # An image that is in none of them is reported by whoever reads it, under a path that shows where it was sought.
    return tuple(file_of_name.get(name, folder / folders / name) for name in names)


def _find_files(folder: Path, folders: str, names: set[str]) -> dict[str, Path]:
    """Name -> file, for those of the names that stand in a folder that the pattern with * matches."""
    found: dict[str, Path] = {}
    for directory in sorted(path for path in folder.glob(folders) if path.is_dir()):
        for file in directory.iterdir():
            if file.name not in names:
                continue
            if file.name in found:
                raise TableError(f"{file}: also stands in {found[file.name].parent}; which one is meant is unclear")
            found[file.name] = file
    return found
