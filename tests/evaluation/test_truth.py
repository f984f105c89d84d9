"""Predictions beside the label table: rows by id, patients and folds from wherever they are known."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from catheters.evaluation.truth import Truth, hold_against
from catheters.io.csv_files import TableError

FILE = Path("p.csv")


def make_truth(patients: list[str] | None = None) -> Truth:
    uids = np.array(["a", "b", "c"])
    return Truth(
        source="labels.csv",
        uids=uids,
        labels=np.array([[1, 0], [0, 0], [1, 1]], dtype=np.uint8),
        patient_ids=None if patients is None else np.array(patients),
        frame=pd.DataFrame({"id": uids}),
    )


def predictions(**columns: list[str]) -> pd.DataFrame:
    return pd.DataFrame({"id": ["c", "a"], "x": [0.9, 0.2], "y": [0.3, 0.4], **columns})


def test_rows_are_matched_by_id() -> None:
    evaluated, rows = hold_against(make_truth(["p", "q", "r"]), predictions(), "id", ("x", "y"), FILE, "model")
    assert rows.tolist() == [2, 0]
    assert evaluated.targets.tolist() == [[1, 1], [1, 0]]
    assert evaluated.probabilities.tolist() == [[0.9, 0.3], [0.2, 0.4]]
    assert (evaluated.uids.tolist(), evaluated.patient_ids.tolist()) == (["c", "a"], ["r", "p"])
    assert evaluated.folds is None
    with pytest.raises(TableError, match=r"p\.csv: 1 of 2 ids have no row in labels\.csv, 'z' for one"):
        hold_against(make_truth(), predictions(id=["a", "z"]), "id", ("x", "y"), FILE, "model")


def test_patients_of_the_predictions_or_of_none() -> None:
    evaluated, _ = hold_against(make_truth(), predictions(patient=["s", "s"]), "id", ("x", "y"), FILE, "model")
    assert evaluated.patient_ids.tolist() == ["s", "s"]
    evaluated, _ = hold_against(make_truth(), predictions(patient=["12.0", "12"]), "id", ("x", "y"), FILE, "model")
    assert evaluated.patient_ids.tolist() == ["12", "12"]
    assert evaluated.caveats == ()
    evaluated, _ = hold_against(make_truth(), predictions(), "id", ("x", "y"), FILE, "model")
    assert evaluated.patient_ids.tolist() == ["c", "a"]
    (caveat,) = evaluated.caveats
    assert caveat.kind == "no_patients"
    assert "intervals take each for a patient of its own" in caveat.text


@pytest.mark.parametrize(
    ("theirs", "is_warned"),
    [(["3", "1"], False), (["3", "3"], True), (["p", "r"], False), (["", ""], False)],
)
def test_patients_of_the_table_count(theirs: list[str], is_warned: bool) -> None:
    """Images c and a are of two in the table; other names, or none, are no matter."""
    truth = make_truth(["p", "q", "r"])
    evaluated, _ = hold_against(truth, predictions(patient=theirs), "id", ("x", "y"), FILE, "model")
    assert evaluated.patient_ids.tolist() == ["r", "p"]
    warning = "p.csv and labels.csv name other patients: images are of one in the one and of two in the other"
    assert [caveat.kind for caveat in evaluated.caveats] == ["other_patients"] * is_warned
    assert all(warning in caveat.text for caveat in evaluated.caveats)


def test_patients_in_several_folds_are_warned_of() -> None:
    for patients, is_warned in ((["p", "q", "p"], True), (["p", "q", "r"], False)):
        given = predictions(fold=["0", "1"])
        evaluated, _ = hold_against(make_truth(patients), given, "id", ("x", "y"), FILE, "model")
        assert [caveat.kind for caveat in evaluated.caveats] == ["patients_in_several_folds"] * is_warned
        assert all("1 of 1 patients are in several folds" in caveat.text for caveat in evaluated.caveats)


def test_an_empty_patient_is_refused() -> None:
    with pytest.raises(TableError, match=r"p\.csv: column 'patient' is empty in line 3"):
        hold_against(make_truth(), predictions(patient=["s", " "]), "id", ("x", "y"), FILE, "model")


@pytest.mark.parametrize(
    ("folds", "expected"),
    [(["1", "0"], [1, 0]), (["1.0", "0.0"], [1, 0]), (["b", "a"], [1, 0]), (["", "1"], None)],
)
def test_folds(folds: list[str], expected: list[int] | None) -> None:
    evaluated, _ = hold_against(make_truth(["p"] * 3), predictions(fold=folds), "id", ("x", "y"), FILE, "model")
    assert (None if evaluated.folds is None else evaluated.folds.tolist()) == expected
    found = "folds_passed_over" if expected is None else "patients_in_several_folds"
    assert [caveat.kind for caveat in evaluated.caveats] == [found]
