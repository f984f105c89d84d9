"""Table 1: who and what the images of each split are."""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.figure import Figure

from catheters.data.spacing import read_spacing_table
from catheters.io.near_misses import number_or_age_in
from catheters.runs.evaluation.inputs import Input
from catheters.viz.table_figure import draw_table

USUAL_COLUMNS = (
    *("age", "patientage", "sex", "gender", "patientsex", "patientgender", "ethnicity", "race"),
    *("view", "viewposition", "projection", "hospital", "site", "institution", "centre", "center"),
    *("manufacturer", "modelname", "scanner"),
)
"""Columns that are described without being asked for, in small letters and without what is none."""
MAX_VALUES = 12
"""Different values of a column that are counted one by one."""
MAX_DIGITS = 8
"""Different numbers up to which a column that is not an age is counted value by value."""
_NO_LETTERS = re.compile(r"[^a-z]")
Bools = npt.NDArray[np.bool_]
Describe = Callable[[Bools], str]


@dataclass(frozen=True, kw_only=True)
class TableOne:
    """A table of texts.

    Attributes:
        splits: (S,) names of its columns.
        rows: the row's name and (S,) cells; cells of a heading are empty.
        shown: positions of the splits that the figure has; the CSV has all.
        notes: what is to be said below it.
    """

    splits: tuple[str, ...]
    rows: list[tuple[str, list[str]]]
    shown: tuple[int, ...]
    notes: list[str]


def describe_splits(given: Input, columns: Sequence[str]) -> TableOne:
    """Describe all evaluated images, those of each fold, and those that are left out.

    Args:
        given: the predictions beside their label table.
        columns: of that table, to be described besides `USUAL_COLUMNS`.
    """
    truth, evaluated = given.truth, given.evaluated
    is_evaluated = np.full(len(truth.uids), False)
    is_evaluated[given.rows] = True
    splits: dict[str, Bools] = {"evaluated": is_evaluated}
    shown = ["evaluated"]
    notes = ["Everything is counted by image; n (%) of the images of which a label is known; IQR: interquartile range."]
    if evaluated.folds is not None and len(np.unique(evaluated.folds)) > 1:
        fold_of_row = np.full(len(truth.uids), -1)
        fold_of_row[given.rows] = evaluated.folds
        for fold in np.unique(evaluated.folds).tolist():
            is_in = fold_of_row == fold
            splits |= {f"fold {fold}, validation": is_in, f"fold {fold}, training": is_evaluated & ~is_in}
            shown.append(f"fold {fold}, validation")
        notes.append("The model of a fold is trained on the images of all other folds, and validated on its own.")
    if not is_evaluated.all():
        splits["not evaluated"] = ~is_evaluated
        shown.append("not evaluated")
    rows: list[tuple[str, list[str]]] = []

    def add(name: str, describe: Describe | None) -> None:
        rows.append((name, ["" if describe is None else describe(is_in) for is_in in splits.values()]))

    add("Images", lambda is_in: f"{is_in.sum():,}")
    _describe_patients(given, add)
    add("Label, n (%)", None)
    for label in evaluated.labels:
        _describe_label(label, truth.labels[:, given.label_order.index(label)], add)
    frame = truth.frame
    usual = [name for name in frame.columns if _NO_LETTERS.sub("", name.lower()) in USUAL_COLUMNS]
    for column in dict.fromkeys([*usual, *columns]):
        note = _describe_column(column, frame[column].to_numpy(dtype=np.str_), add)
        notes += [] if note is None else [note]
    _describe_spacing(given, add)
    names = tuple(splits)
    return TableOne(splits=names, rows=rows, shown=tuple(map(names.index, shown)), notes=notes)


def list_characteristics(table: TableOne) -> pd.DataFrame:
    """The table `table1.csv`: a row per characteristic, a column per split."""
    return pd.DataFrame([[name, *cells] for name, cells in table.rows], columns=["characteristic", *table.splits])


