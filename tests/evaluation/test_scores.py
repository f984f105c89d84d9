"""Scores with intervals, their means, their paired differences; devices; folds to fit on."""

import math

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from catheters.evaluation.patients import Patients
from catheters.evaluation.prediction_set import device_type_presence, fitting_folds, probability_of_any
from catheters.evaluation.scores import METRICS, difference, score
from catheters.labels import RANZCR_HEADS
from tests.conftest import SHARED_DATA
from tests.evaluation.conftest import make_predictions


def test_scores_are_scikit_learns(rng: np.random.Generator) -> None:
    targets = (rng.random((90, 3)) < 0.4).astype(np.uint8)
    probabilities = rng.random((90, 3))
    evaluated = make_predictions(targets, probabilities, rng.integers(0, 30, 90).tolist())
    scores = score(evaluated, Patients(evaluated.patient_ids))
    expected = {"roc_auc": roc_auc_score, "average_precision": average_precision_score, "brier": brier_score_loss}
    for metric, function in expected.items():
        values = [function(targets[:, k], probabilities[:, k]) for k in range(3)]
        assert scores.values[metric] == pytest.approx(values)
        assert scores.macro(metric).value == pytest.approx(np.mean(values))
        for label in scores.labels:
            estimate = scores.estimate(metric, label)
            assert estimate.low < estimate.value < estimate.high
    assert list(scores.num_positives) == targets.sum(axis=0).tolist()
    of_first = evaluated.patient_ids[targets[:, 0] == 1]
    assert scores.num_positive_patients[0] == len(set(of_first.tolist()))


def test_macro_means_and_their_differences_have_intervals(rng: np.random.Generator) -> None:
    """That of average precision too; the mean is surer than a label."""
    targets = (rng.random((90, 3)) < 0.4).astype(np.uint8)
    first, second = (make_predictions(targets, rng.random((90, 3))) for _ in range(2))
    patients = Patients(first.patient_ids)
    of_first, of_second = score(first, patients), score(second, patients)
    for scores in (of_first, difference(of_first, of_second)):
        for metric in METRICS:
            mean, one = scores.macro(metric), scores.estimate(metric, "label 0")
            assert mean.value == pytest.approx(scores.values[metric].mean())
            assert mean.low < mean.value < mean.high
            assert mean.high - mean.low < one.high - one.low


def test_brier_contributions_are_the_jackknifes(rng: np.random.Generator) -> None:
    targets, probabilities = (rng.random((40, 2)) < 0.5).astype(np.uint8), rng.random((40, 2))
    evaluated = make_predictions(targets, probabilities, np.repeat(np.arange(10), 4).tolist())
    found = score(evaluated, Patients(evaluated.patient_ids)).contributions["brier"][1].of_patients
    without = [
        brier_score_loss(targets[rows, 1], probabilities[rows, 1])
        for patient in np.unique(evaluated.patient_ids)
        for rows in [evaluated.patient_ids != patient]
    ]
    assert found == pytest.approx(brier_score_loss(targets[:, 1], probabilities[:, 1]) - np.array(without))


def test_a_label_of_one_patient_has_no_interval(rng: np.random.Generator) -> None:
    """However many others there are: of its area nothing is known but this patient's."""
    targets = np.zeros((100, 2), dtype=np.uint8)
    targets[:3, 0], targets[::2, 1] = 1, 1
    evaluated = make_predictions(targets, rng.random((100, 2)), np.repeat(range(25), 4).tolist())
    scores = score(evaluated, Patients(evaluated.patient_ids))
    assert scores.num_positive_patients[0] == 1
    assert not math.isnan(scores.estimate("roc_auc", "label 0").value)
    assert math.isnan(scores.estimate("roc_auc", "label 0").low)
    assert not math.isnan(scores.estimate("brier", "label 0").low)
    assert not math.isnan(scores.estimate("roc_auc", "label 1").low)


def test_what_is_undefined_is_left_out_of_the_mean() -> None:
    evaluated = make_predictions([[1, 0], [0, 0], [1, 0], [0, 0]], [[0.9, 0.1], [0.8, 0.1], [0.3, 0.1], [0.3, 0.1]])
    scores = score(evaluated, Patients(evaluated.patient_ids))
    assert math.isnan(scores.estimate("roc_auc", "label 1").value)
    assert scores.macro("roc_auc").value == pytest.approx(2.5 / 4)
    assert math.isnan(scores.macro("roc_auc", np.array([False, True])).value)
    assert math.isnan(scores.macro("roc_auc", np.array([False, True])).low)


