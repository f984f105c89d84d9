"""Agreement by hand, on Bland and Altman's own data, and against a plain loop."""

import math

import numpy as np
import pytest

from catheters.evaluation.intervals import PatientBootstrap, percentile_estimate
from catheters.evaluation.lines.agreement import measure_agreement

# Bland and Altman 1986, table 1: peak expiratory flow in l/min by Wright's meter and by the mini meter, first readings.
WRIGHT = [494, 395, 516, 434, 476, 557, 413, 442, 650, 433, 417, 656, 267, 478, 178, 423, 427]
MINI = [512, 430, 520, 428, 500, 600, 364, 380, 658, 445, 432, 626, 260, 477, 259, 350, 451]


def test_as_in_the_paper() -> None:
    """They give a mean of -2.1 and a standard deviation of 38.8 l/min (with 2 of them for the limits)."""
    bootstrap = PatientBootstrap(np.arange(17).astype(str), 2000, seed=0)
    agreement = measure_agreement(np.array(WRIGHT, dtype=float), np.array(MINI, dtype=float), bootstrap)
    assert agreement.num_pairs == 17
    assert agreement.mean_difference.value == pytest.approx(-2.1, abs=0.05)
    half = (agreement.upper_limit.value - agreement.lower_limit.value) / 2
    assert half / 1.96 == pytest.approx(38.8, abs=0.05)
    # Theirs by Student's t for the mean is -22.0 to 17.8; for the limits each about 70 wide.
    assert agreement.mean_difference.low == pytest.approx(-22.0, abs=4)
    assert agreement.mean_difference.high == pytest.approx(17.8, abs=4)
    assert 35 < agreement.upper_limit.high - agreement.upper_limit.low < 90


def test_intervals_equal_the_plain_loop(rng: np.random.Generator) -> None:
    """Some measurements are missing, and all are large: squares of them would lose digits."""
    patients = np.repeat(np.arange(12), 3).astype(str)
    truth = 1e7 + rng.normal(size=36)
    predicted = truth + 0.3 + rng.normal(size=36) + np.repeat(rng.normal(size=12), 3)
    predicted[[2, 9, 10, 11]] = math.nan  # of patient 3 nothing is left
    truth[20] = math.nan
    bootstrap = PatientBootstrap(patients, 300, seed=1)
    agreement = measure_agreement(predicted, truth, bootstrap)
    differences = predicted - truth
    rows = [np.repeat(differences, row) for row in bootstrap.sums(np.eye(36)).astype(int)]
    rows = [row[~np.isnan(row)] for row in rows]

    def expected(statistic) -> object:
        value = statistic(differences[~np.isnan(differences)])
        estimate = percentile_estimate(value, np.array([statistic(row) for row in rows]), 11)
        return pytest.approx((estimate.value, estimate.low, estimate.high))

    for estimate, statistic in (
        (agreement.mean_difference, np.mean),
        (agreement.lower_limit, lambda row: row.mean() - 1.96 * row.std(ddof=1)),
        (agreement.upper_limit, lambda row: row.mean() + 1.96 * row.std(ddof=1)),
        (agreement.median_absolute_error, lambda row: np.median(np.abs(row))),
    ):
        assert (estimate.value, estimate.low, estimate.high) == expected(statistic)
    assert agreement.num_pairs == 31


def test_few_pairs() -> None:
    bootstrap = PatientBootstrap(np.array(["a", "b"]), 100, seed=0)
    one = measure_agreement(np.array([5.0, math.nan]), np.array([3.0, 1.0]), bootstrap)
    assert (one.num_pairs, one.mean_difference.value, one.median_absolute_error.value) == (1, 2, 2)
    assert not one.lower_limit.is_defined
    none = measure_agreement(np.full(2, math.nan), np.zeros(2), bootstrap)
    assert none.num_pairs == 0
    assert not none.mean_difference.is_defined and not none.median_absolute_error.is_defined
