"""The label table that an evaluation is given, and its labels."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from catheters.config.settings import Settings
from catheters.data.tables.label_rules import choose_rows_of_other_table, read_labels, read_patients, scored_labels
from catheters.errors import unknown_name
from catheters.evaluation.truth import Truth
from catheters.io.csv_files import TableError, check_columns, check_ids, read_csv, read_label_cells
from catheters.labels import LabelValue
from catheters.runs.build import build_label_rules

PATIENT_COLUMNS = ("patient", "PatientID", "patient_id", "Patient ID")
"""Names under which patients are looked for in a label table, the first one first."""


@dataclass(frozen=True, kw_only=True)
class LabelSource:
    """A label table from elsewhere, and how it is read.

    Attributes:
        file: the CSV.
        rules: settings whose columns, `keep_rows`, `patient_pattern`, `derived_labels`, `findings_column`,
            `label_values`, `soft_labels`, `soft_label_threshold` and `exclusive` tell how to read it; None: those of
            the run, or else plain 0/1 columns.
        id_column: name of the id column; None: as the predictions call it, or the rules.
        patient_column: name of the patient column; None: the rules', or one of `PATIENT_COLUMNS`.
        label_values: in place of those of the rules; None: theirs.
    """

    file: Path
    rules: Settings | None
    id_column: str | None
    patient_column: str | None
    label_values: Mapping[str, LabelValue] | None = None

    def rules_for(self, run: Settings | None) -> Settings | None:
        """How to read it beside a run's predictions, or a file's (None)."""
        rules = self.rules or run
        if rules is None or self.label_values is None:
            return rules
        return replace(rules, label_values=dict(self.label_values))


def read_truth(
    source: LabelSource, rules: Settings | None, uid_column: str, labels: tuple[str, ...]
) -> tuple[Truth, set[str]]:
    """The labels of a table from elsewhere, and the ids of its rows that `keep_rows` leaves out.

    Args:
        source: where the table is.
        rules: how it is read; None: plain 0/1 columns.
        uid_column: the predictions' id column.
        labels: (K,) which labels.

    Raises:
        TableError: a column or a value is missing or wrong.
    """
    file, frame = source.file, read_csv(source.file)
    if uid_column not in frame and rules is not None and rules.uid_column in frame:
        uid_column = rules.uid_column
    check_columns(frame, (uid_column,), file)
    whole = frame
    if rules is not None:
        frame = choose_rows_of_other_table(frame, rules.keep_rows, file)
    check_ids(frame, uid_column, file)
    patients, pattern = source.patient_column, None
    if patients is None:
        known = PATIENT_COLUMNS if rules is None else (rules.patient_column, *PATIENT_COLUMNS)
        patients = next((name for name in known if name in frame), None)
    if patients is not None:
        check_columns(frame, (patients,), file)
        if rules is not None and patients == rules.patient_column:
            pattern = rules.patient_pattern
    if rules is None:
        _check_labels_are_columns(frame, labels, file)
        true_labels = read_label_cells(frame, labels, file, source.label_values or {})
    else:
        label_rules = build_label_rules(rules)
        targets = read_labels(frame, label_rules, labels, file)
        true_labels = scored_labels(targets, label_rules, labels, rules.exclusive)
    truth = Truth(
        source=str(file),
        uids=frame[uid_column].to_numpy(dtype=np.str_),
        labels=true_labels,
        patient_ids=None if patients is None else read_patients(frame, patients, pattern, file),
        frame=frame,
    )
    return truth, set(whole[uid_column]) - set(frame[uid_column])


def _check_labels_are_columns(frame: pd.DataFrame, labels: tuple[str, ...], file: Path) -> None:
    unknown = [label for label in labels if label not in frame]
    if unknown:
        others = [name for name in frame.columns if name not in labels]
        missing = unknown_name(unknown[0], "a column of it", frame.columns, may_be_meant=others)
        raise TableError(
            f"{file}: the predictions' {missing}; where the table has labels in another form, such as findings in one "
            "column, --config FILE says how training reads it"
        )
