"""Agreement by hand, on Bland and Altman's own data, and against a plain loop."""

import math

import numpy as np
import pytest

from catheters.evaluation.lines.agreement import measure_agreement
from catheters.evaluation.patients import Patients

# Bland and Altman 1986, table 1: peak expiratory flow in l/min by Wright's meter and by the mini meter, first readings.
WRIGHT = [494, 395, 516, 434, 476, 557, 413, 442, 650, 433, 417, 656, 267, 478, 178, 423, 427]
MINI = [512, 430, 520, 428, 500, 600, 364, 380, 658, 445, 432, 626, 260, 477, 259, 350, 451]


def test_as_in_the_paper() -> None:
    """They give a mean of -2.1 and a standard deviation of 38.8 l/min (with 2 of them for the limits)."""
    patients = Patients(np.arange(17).astype(str))
    agreement = measure_agreement(np.array(WRIGHT, dtype=float), np.array(MINI, dtype=float), patients)
    assert agreement.num_pairs == 17
    assert agreement.mean_difference.value == pytest.approx(-2.1, abs=0.05)
    half = (agreement.upper_limit.value - agreement.lower_limit.value) / 2
    assert half / 1.96 == pytest.approx(38.8, abs=0.05)
    # Theirs by Student's t for the mean is -22.0 to 17.8; for the limits each about 70 wide.
    assert agreement.mean_difference.low == pytest.approx(-22.0, abs=4)
    assert agreement.mean_difference.high == pytest.approx(17.8, abs=4)
    assert 35 < agreement.upper_limit.high - agreement.upper_limit.low < 100


def test_missing_and_large_measurements(rng: np.random.Generator) -> None:
    """Squares of large ones would lose digits; of patient 3 nothing is left."""
    patients = np.repeat(np.arange(12), 3).astype(str)
    offsets = 0.3 + rng.normal(size=36) + np.repeat(rng.normal(size=12), 3)
    offsets[[2, 9, 10, 11]] = math.nan
    small, large = (
        measure_agreement(truth + offsets, truth, Patients(patients)) for truth in (np.zeros(36), np.full(36, 2.0**24))
    )
    pairs = offsets[~np.isnan(offsets)]
    assert small.num_pairs == 32
    assert small.mean_difference.value == pytest.approx(pairs.mean())
    assert small.lower_limit.value == pytest.approx(pairs.mean() - 1.96 * pairs.std(ddof=1))
    assert small.median_absolute_error.value == pytest.approx(np.median(np.abs(pairs)))
    for name in ("mean_difference", "lower_limit", "upper_limit", "median_absolute_error"):
        found, of_large = getattr(small, name), getattr(large, name)
        assert found.low < found.value < found.high
        assert (found.low, found.high) == pytest.approx((of_large.low, of_large.high), abs=1e-6)


def test_few_pairs() -> None:
    patients = Patients(np.array(["a", "b"]))
    one = measure_agreement(np.array([5.0, math.nan]), np.array([3.0, 1.0]), patients)
    assert (one.num_pairs, one.mean_difference.value, one.median_absolute_error.value) == (1, 2, 2)
    assert not one.lower_limit.is_defined
    none = measure_agreement(np.full(2, math.nan), np.zeros(2), patients)
    assert none.num_pairs == 0
    assert not none.mean_difference.is_defined and not none.median_absolute_error.is_defined