def test_differences_are_paired(rng: np.random.Generator) -> None:
    """Two models that err alike: their difference is surer than either score. A model against itself: 0."""
    targets = (rng.random((300, 1)) < 0.3).astype(np.uint8)
    shared = rng.normal(size=(300, 1))
    first = make_predictions(targets, 1 / (1 + np.exp(-(targets + shared))))
    second = make_predictions(targets, 1 / (1 + np.exp(-(1.2 * targets + shared + 0.1 * rng.normal(size=(300, 1))))))
    patients = Patients(first.patient_ids)
    of_first, of_second = score(first, patients), score(second, patients)
    gap, alone = difference(of_first, of_second).macro("roc_auc"), of_first.macro("roc_auc")
    assert gap.value == pytest.approx(of_second.macro("roc_auc").value - alone.value)
    assert 0 < gap.high - gap.low < (alone.high - alone.low) / 3
    none = difference(of_first, of_first).macro("brier")
    assert none.value == 0 and none.low < 0 < none.high  # as sure as 300 patients are
    assert none.high - none.low < 0.03


def test_device_presence_by_hand() -> None:
    evaluated = make_predictions(
        [[1, 0, 0], [0, 0, 1], [0, 1, 0]], [[0.5, 0.2, 0.9], [0.0, 0.0, 0.5], [1.0, 0.5, 0.0]], labels=["a", "b", "c"]
    )
    presence = device_type_presence(evaluated, {"tube": ("a", "b"), "line": ("c",), "other": ("x", "y")})
    assert presence.labels == ("tube",)  # the line is its label itself
    assert presence.targets.tolist() == [[1], [0], [1]]
    assert presence.probabilities == pytest.approx(np.array([[1 - 0.5 * 0.8], [0.0], [1.0]]))
    # An image has one of these labels at most; those of a CVC are several in one of eight.
    etts, cvcs = ("ETT - Abnormal", "ETT - Normal"), ("CVC - Abnormal", "CVC - Normal")
    tubes = make_predictions([[1, 0, 0, 1]] * 2, [[0.5, 0.4, 0.5, 0.4], [0.9, 0.3, 0.9, 0.3]], labels=[*etts, *cvcs])
    presence = device_type_presence(tubes, {"ETT": etts, "CVC": cvcs})
    assert presence.probabilities == pytest.approx(np.array([[0.9, 0.7], [1.0, 0.93]]))
    none = device_type_presence(evaluated, {})
    assert none.targets.shape == (3, 0)
    assert score(none, Patients(none.patient_ids)).contributions["brier"] == []


def test_probability_of_any_label_of_several_devices() -> None:
    """What is urgent: labels of one device type exclude each other, those of different ones do not."""
    labels = ("NGT - Abnormal", "NGT - Borderline", "Swan Ganz Catheter Present", "CVC - Abnormal")
    any_of = probability_of_any(labels, np.array([[0.3, 0.2, 0.5, 0.1], [np.nan] * 4]))
    assert any_of[0] == pytest.approx(1 - 0.5 * 0.5 * 0.9)
    assert np.isnan(any_of[1])


def test_seldom_together_in_the_real_table() -> None:
    file = SHARED_DATA / "ranzcr" / "train.csv"
    if not file.is_file():
        pytest.skip(f"{file} is not there")
    table = pd.read_csv(file)
    counts = {}
    for device in ("ETT", "NGT", "CVC"):
        num_labels = table[list(RANZCR_HEADS[device])].sum(axis=1)
        counts[device] = (int((num_labels > 1).sum()), int((num_labels > 0).sum()))
    assert counts == {"ETT": (0, 8457), "NGT": (45, 8308), "CVC": (3575, 29333)}


def test_folds_to_fit_on(rng: np.random.Generator) -> None:
    patients = rng.integers(0, 30, 200).tolist()
    targets, probabilities = np.zeros((200, 1)), np.zeros((200, 1))
    own = rng.integers(0, 3, 200).tolist()
    assert fitting_folds(make_predictions(targets, probabilities, patients, own)).tolist() == own
    for folds in (None, [0] * 200):
        dealt = fitting_folds(make_predictions(targets, probabilities, patients, folds))
        assert sorted(set(dealt.tolist())) == [0, 1, 2, 3, 4]
        of_patient: dict[int, set[int]] = {}
        for patient, fold in zip(patients, dealt.tolist(), strict=True):
            of_patient.setdefault(patient, set()).add(fold)
        assert all(len(folds) == 1 for folds in of_patient.values())
    assert fitting_folds(make_predictions(targets, probabilities, [7] * 200)).tolist() == [0] * 200
