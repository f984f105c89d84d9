"""The composition root: settings in, the parts that they describe out. No other part below reads settings whole."""

from pathlib import Path

from catheters.checkpoints.parts import build_classifier, build_preprocessing
from catheters.config.settings import Settings
from catheters.data.tables.label_rules import LabelRules
from catheters.data.tables.label_table import TableSource

__all__ = ["build_classifier", "build_preprocessing", "build_table_source"]


def build_label_rules(settings: Settings) -> LabelRules:
    """How a table's cells become labels."""
    return LabelRules(
        label_values=settings.label_values,
        derived_labels=settings.derived_labels,
        findings_column=settings.findings_column,
    )


def build_table_source(settings: Settings) -> TableSource:
    """Where the label table stands, and how it is read."""
    return TableSource(
        dataset_folder=Path(settings.dataset_folder),
        label_table=settings.label_table,
        uid_column=settings.uid_column,
        patient_column=settings.patient_column,
        patient_pattern=settings.patient_pattern,
        path_pattern=settings.path_pattern,
        dicom_id=settings.dicom_id,
        dicom_headers=Path(settings.cache_folder) / f"{settings.cache_name}_dicom_ids.json",
        keep_rows=settings.keep_rows,
        label_columns=settings.label_columns,
        label_rules=build_label_rules(settings),
        label_corrections=None if settings.label_corrections is None else Path(settings.label_corrections),
        exclude_ids=None if settings.exclude_ids is None else Path(settings.exclude_ids),
        exclusive=settings.exclusive,
        exclusive_conflicts=settings.exclusive_conflicts,
        fold_column=None if settings.all_data else settings.fold_column,
        num_folds=settings.num_folds,
    )
