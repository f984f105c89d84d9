"""Rules by which a table's rows become labels: which rows count, whose they are, what they show.

The same for the table that a model is trained on, and for any other that it is predicted or scored on.
"""

import ast
import difflib
import io
import math
import re
import tokenize
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from catheters.errors import counted, listed, unknown_name
from catheters.io.csv_files import (
    TableError,
    check_columns,
    check_filled,
    holds,
    line_number,
    read_label_cells,
    warn_of_similar_values,
)
from catheters.io.near_misses import form_of, without_decimals
from catheters.labels import UNKNOWN, LabelValue
from catheters.runtime.console import warn

VALUES_COMPARED = 1000
"""Values of a column among which the nearest to a wrong one is sought."""
NEARLY_SPELT = 0.8
"""A name that is so like a finding of the table (difflib's ratio) is taken for a misspelling of it."""


@dataclass(frozen=True, kw_only=True)
class LabelRules:
    """How a table's cells become labels, by the settings of these names.

    Attributes:
        label_values: value of a cell -> 0, 1 or "unknown", besides the numbers themselves.
        derived_labels: label -> (column, the value of it that is a positive).
        findings_column: lists the findings of an image; None: there is no such column.
        soft_labels: whether cells may be shares between 0 and 1.
        soft_label_threshold: from which share on a label counts as positive; None: as unknown.
        may_lack_labels: whether a table may be without some of the labels, which are then unknown.
    """

    label_values: Mapping[str, LabelValue]
    derived_labels: Mapping[str, tuple[str, str]]
    findings_column: str | None
    soft_labels: bool = False
    soft_label_threshold: float | None = None
    may_lack_labels: bool = False

    @property
    def explains_blanks(self) -> bool:
        """Whether an empty cell says something: that nothing is shown, or that nobody knows."""
        return any(label in (0, UNKNOWN) for value, label in self.label_values.items() if not value.strip())

    def is_unknown(self, column: pd.Series) -> npt.NDArray[np.bool_]:
        """(N,) whether each cell of a text column says that nobody knows."""
        is_unknown = np.full(len(column), False)
        for value, label in self.label_values.items():
            if label == UNKNOWN:
                is_unknown |= holds(column, value)
        return is_unknown


def choose_rows(frame: pd.DataFrame, wanted: Mapping[str, str | tuple[str, ...]], file: Path) -> pd.DataFrame:
    """The rows whose columns hold one of the wanted values each, under their index in the whole table.

    Raises:
        TableError: a column is missing, or no row is left.
    """
    for column, values in wanted.items():
        check_columns(frame, (column,), file)
        holds_one = np.full(len(frame), False)
        missing = []
        for value in (values,) if isinstance(values, str) else values:
            holds_value = holds(frame[column], value)
            holds_one |= holds_value
            if not holds_value.any():
                missing.append(value)
        if missing:
            kind, known = f"a value of column '{column}'", frame[column].unique()[:VALUES_COMPARED]
            message = f"{file}: keep_rows: {unknown_name(missing[0], kind, known)}"
            if not holds_one.any():
                raise TableError(message)
            warn(message)
        others = list(frame[column][~holds_one].value_counts().items())
        for value in (values,) if isinstance(values, str) else values:
            num_meant = int(holds(frame[column], value).sum())
            warn_of_similar_values(others, value, num_meant, f"{file}: keep_rows: column '{column}'")
    kept = rows_that_hold(frame, wanted)
    if kept.empty:
        raise TableError(f"{file}: keep_rows={dict(wanted)}: no row holds all of these values")
    return kept


def rows_that_hold(frame: pd.DataFrame, wanted: Mapping[str, str | tuple[str, ...]]) -> pd.DataFrame:
    """What `choose_rows` keeps, of a table that it has checked: without a word."""
    is_kept = np.full(len(frame), True)
    for column, values in wanted.items():
        of_values = [holds(frame[column], value) for value in ((values,) if isinstance(values, str) else values)]
        is_kept &= np.any(of_values, axis=0)
    return frame[is_kept]


def choose_rows_of_other_table(
    frame: pd.DataFrame, wanted: Mapping[str, str | tuple[str, ...]], file: Path
) -> pd.DataFrame:
    """As `choose_rows`, of a table that may lack columns of the one that the rules are for; a warning names these."""
    missing = [column for column in wanted if column not in frame]
    if missing:
        warn(f"{file}: has no column {listed(map(repr, missing))}, so keep_rows leaves out no row by it")
    return choose_rows(frame, {column: values for column, values in wanted.items() if column in frame}, file)


