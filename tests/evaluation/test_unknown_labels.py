"""Labels that nobody knows: every number is that of the images of which they are known."""

import dataclasses
import math

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from catheters.errors import UserError
from catheters.evaluation.alignment import align_predictions
from catheters.evaluation.calibration import METHODS, fit_calibrator, log_losses
from catheters.evaluation.ensemble import fit_weights
from catheters.evaluation.evaluation import Choices, evaluate
from catheters.evaluation.hard_cases import hardest_cases, is_informative, labels_to_read_again
from catheters.evaluation.operating_points import judge, parse_rule
from catheters.evaluation.patients import Patients
from catheters.evaluation.prediction_set import PredictionSet, device_type_presence
from catheters.evaluation.scores import score
from catheters.evaluation.selective_prediction import abstain
from catheters.evaluation.subgroups import count_device_types
from tests.evaluation.conftest import make_predictions

NAN = math.nan
NUM_IMAGES = 240


@pytest.fixture
def partly(rng: np.random.Generator) -> PredictionSet:
    """Three labels, of which 0, 30 and 60% are unknown, of 60 patients in three folds."""
    targets = (rng.random((NUM_IMAGES, 3)) < 0.4).astype(np.float64)
    probabilities = 1 / (1 + np.exp(-(2 * targets - 1 + rng.normal(size=targets.shape))))
    targets[rng.random(targets.shape) < [0, 0.3, 0.6]] = NAN
    patients = np.arange(NUM_IMAGES) // 4
    return make_predictions(targets, probabilities, patients.tolist(), (patients % 3).tolist())


def alone(evaluated: PredictionSet, k: int) -> PredictionSet:
    """One label and the images of which it is known, as if there were no others."""
    known = np.flatnonzero(~np.isnan(evaluated.targets[:, k]))
    assert evaluated.folds is not None
    return make_predictions(
        evaluated.targets[known][:, [k]],
        evaluated.probabilities[known][:, [k]],
        evaluated.patient_ids[known].tolist(),
        evaluated.folds[known].tolist(),
        labels=[evaluated.labels[k]],
    )


def test_scores_are_scikit_learns_on_the_known(partly: PredictionSet) -> None:
    scores = score(partly, Patients(partly.patient_ids))
    metrics = {"roc_auc": roc_auc_score, "average_precision": average_precision_score, "brier": brier_score_loss}
    for k in range(3):
        part = alone(partly, k)
        targets, probabilities = part.targets[:, 0], part.probabilities[:, 0]
        assert (scores.num_known[k], scores.num_positives[k]) == (len(targets), targets.sum())
        for metric, function in metrics.items():
            assert scores.values[metric][k] == pytest.approx(function(targets, probabilities))
    assert scores.num_images == NUM_IMAGES
    widths = [scores.estimate("roc_auc", label).high - scores.estimate("roc_auc", label).low for label in scores.labels]
    assert widths[0] < widths[1] < widths[2]  # the fewer are known, the wider


def test_intervals_are_those_of_the_patients_with_known_labels(partly: PredictionSet) -> None:
    """Of a label that is unknown of some images: as if these images were not there."""
    scores = score(partly, Patients(partly.patient_ids))
    part = alone(partly, 2)
    expected = score(part, Patients(part.patient_ids))
    for metric in ("roc_auc", "average_precision", "brier"):
        found, by_itself = scores.estimate(metric, scores.labels[2]), expected.estimate(metric, scores.labels[2])
        assert (found.value, found.low, found.high) == pytest.approx(
            (by_itself.value, by_itself.low, by_itself.high), abs=1e-3
        )


@pytest.mark.parametrize("rule", ["youden", "sensitivity=0.9"])
def test_operating_points_and_bands_are_those_of_the_known(partly: PredictionSet, rule: str) -> None:
    """But for intervals: patients without a known image are drawn as well."""
    assert partly.folds is not None
    of_all = judge(partly, partly.folds, parse_rule(rule), Patients(partly.patient_ids), {})
    bands = abstain(partly, partly.folds, of_all, Patients(partly.patient_ids), 0.1)
    for k in range(3):
        part = alone(partly, k)
        assert part.folds is not None
        (point,) = judge(part, part.folds, parse_rule(rule), Patients(part.patient_ids), {})
        (band,) = abstain(part, part.folds, [point], Patients(part.patient_ids), 0.1)
        assert (of_all[k].threshold, of_all[k].fold_thresholds) == (point.threshold, point.fold_thresholds)
        assert (of_all[k].confusion, of_all[k].prevalence) == (point.confusion, point.prevalence)
        assert sum(of_all[k].confusion) == len(part)
        assert (bands[k].band, bands[k].accuracy.value) == (band.band, band.accuracy.value)


@pytest.mark.parametrize("method", METHODS)
def test_calibration_is_fitted_on_the_known(partly: PredictionSet, method: str) -> None:
    maps = fit_calibrator(method, partly).maps
    for k, label in enumerate(partly.labels):
        assert maps[label] == fit_calibrator(method, alone(partly, k)).maps[label]


def test_what_is_to_be_read_again_is_of_the_known(partly: PredictionSet) -> None:
    """Nothing is said of what nobody knows; one label's rows are found as if it were alone."""
    targets = partly.targets.copy()
    wrong = np.flatnonzero(~np.isnan(targets[:, 2]))[:8]
    targets[wrong, 2] = 1 - targets[wrong, 2]
    probabilities = np.where(np.isnan(partly.targets), 0.99, np.where(partly.targets == 1, 0.98, 0.01))
    evaluated = make_predictions(targets, probabilities, folds=(np.arange(NUM_IMAGES) % 3).tolist())
    found = labels_to_read_again(evaluated)
    assert {(case.row, case.label) for case in found} == {(int(row), "label 2") for row in wrong}


