"""Bands by hand, and that new images are called wrong no more often than was asked for."""

import math

import numpy as np
import pytest

from catheters.evaluation.operating_points import judge, parse_rule
from catheters.evaluation.patients import Patients
from catheters.evaluation.prediction_set import fitting_folds
from catheters.evaluation.selective_prediction import EVERYTHING, Band, abstain, choose_band
from tests.evaluation.conftest import make_predictions


def test_cuts_by_hand() -> None:
    """Of 9 positives and 9 negatives a tenth of the next ten is one: the lowest positive, the highest negative."""
    positives = np.array([0.3, 0.5, 0.55, 0.6, 0.65, 0.7, 0.8, 0.9, 0.95])
    negatives = np.array([0.02, 0.05, 0.1, 0.12, 0.2, 0.25, 0.35, 0.4, 0.62])
    targets = np.repeat([1, 0], 9).astype(np.uint8)
    band = choose_band(targets, np.concatenate([positives, negatives]), 0.5, 0.1)
    assert (band.low, band.high) == (0.3, pytest.approx(0.62))
    deferred = band.is_deferred(np.array([0.29, 0.3, 0.62, 0.63]))
    assert deferred.tolist() == [False, True, True, False]
    band = choose_band(targets, np.concatenate([positives, negatives]), 0.45, 0.2)  # the second of each: .5 and .4
    assert (band.low, band.high) == (0.45, 0.45)
    assert choose_band(targets, np.concatenate([positives, negatives]), 0.5, 0.09) == EVERYTHING


@pytest.mark.parametrize(("threshold", "low", "high"), [(0.5, 0.5, 0.5), (0.1, 0.1, 0.2), (0.99, 0.8, 0.99)])
def test_classes_far_apart(threshold: float, low: float, high: float) -> None:
    """One cut at the operating point, as far as both errors are rare there."""
    targets = np.repeat([1, 0], 30).astype(np.uint8)
    probabilities = np.concatenate([np.linspace(0.8, 0.9, 30), np.linspace(0.1, 0.2, 30)])
    band = choose_band(targets, probabilities, threshold, 0.05)
    assert (band.low, band.high) == (pytest.approx(low), pytest.approx(high))


def test_what_is_decided_is_decided_as_the_operating_point_does(rng: np.random.Generator) -> None:
    targets = (rng.random(300) < 0.3).astype(np.uint8)
    probabilities = 1 / (1 + np.exp(-(2.5 * targets - 1 + rng.normal(size=300))))
    for threshold in (0.05, 0.3, 0.6, 0.95):
        band = choose_band(targets, probabilities, threshold, 0.1)
        decided = ~band.is_deferred(probabilities)
        assert ((probabilities >= threshold) == (probabilities >= band.high))[decided].all()


def test_new_images_are_predicted_wrongly_as_often_as_was_asked_for(rng: np.random.Generator) -> None:
    """On average over draws of 60 positives and 400 negatives, and hardly less often."""

    def draw(num_positives: int, num_negatives: int) -> tuple[np.ndarray, np.ndarray]:
        targets = np.repeat([1, 0], [num_positives, num_negatives]).astype(np.uint8)
        return targets, 1 / (1 + np.exp(-(1.5 * targets - 1 + rng.normal(size=len(targets)))))

    new_targets, new_probabilities = draw(20_000, 20_000)
    missed, alarms = [], []
    for _ in range(400):
        band = choose_band(*draw(60, 400), 0.45, 0.1)
        missed.append((new_probabilities[new_targets == 1] < band.low).mean())
        alarms.append((new_probabilities[new_targets == 0] >= band.high).mean())
    assert 0.085 < np.mean(missed) < 0.103
    assert 0.095 < np.mean(alarms) < 0.103


def test_judged_on_other_folds(rng: np.random.Generator) -> None:
    targets = (rng.random((600, 2)) < [0.4, 0.0]).astype(np.uint8)
    probabilities = 1 / (1 + np.exp(-(2.0 * targets - 1 + rng.normal(size=targets.shape))))
    evaluated = make_predictions(targets, probabilities, folds=[number % 3 for number in range(600)])
    folds, patients = fitting_folds(evaluated), Patients(evaluated.patient_ids)
    points = judge(evaluated, folds, parse_rule("youden"), patients, {})
    one, never = abstain(evaluated, folds, points, patients, 0.05)
    is_predicted, is_decided = np.zeros(600, dtype=bool), np.zeros(600, dtype=bool)
    for fold in range(3):
        here = folds == fold
        band = choose_band(targets[~here, 0], probabilities[~here, 0], 0.5, 0.05)
        is_predicted[here] = probabilities[here, 0] >= band.high
        is_decided[here] = ~band.is_deferred(probabilities[here, 0])
    is_positive = targets[:, 0] == 1
    assert one.decided.value == pytest.approx(is_decided.mean())
    assert one.missed.value == pytest.approx((is_positive & is_decided & ~is_predicted).sum() / is_positive.sum())
    assert one.false_alarms.value == pytest.approx((is_predicted & ~is_positive).sum() / (~is_positive).sum())
    assert one.accuracy.value == pytest.approx((is_predicted == is_positive)[is_decided].mean())
    assert one.accuracy.low < one.accuracy.value < one.accuracy.high
    assert 0.3 < one.decided.value < 0.95
    assert never.band == EVERYTHING and math.isnan(never.decided.value)
    assert Band(low=-math.inf, high=math.inf).is_deferred(np.array([0.0, 1.0])).all()