def read_patients(frame: pd.DataFrame, column: str, pattern: str | None, file: Path) -> npt.NDArray[np.str_]:
    """(N,) the patient of each row; 12 and 12.0 are one, 12 and 0012 are two, with a warning.

    Raises:
        TableError: a cell is empty, or the pattern finds no patient in it.
    """
    check_filled(frame, column, file)
    values = frame[column]
    if pattern is None:
        found = values.tolist()
    else:
        matches = [re.search(pattern, value) for value in values]
        found = [match[1].strip() if match and match[1] else "" for match in matches]
        for row, patient in enumerate(found):
            if not patient:
                raise TableError(
                    f"{file}: line {line_number(frame, row, file)}, column '{column}': patient_pattern='{pattern}' "
                    f"finds no patient in {values.iloc[row]!r}"
                )
    patients = [without_decimals(patient) for patient in found]
    where = f"{file}: column '{column}'"
    written = dict(zip(found, patients, strict=True))
    merged = [text for text, patient in written.items() if text != patient and patient in written]
    if merged:
        warn(
            f"{where}: {len(merged)} patients are written in two ways, {written[merged[0]]} and {merged[0]} "
            "for one; each is taken for one patient"
        )
    warn_of_similar_patient_ids(patients, where)
    return np.array(patients, dtype=np.str_)


def warn_of_similar_patient_ids(patients: list[str], where: str, told: Sequence[Set[str]] = ()) -> None:
    """Warn of ids such as 12 and 0012, which count as two patients.

    Args:
        patients: of each row.
        where: they stand, for the message.
        told: ids of single tables, of which has been warned if they are similar to others there.
    """
    counts = Counter(patients)
    of_form: dict[str, list[str]] = {}
    for patient in counts:
        of_form.setdefault(form_of(patient) if "/" not in patient else patient, []).append(patient)
    similar = [group for group in of_form.values() if len(group) > 1 and not any(set(group) <= ids for ids in told)]
    if similar:
        names = " and ".join(f"{patient!r} ({counts[patient]} rows)" for patient in similar[0])
        warn(
            f"{where}: {counted(len(similar), 'group')} of similar patient ids that count as different ones, {names} "
            "for one: if they are one patient, write them in the same way, or images of theirs stand in several folds"
        )


def read_labels(frame: pd.DataFrame, rules: LabelRules, labels: tuple[str, ...], file: Path) -> npt.NDArray[np.float32]:
    """The labels of each row.

    Args:
        frame: N rows, as text.
        rules: which cells are positive.
        labels: (K,) which labels.
        file: where the rows come from, for messages.

    Returns:
        (N, K) float32, 0, 1, a share between them where these are allowed, or NaN where it is unknown.

    Raises:
        TableError: a column or a value is missing or wrong.
    """
    derived = _derive_from_values(frame, rules, labels, file) | _derive_from_findings(frame, rules, labels, file)
    given = tuple(label for label in labels if label not in derived)
    if rules.may_lack_labels:
        lacking = [label for label in given if label not in frame]
        of_derived = {column for column, _ in rules.derived_labels.values()}
        _check_lacking(frame, lacking, derived.keys() | set(labels) | of_derived, file)
        derived |= dict.fromkeys(lacking, np.full(len(frame), math.nan, dtype=np.float32))
        given = tuple(label for label in given if label not in lacking)
    check_columns(frame, given, file)
    cells = read_label_cells(frame, given, file, rules.label_values, may_be_soft=rules.soft_labels)
    columns = dict(zip(given, cells.T, strict=True)) | derived
    return np.stack([columns[label] for label in labels], axis=1).astype(np.float32)


def _check_lacking(frame: pd.DataFrame, lacking: list[str], known: Set[str], file: Path) -> None:
    """A label that a table has under a name that is nearly its own is not lacking."""
    for column in frame.columns:
        near = [] if column in known else difflib.get_close_matches(column, lacking, n=1, cutoff=NEARLY_SPELT)
        if near:
            raise TableError(
                f"{file}: {unknown_name(near[0], 'a column', [column])}; rename it in the table, or derive the label "
                f"from it by derived_labels={{'{near[0]}': ('{column}', '1')}}"
            )


def know_others(
    targets: npt.NDArray[np.float32], labels: tuple[str, ...], exclusive: Mapping[str, tuple[str, ...]]
) -> npt.NDArray[np.float32]:
    """(N, K) labels; where one of an exclusive group is 1, those that were unknown are 0."""
    known = targets.copy()
    for group in exclusive.values():
        columns = [labels.index(label) for label in group if label in labels]
        of_group = known[:, columns]
        of_group[(of_group == 1).any(axis=1)[:, None] & np.isnan(of_group)] = 0
        known[:, columns] = of_group
    return known


def scored_labels(
    targets: npt.NDArray[np.float32],
    rules: LabelRules,
    labels: tuple[str, ...],
    exclusive: Mapping[str, tuple[str, ...]],
) -> npt.NDArray[np.float32]:
    """Labels as folds and scores take them.

    Args:
        targets: (N, K) in 0..1, or NaN.
        rules: its `soft_label_threshold` says from which share on a label is 1; without one, a share is unknown.
        labels: (K,) names.
        exclusive: name -> labels that exclude each other; those that are no column are passed over.

    Returns:
        (N, K) 0, 1 or NaN.
    """
    is_soft, threshold = (targets > 0) & (targets < 1), rules.soft_label_threshold
    hard = np.where(is_soft, math.nan if threshold is None else targets >= threshold, targets)
    return know_others(hard.astype(np.float32), labels, exclusive)