def draw_table_one(table: TableOne, title: str) -> Figure:
    """The table as a figure, without the training parts, which follow from the rest."""
    header = ["", *(table.splits[split] for split in table.shown)]
    rows = [[name, *(cells[split] for split in table.shown)] for name, cells in table.rows]
    return draw_table(title, header, rows, table.notes)


Add = Callable[[str, Describe | None], None]


def _describe_patients(given: Input, add: Add) -> None:
    patients = given.truth.patient_ids
    if patients is None:
        return
    add("Patients", lambda is_in: f"{len(np.unique(patients[is_in])):,}")

    def images_per_patient(is_in: Bools) -> str:
        counts = np.unique(patients[is_in], return_counts=True)[1]
        return median_and_quartiles(counts.astype(np.float64))

    add("Images per patient, median (IQR)", images_per_patient)


def _describe_label(label: str, values: npt.NDArray[np.float32], add: Add) -> None:
    is_known = ~np.isnan(values)
    add(f"  {label}", lambda is_in: _share(int((values[is_in] == 1).sum()), int((is_in & is_known).sum())))
    if not is_known.all():
        add("    unknown, n", lambda is_in: f"{(is_in & ~is_known).sum():,}")


def _describe_column(column: str, values: npt.NDArray[np.str_], add: Add) -> str | None:
    """Numbers by median and quartiles, other values one by one; a note where they are too many."""
    values = np.char.strip(values)
    is_given = values != ""
    found = [number_or_age_in(value) for value in values.tolist()]
    numbers = np.array([math.nan if number is None else number for number in found])
    distinct = np.unique(values[is_given]).tolist()
    are_numbers = bool((~np.isnan(numbers) | ~is_given).all()) and len(np.unique(numbers[is_given])) > MAX_DIGITS
    if not distinct:
        return f"{column} is empty."
    if are_numbers:
        add(f"{column}, median (IQR)", lambda is_in: median_and_quartiles(numbers[is_in & is_given]))
    elif len(distinct) > MAX_VALUES:
        return f"{column} has {len(distinct)} different values and is not described."
    else:
        add(f"{column}, n (%)", None)
        for value in distinct:
            _add_value(value, values == value, is_given, add)
    if not is_given.all():
        add("  not given, n", lambda is_in: f"{(is_in & ~is_given).sum():,}")
    return None


def _add_value(value: str, is_value: Bools, is_given: Bools, add: Add) -> None:
    add(f"  {value}", lambda is_in: _share(int((is_in & is_value).sum()), int((is_in & is_given).sum())))


def _describe_spacing(given: Input, add: Add) -> None:
    settings = given.settings
    if settings is None or settings.spacing_table is None:
        return
    file = Path(settings.dataset_folder) / settings.spacing_table
    if not file.is_file():
        return
    known = read_spacing_table(file, settings.uid_column)
    spacings = np.full(len(given.truth.uids), math.nan)
    for row, uid in enumerate(given.truth.uids.tolist()):
        if uid in known and (mm := known[uid].mm) is not None:
            spacings[row] = mm[0]
    add(
        "Pixel spacing in mm, median (IQR)",
        lambda is_in: median_and_quartiles(spacings[is_in & ~np.isnan(spacings)], decimals=3),
    )
    if np.isnan(spacings).any():
        add("  not given, n", lambda is_in: f"{(is_in & np.isnan(spacings)).sum():,}")


def median_and_quartiles(values: npt.NDArray[np.float64], decimals: int = 1) -> str:
    """`58 (45 to 70)`; a dash of none."""
    if not len(values):
        return "-"
    low, middle, high = (f"{value:.{decimals}f}" for value in np.quantile(values, [0.25, 0.5, 0.75]))
    texts = [text.rstrip("0").rstrip(".") if "." in text else text for text in (middle, low, high)]
    return f"{texts[0]} ({texts[1]} to {texts[2]})"


def _share(number: int, of: int) -> str:
    return f"{number:,} ({number / of:.1%})".replace("%", "") if of else "-"
