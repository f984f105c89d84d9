"""Slope and intercept against scikit-learn and refits; the simplest calibration unless another one is better."""

import numpy as np
import pytest
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression

from catheters.evaluation.calibration import METHODS
from catheters.evaluation.calibration_choice import (
    CalibrationStep,
    calibrate_by_all,
    choose_calibration,
    fit_chosen,
)
from catheters.evaluation.intervals import Estimate
from catheters.evaluation.patients import Patients
from catheters.evaluation.prediction_set import PredictionSet, fitting_folds
from catheters.evaluation.recalibration import fit_intercept, fit_slope, recalibrate
from tests.evaluation.conftest import make_predictions


def make_distorted(rng: np.random.Generator, slope: float, intercept: float, num_images: int = 4000) -> PredictionSet:
    """Probabilities whose logits are right once they are multiplied and shifted; four images per patient."""
    right = expit(rng.normal(-1, 1.5, (num_images, 2)))
    targets = (rng.random(right.shape) < right).astype(np.float64)
    return make_predictions(
        targets, expit((logit(right) - intercept) / slope), patients=(np.arange(num_images) // 4).tolist()
    )


def test_slope_and_intercept_are_scikit_learns(rng: np.random.Generator) -> None:
    evaluated = make_distorted(rng, 0.6, -0.4)
    targets, logits = evaluated.targets[:, 0].astype(np.uint8), logit(evaluated.probabilities[:, 0])
    fitted = LogisticRegression(C=np.inf, tol=1e-10).fit(logits[:, None], targets)
    assert fit_slope(targets, logits) == pytest.approx((fitted.intercept_[0], fitted.coef_[0, 0]), abs=1e-4)
    found = recalibrate(evaluated, Patients(evaluated.patient_ids))[0]
    assert found.slope.low < 0.6 < found.slope.high and found.intercept.low < -0.4 < found.intercept.high
    moved = fit_intercept(targets, logits)
    assert expit(logits + moved).sum() == pytest.approx(targets.sum())
    expected = evaluated.targets[:, 0].sum() / evaluated.probabilities[:, 0].sum()
    assert found.observed_to_expected.value == pytest.approx(expected)
    assert found.in_the_large.value == pytest.approx(moved)


def test_intervals_are_near_those_of_refits(rng: np.random.Generator) -> None:
    """One step of Newton's method against fits of resampled patients."""
    evaluated = make_distorted(rng, 0.8, 0.2, num_images=1200)
    targets, logits = evaluated.targets[:, 0].astype(np.uint8), logit(evaluated.probabilities[:, 0])
    refits = []
    for _ in range(300):
        rows = (rng.integers(0, 300, 300)[:, None] * 4 + np.arange(4)).ravel()
        refits.append((*fit_slope(targets[rows], logits[rows])[::-1], fit_intercept(targets[rows], logits[rows])))
    spreads = np.std(refits, axis=0)
    found = recalibrate(evaluated, Patients(evaluated.patient_ids))[0]
    for estimate, spread in zip((found.slope, found.intercept, found.in_the_large), spreads, strict=True):
        assert (estimate.high - estimate.low) / (2 * 1.96) == pytest.approx(spread, rel=0.15)


def test_what_has_no_slope(rng: np.random.Generator) -> None:
    """Classes that a threshold keeps apart, equal probabilities, one class, one unknown image."""
    targets = np.array([[1, 1, 0, 1], [1, 0, 0, 0], [0, 1, 0, 1], [0, 0, 0, 0], [np.nan, 1, 0, 0]])
    probabilities = np.array([[0.9, 0.3, 0.1, 0.8], [0.8, 0.3, 0.2, 0.6], [0.3, 0.3, 0.3, 0.5], [0.0, 0.3, 0.4, 0.1]])
    probabilities = np.concatenate([probabilities, [[0.7, 0.3, 0.5, 0.4]]])
    apart, equal, one_class, mixed = recalibrate(make_predictions(targets, probabilities), Patients(np.arange(5)))
    assert np.isnan([apart.slope.value, apart.intercept.value, equal.slope.value, one_class.in_the_large.value]).all()
    assert apart.observed_to_expected.value == pytest.approx(2 / 2.0)
    assert equal.in_the_large.value == pytest.approx(logit(0.6) - logit(0.3))
    assert np.isnan(one_class.observed_to_expected.value)
    assert np.isfinite([mixed.slope.value, mixed.in_the_large.value]).all()


def choose(evaluated: PredictionSet, asked: str = "best") -> tuple[str, str, list[CalibrationStep]]:
    calibrations = calibrate_by_all(evaluated, fitting_folds(evaluated))
    choice = choose_calibration(asked, evaluated, calibrations, Patients(evaluated.patient_ids))
    assert fit_chosen(choice.method, evaluated).method == choice.method
    return choice.method, choice.reason, list(choice.steps)


def test_the_simplest_that_is_needed_is_kept(rng: np.random.Generator) -> None:
    """Right probabilities are left alone; a wrong temperature takes a temperature, and a shift takes Platt."""
    assert choose(make_distorted(rng, 1.0, 0.0))[0] == "none"
    assert choose(make_distorted(rng, 0.5, 0.0))[0] == "temperature"
    method, reason, steps = choose(make_distorted(rng, 0.5, -1.0))
    assert method == "platt" and "beyond the interval of a proper score" in reason
    assert [step.method for step in steps] == list(METHODS)
    assert steps[-1].simpler == "platt" and not steps[-1].is_better
    assert choose(make_distorted(rng, 1.0, 0.0), "isotonic")[:2] == ("isotonic", "it was asked for")


def test_a_step_is_the_difference_of_the_table(rng: np.random.Generator) -> None:
    evaluated = make_distorted(rng, 0.5, -0.3, num_images=600)
    calibrations = {one.method: one for one in calibrate_by_all(evaluated, fitting_folds(evaluated))}
    for step in choose(evaluated)[2]:
        method, simpler = calibrations[step.method], calibrations[step.simpler]
        assert step.brier_skill.value == pytest.approx(method.brier_skill - simpler.brier_skill)
        assert step.log_loss.value == pytest.approx(method.log_loss - simpler.log_loss)


@pytest.mark.parametrize(
    ("brier_skill", "log_loss", "is_better"),
    [
        ((0.001, 0.002), (-0.01, 0.01), True),
        ((-0.001, 0.002), (-0.02, -0.01), True),
        ((0.001, 0.002), (0.01, 0.02), False),  # the scores contradict each other
        ((-0.001, 0.002), (-0.02, 0.01), False),
        ((float("nan"), float("nan")), (float("nan"), float("nan")), False),
    ],
)
def test_what_is_better(brier_skill: tuple[float, float], log_loss: tuple[float, float], is_better: bool) -> None:
    first, second = (Estimate(value=low, low=low, high=high) for low, high in (brier_skill, log_loss))
    step = CalibrationStep(method="platt", simpler="none", brier_skill=first, log_loss=second)
    assert step.is_better is is_better
    assert ("is better than none" in str(step)) == is_better


def test_images_of_one_class_or_patient_choose_nothing(rng: np.random.Generator) -> None:
    assert choose(make_predictions(np.zeros((20, 1)), rng.random((20, 1))))[0] == "none"
    alone = make_predictions(rng.integers(0, 2, (20, 1)), rng.random((20, 1)), patients=[0] * 20)
    assert choose(alone) == ("none", "no other patients could judge one", [])