def _check_blanks(frame: pd.DataFrame, column: str, rules: LabelRules, file: Path) -> None:
    if not rules.explains_blanks:
        advice = f"; label_values={{'': 0}} says that a blank means none, {{'': '{UNKNOWN}'}} that nobody knows"
        check_filled(frame, column, file, advice)


def _derive_from_values(
    frame: pd.DataFrame, rules: LabelRules, labels: tuple[str, ...], file: Path
) -> dict[str, npt.NDArray[np.float32]]:
    derived: dict[str, npt.NDArray[np.float32]] = {}
    unseen = []
    for label in labels:
        if label not in rules.derived_labels:
            continue
        column, value = rules.derived_labels[label]
        if column not in frame and label in frame:
            continue  # another table that has the label itself
        check_columns(frame, (column,), file)
        if value.strip():
            _check_blanks(frame, column, rules, file)
        is_positive = holds(frame[column], value)
        derived[label] = _numbers(is_positive, rules.is_unknown(frame[column]))
        where = f"{file}: column '{column}'"
        if not is_positive.any():
            near = difflib.get_close_matches(value, frame[column].unique()[:VALUES_COMPARED], n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            unseen.append(f"{where} never holds {value!r}, which derived_labels['{label}'] asks for{hint}")
            if near:
                raise TableError(unseen[-1])
        counts = frame[column][~is_positive].value_counts().items()
        warn_of_similar_values(counts, value, int(is_positive.sum()), where)
    if unseen and len(unseen) == len(labels):
        raise TableError(unseen[0])
    for text in unseen:
        warn(f"{text}: it has no positive")
    return derived


def _derive_from_findings(
    frame: pd.DataFrame, rules: LabelRules, labels: tuple[str, ...], file: Path
) -> dict[str, npt.NDArray[np.float32]]:
    """Whether the findings column lists each label that is no column yet."""
    column = rules.findings_column
    asked = [label for label in labels if label not in rules.derived_labels and label not in frame]
    if column is None or not asked:
        return {}
    check_columns(frame, (column,), file)
    _check_blanks(frame, column, rules, file)
    codes, cells = pd.factorize(frame[column])
    lists = []
    for code, cell in enumerate(cells):
        try:
            lists.append(_split_findings(cell))
        except ValueError:
            line = line_number(frame, int(np.flatnonzero(codes == code)[0]), file)
            raise TableError(
                f"{file}: line {line}, column '{column}': {cell[:60]!r} is no list of findings; A|B|C or ['A', 'B'], "
                "with commas, is expected"
            ) from None
    counts: Counter[str] = Counter()
    for found, count in zip(lists, np.bincount(codes, minlength=len(lists)).tolist(), strict=True):
        counts.update(dict.fromkeys(found, count))
    if rules.may_lack_labels:  # what a table's readers never looked for is not absent
        asked = [label for label in asked if label in counts]
    for label in asked:
        if label not in counts:
            _check_absent(label, asked, counts, column, file)
        others = [(name, count) for name, count in counts.items() if name not in asked]
        warn_of_similar_values(others, label, counts[label], f"{file}: column '{column}'")
    is_unknown = rules.is_unknown(frame[column])
    lists_label = {label: np.array([label in found for found in lists], dtype=np.bool_)[codes] for label in asked}
    return {label: _numbers(is_positive, is_unknown) for label, is_positive in lists_label.items()}


def _numbers(is_positive: npt.NDArray[np.bool_], is_unknown: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
    """(N,) 1 for positives, else NaN where it is unknown, else 0."""
    return np.where(is_positive, 1, np.where(is_unknown, math.nan, 0)).astype(np.float32)


def _check_absent(label: str, asked: list[str], counts: Mapping[str, int], column: str, file: Path) -> None:
    """A label that no row has: a misspelling is an error; of a part of a table, it is a warning."""
    found = [name for name in counts if name not in asked]
    is_misspelt = bool(difflib.get_close_matches(label, found, n=1, cutoff=NEARLY_SPELT))
    message = f"{file}: column '{column}': {unknown_name(label, 'a finding of any image', counts)}"
    if is_misspelt or not any(other in counts for other in asked):
        raise TableError(f"{message}; label_columns may only name findings that occur")
    warn(f"{file}: column '{column}': '{label}' is a finding of no image: it has no positive")


def _split_findings(cell: str) -> set[str]:
    """The findings in `A|B|C`, or in a list written as Python or JSON writes it.

    Raises:
        ValueError: it begins as a list and is none of texts.
    """
    values: Any = cell.split("|")
    if cell.startswith("["):
        try:
            values = ast.literal_eval(cell)
            tokens = list(tokenize.generate_tokens(io.StringIO(cell).readline))
        except (SyntaxError, TypeError, MemoryError, RecursionError, tokenize.TokenError) as error:
            raise ValueError(str(error)) from None
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            raise ValueError("no list of texts")
        # As numpy prints them, without commas, Python would join texts that stand side by side.
        if sum(token.type == tokenize.STRING for token in tokens) != len(values):
            raise ValueError("texts without commas")
    return {value.strip() for value in values} - {""}
