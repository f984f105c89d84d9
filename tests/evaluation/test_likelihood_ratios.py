"""Likelihood ratios by hand, their intervals against the formula for independent images, and by simulation."""

import math

import numpy as np
import numpy.typing as npt
import pytest

from catheters.evaluation.intervals import Estimate
from catheters.evaluation.likelihood_ratios import likelihood_ratios
from catheters.evaluation.operating_points import judge as judge_points
from catheters.evaluation.operating_points import parse_rule
from catheters.evaluation.patients import Patients
from catheters.evaluation.prediction_set import fitting_folds
from tests.evaluation.conftest import correlated, make_predictions


def ratios_of(
    truth: npt.ArrayLike, predicted: npt.ArrayLike, patients: npt.ArrayLike | None = None
) -> tuple[Estimate, Estimate]:
    positive, called = np.asarray(truth) == 1, np.asarray(predicted) == 1
    of = Patients(np.arange(len(positive)) if patients is None else np.asarray(patients))
    return likelihood_ratios(of.ratio(positive & called, positive), of.ratio(~positive & ~called, ~positive))


def table(
    true_positive: int, false_negative: int, false_positive: int, true_negative: int
) -> tuple[list[int], list[int]]:
    truth = [1] * (true_positive + false_negative) + [0] * (false_positive + true_negative)
    predicted = [1] * true_positive + [0] * false_negative + [1] * false_positive + [0] * true_negative
    return truth, predicted


def test_values_by_hand() -> None:
    """Sensitivity 0.8, specificity 0.9."""
    above, below = ratios_of(*table(80, 20, 10, 90))
    assert above.value == pytest.approx(0.8 / 0.1)
    assert below.value == pytest.approx(0.2 / 0.9)


def test_of_independent_images_as_the_log_method_has_it() -> None:
    """Simel, Samsa and Matchar, Journal of Clinical Epidemiology 44 (1991): the variance of the logarithm."""
    truth, predicted = table(8000, 2000, 1000, 9000)
    for found, (hits, positives, alarms, negatives) in zip(
        ratios_of(truth, predicted), ((8000, 10_000, 1000, 10_000), (2000, 10_000, 9000, 10_000)), strict=True
    ):
        error = math.sqrt(1 / hits - 1 / positives + 1 / alarms - 1 / negatives)
        value = (hits / positives) / (alarms / negatives)
        assert math.log(found.low) == pytest.approx(math.log(value) - 1.96 * error, abs=0.04 * error)
        assert math.log(found.high) == pytest.approx(math.log(value) + 1.96 * error, abs=0.04 * error)


def test_images_of_one_patient_say_no_more_than_one() -> None:
    """Every image twice: the same patients, the same interval."""
    truth, predicted = table(30, 12, 9, 49)
    once = ratios_of(truth, predicted)
    twice = ratios_of(np.repeat(truth, 2), np.repeat(predicted, 2), np.repeat(np.arange(len(truth)), 2))
    for one, other in zip(once, twice, strict=True):
        assert (other.low, other.high) == pytest.approx((one.low, one.high))
    independent = ratios_of(np.repeat(truth, 2), np.repeat(predicted, 2))
    assert independent[0].high < once[0].high


def test_at_the_ends() -> None:
    above, below = ratios_of(*table(40, 0, 0, 60))
    assert (above.value, above.high, below.value, below.low) == (math.inf, math.inf, 0, 0)
    # Both exact binomial ends: 1 - 0.025^(1/n) is the upper one of nothing among n.
    missed, alarms = 1 - 0.025 ** (1 / 40), 1 - 0.025 ** (1 / 60)
    assert above.low == pytest.approx((1 - missed) / alarms)
    assert below.high == pytest.approx(missed / (1 - alarms))
    nothing_called = ratios_of(*table(0, 10, 0, 10))
    assert math.isnan(nothing_called[0].value)
    assert nothing_called[1].value == 1
    one_class = ratios_of([1, 1], [1, 0])
    assert all(math.isnan(ratio.value) for ratio in one_class)


def test_an_operating_point_has_them(rng: np.random.Generator) -> None:
    targets, scores, patients = correlated(rng, 80, 3, 1.5)
    evaluated = make_predictions(targets[:, None], scores[:, None] / 20 + 0.5, patients.tolist())
    point = judge_points(
        evaluated, fitting_folds(evaluated), parse_rule("youden"), Patients(evaluated.patient_ids), {"label 0": 0.5}
    )[0]
    expected = point.sensitivity.value / (1 - point.specificity.value)
    assert point.positive_likelihood_ratio.value == pytest.approx(expected)
    assert point.positive_likelihood_ratio.low < expected < point.positive_likelihood_ratio.high
    expected = (1 - point.sensitivity.value) / point.specificity.value
    assert point.negative_likelihood_ratio.value == pytest.approx(expected)


def test_coverage(rng: np.random.Generator) -> None:
    """Of 400 trials with 60 patients of four images that are alike; the truth is that of a trial 500 times as large."""

    def draw(num_patients: int) -> tuple[Estimate, Estimate]:
        targets, scores, patients = correlated(rng, num_patients, 4, 2.0)
        return ratios_of(targets, scores > 1.2, patients)

    truth = [ratio.value for ratio in draw(30_000)]
    held = np.array([[of.low < value < of.high for of, value in zip(draw(60), truth, strict=True)] for _ in range(400)])
    assert (held.mean(axis=0) > 0.9).all()
    assert (held.mean(axis=0) < 0.995).all()
