"""Table 1 against pandas."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from catheters.runs.evaluation.inputs import read_run
from catheters.runs.paper.table_one import describe_splits, median_and_quartiles

pytestmark = pytest.mark.slow


def test_every_split_by_pandas(study_run: Path) -> None:
    found = pd.read_csv(study_run / "table1.csv", dtype=str, keep_default_na=False).set_index("characteristic")
    table = pd.read_csv(study_run.parent.parent / "data/train.csv", dtype=str, na_filter=False)
    predictions = pd.read_csv(study_run / "predictions.csv", dtype=str).set_index("StudyInstanceUID")
    evaluated = table[table["StudyInstanceUID"].isin(predictions.index)].copy()
    evaluated["fold"] = predictions.loc[evaluated["StudyInstanceUID"], "fold"].to_numpy()
    splits = {"evaluated": evaluated, "not evaluated": table[3:5]}
    for fold in "01":
        splits[f"fold {fold}, validation"] = evaluated[evaluated["fold"] == fold]
        splits[f"fold {fold}, training"] = evaluated[evaluated["fold"] != fold]
    assert set(found.columns) == set(splits)
    for name, rows in splits.items():
        column = found[name]
        assert column["Images"] == str(len(rows))
        assert column["Patients"] == str(rows["PatientID"].nunique())
        positive = (rows["CVC - Normal"] == "1").sum()
        assert column["  CVC - Normal"] == f"{positive} ({100 * positive / len(rows):.1f})"
        ages = rows["Patient Age"].str.rstrip("Y").astype(int)
        low, middle, high = (f"{np.quantile(ages, level):.1f}".removesuffix(".0") for level in (0.25, 0.5, 0.75))
        assert column["Patient Age, median (IQR)"] == f"{middle} ({low} to {high})"
        known = rows[rows["Sex"] != ""]
        women = (known["Sex"] == "F").sum()
        assert column["  F"] == (f"{women} ({100 * women / len(known):.1f})" if len(known) else "-")
        assert column["  not given, n"] == str(len(rows) - len(known))


def test_the_figure_leaves_training_parts_out(study_run: Path) -> None:
    """They follow from the validation parts; other columns are described when they are asked for."""
    text = (study_run / "table1.svg").read_text()
    assert "fold 1, validation" in text and "fold 1, training" not in text
    assert "Patient Age, median (IQR)" in text
    assert "note" not in text
    described = describe_splits(read_run(study_run, None), ["note"])
    assert "note has 37 different values and is not described." in described.notes


def test_median_and_quartiles() -> None:
    """By hand, linear between values as numpy has it."""
    assert median_and_quartiles(np.array([1.0, 2.0, 3.0, 4.0])) == "2.5 (1.8 to 3.2)"
    assert median_and_quartiles(np.array([10.0, 20.0, 30.0])) == "20 (15 to 25)"
    assert median_and_quartiles(np.array([])) == "-"
