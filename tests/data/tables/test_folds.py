"""Folds: whole patients, balanced labels."""

import dataclasses

import numpy as np
import pytest

from catheters.config.settings import Settings
from catheters.data.tables.folds import assign_folds, choose_folds, fold_table
from catheters.data.tables.label_table import read_label_table
from catheters.errors import UserError
from catheters.runs.build import build_table_source
from tests.conftest import SHARED_DATA


def test_hand_worked_case() -> None:
    """Four patients with one positive each and four without: each of the two folds gets two and two."""
    patients = np.array([f"p{i}" for i in range(8)])
    labels = np.array([[1]] * 4 + [[0]] * 4, dtype=np.uint8)
    folds = assign_folds(patients, labels, num_folds=2, seed=0)
    assert np.bincount(folds, weights=labels[:, 0]).tolist() == [2, 2]
    assert np.bincount(folds).tolist() == [4, 4]


def test_patients_stay_whole_and_seed_decides(rng: np.random.Generator) -> None:
    patients = np.array([f"p{i}" for i in rng.integers(0, 60, 400)])
    labels = (rng.random((400, 4)) < [0.5, 0.2, 0.1, 0.05]).astype(np.uint8)
    folds = assign_folds(patients, labels, num_folds=4, seed=0)
    for patient in np.unique(patients):
        assert len(set(folds[patients == patient])) == 1
    assert set(folds) == {0, 1, 2, 3}
    assert (folds == assign_folds(patients, labels, num_folds=4, seed=0)).all()
    assert (folds != assign_folds(patients, labels, num_folds=4, seed=1)).any()


def test_fold_seed(settings: Settings) -> None:
    """The seed alone decides the folds, as it always did, unless there is one of their own."""
    table = read_label_table(build_table_source(settings))

    def folds(**changes: int) -> list[int]:
        seed = dataclasses.replace(settings, **changes).seed_of_folds
        folds: list[int] = choose_folds(table, 5, seed).tolist()
        return folds

    expected = assign_folds(table.patient_ids, table.labels, num_folds=5, seed=4).tolist()
    assert folds(seed=4) == folds(fold_seed=4) == folds(seed=6, fold_seed=4) == expected
    assert folds(seed=6) != expected
    assert folds(seed=4, fold_seed=0) == folds(seed=0) != expected


def test_a_label_without_positives_is_no_trouble() -> None:
    patients = np.array(["a", "b", "c", "d"])
    folds = assign_folds(patients, np.zeros((4, 2), dtype=np.uint8), num_folds=2, seed=0)
    assert np.bincount(folds).tolist() == [2, 2]


def test_fewer_patients_than_folds() -> None:
    with pytest.raises(UserError, match="num_folds=3, but the table has 2 patients"):
        assign_folds(np.array(["a", "b", "b"]), np.zeros((3, 1), dtype=np.uint8), num_folds=3, seed=0)


def test_fold_table() -> None:
    text = fold_table(np.array([0, 1, 1]), np.array(["a", "b", "b"]), np.array([[1], [0], [1]]), ("L",))
    rows = [line.split() for line in text.splitlines()[1:]]
    assert rows == [["images", "1", "2"], ["patients", "1", "1"], ["L", "1", "1"]]


@pytest.mark.skipif(not (SHARED_DATA / "ranzcr").is_dir(), reason="the real RANZCR label table is not at hand")
@pytest.mark.parametrize("seed", [0, 1])
def test_real_ranzcr_labels(seed: int) -> None:
    table = read_label_table(build_table_source(Settings(dataset_folder=str(SHARED_DATA / "ranzcr"))))
    assert len(table) == 30_083
    folds = assign_folds(table.patient_ids, table.labels, num_folds=5, seed=seed)
    fold_of_patient: dict[str, int] = {}
    for patient, fold in zip(table.patient_ids.tolist(), folds.tolist(), strict=True):
        assert fold_of_patient.setdefault(patient, fold) == fold
    fifth = table.labels.sum(axis=0) / 5
    for fold in range(5):
        difference = np.abs(table.labels[folds == fold].sum(axis=0) - fifth)
        assert (difference <= np.maximum(0.05 * fifth, 2)).all()


def test_positives_of_how_many_known_ones() -> None:
    """A column is as wide as its longest count."""
    labels = np.zeros((40000, 2), dtype=np.float32)
    labels[::4, 0] = 1
    labels[1::4, 1] = np.nan
    folds = (np.arange(40000) >= 1000).astype(np.int8)
    table = fold_table(folds, np.arange(40000).astype(np.str_), labels, ("a", "b")).splitlines()
    assert [line.split() for line in table[-2:]] == [["a", "250", "9750"], ["b", "0/750", "0/29250"]]
    assert len({len(line) for line in table}) == 1


def test_known_images_are_shared_among_folds(rng: np.random.Generator) -> None:
    """A label that a tenth of the patients have known is known in every fold, as are its positives."""
    patients = np.repeat(np.arange(100), 3)
    labels = (rng.random((300, 2)) < 0.5).astype(np.float32)
    labels[patients >= 10, 1] = np.nan
    folds = assign_folds(patients.astype(np.str_), labels, 5, seed=0)
    known = [int((~np.isnan(labels[folds == fold, 1])).sum()) for fold in range(5)]
    assert known == [6] * 5
    assert np.bincount(folds).tolist() == [60] * 5