def test_presence_of_a_device_type_by_hand() -> None:
    """There with a known positive, absent where all are known to be negative, else unknown."""
    targets = [[1, NAN], [NAN, 1], [0, 0], [0, NAN], [NAN, NAN], [1, 0]]
    evaluated = make_predictions(targets, np.full((6, 2), 0.5), labels=["a", "b"])
    presence = device_type_presence(evaluated, {"tube": ("a", "b")})
    np.testing.assert_array_equal(presence.targets[:, 0], [1, 1, 0, NAN, NAN, 1])
    assert count_device_types(evaluated, {"tube": ("a", "b")}).tolist() == ["1", "1", "0", "", "", "1"]


def test_weights_of_an_ensemble_are_those_of_the_known(rng: np.random.Generator) -> None:
    """Wherever nothing is known of an image, it counts nothing."""
    targets = (rng.random((200, 2)) < 0.4).astype(np.float64)
    stacked = np.clip(targets * 0.4 + 0.3 + rng.normal(0, [[[0.1]], [[0.3]]], (2, 200, 2)), 0.01, 0.99)
    folds = np.arange(200) % 4
    unknown = np.full((100, 2), NAN)
    padded = np.concatenate([stacked, rng.random((2, 100, 2))], axis=1)
    weights = fit_weights(padded, np.concatenate([targets, unknown]), np.concatenate([folds, np.arange(100) % 4]))
    np.testing.assert_allclose(weights, fit_weights(stacked, targets, folds), atol=1e-4)


def test_everything_of_a_label_that_nobody_knows(partly: PredictionSet) -> None:
    """Is undefined, in one go; the others are not touched."""
    targets = partly.targets.copy()
    targets[:, 1] = NAN
    assert partly.folds is not None
    evaluated = make_predictions(
        targets, partly.probabilities, partly.patient_ids.tolist(), partly.folds.tolist(), ["a", "b", "c"]
    )
    evaluation = evaluate(evaluated, {"tube": ("a", "b"), "line": ("c",)}, {}, Choices())
    assert math.isnan(evaluation.scores.values["roc_auc"][1]) and math.isnan(evaluation.scores.values["brier"][1])
    assert math.isnan(evaluation.points[1].threshold) and math.isnan(evaluation.points[1].prevalence)
    assert "b" in evaluation.uninformative_labels
    macro = evaluation.scores.macro("roc_auc")
    assert macro.value == pytest.approx(evaluation.scores.values["roc_auc"][[0, 2]].mean())
    assert macro.has_interval


def test_models_that_know_the_same_are_aligned(partly: PredictionSet) -> None:
    """NaN is NaN; another label is still another one."""
    other = partly.take(np.arange(NUM_IMAGES)[::-1].copy())
    first, second = align_predictions([partly, other])
    np.testing.assert_array_equal(first.targets, second.targets)
    changed = partly.targets.copy()
    changed[np.flatnonzero(np.isnan(changed[:, 1]))[0], 1] = 1
    known = make_predictions(changed, partly.probabilities, partly.patient_ids.tolist())
    with pytest.raises(UserError, match="has other true labels"):
        align_predictions([partly, known])


def test_a_fold_that_does_not_know_a_label(partly: PredictionSet) -> None:
    """Has a threshold all the same, that of the others: their images' heatmaps are judged by it."""
    targets = partly.targets.copy()
    assert partly.folds is not None
    targets[partly.folds == 2, 0] = NAN
    evaluated = make_predictions(
        targets, partly.probabilities, partly.patient_ids.tolist(), partly.folds.tolist(), ["a", "b", "c"]
    )
    folds = partly.folds
    (point, *_) = judge(evaluated, folds, parse_rule("youden"), Patients(evaluated.patient_ids), {})
    assert point.fold_thresholds[2] == point.threshold
    assert len(hardest_cases(evaluated, folds, [point])) == 10


def test_a_group_is_calibrated_on_images_that_know_all_of_it(partly: PredictionSet) -> None:
    probabilities = partly.probabilities / partly.probabilities.sum(axis=1, keepdims=True)
    targets = np.where(np.isnan(partly.targets), NAN, np.eye(3)[probabilities.argmax(axis=1)])
    group = (partly.labels,)
    of_all = dataclasses.replace(partly, targets=targets, probabilities=probabilities, exclusive=group)
    known = ~np.isnan(targets).any(axis=1)
    (fitted,), (expected,) = (fit_calibrator("platt", of).groups for of in (of_all, of_all.take(known)))
    assert fitted.slope == expected.slope


def test_the_numbers_of_what_is_known_alone_are_those_of_before(rng: np.random.Generator) -> None:
    """To the last bit: means over images as NumPy adds up the columns of a whole table."""
    targets = (rng.random((500, 11)) < 0.3).astype(np.uint8)
    evaluated = make_predictions(targets, rng.random(targets.shape))
    squared = (evaluated.probabilities - targets) ** 2
    scores = score(evaluated, Patients(evaluated.patient_ids))
    np.testing.assert_array_equal(scores.values["brier"], squared.mean(axis=0))
    likelihoods = np.where(targets == 1, evaluated.probabilities, 1 - evaluated.probabilities)
    np.testing.assert_array_equal(log_losses(evaluated), -np.log(likelihoods).mean(axis=0))
    np.testing.assert_array_equal(is_informative(evaluated), squared.mean(axis=0) < targets.var(axis=0))
    everything = evaluate(evaluated, {}, {}, Choices())
    (plain,) = (of for of in everything.calibrations if of.method == "none")
    prevalence = targets.mean(axis=0)
    assert plain.brier_skill == (1 - squared.mean(axis=0) / (prevalence * (1 - prevalence))).mean()
