"""Intervals against the plain loop over resamples, DeLong's formula, and the truth that a simulation knows."""

import math

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import norm
from sklearn.metrics import average_precision_score, roc_auc_score

from catheters.evaluation.intervals import PatientBootstrap, percentile_estimate
from tests.evaluation.conftest import correlated


def drawn_images(bootstrap: PatientBootstrap, num_images: int) -> list[npt.NDArray[np.intp]]:
    """For each resample the positions of its images, as often as they were drawn."""
    numbers = bootstrap.sums(np.eye(num_images)).astype(int)
    return [np.repeat(np.arange(num_images), row) for row in numbers]


@pytest.mark.parametrize("decimals", [1, 9])
def test_scores_equal_the_plain_loop(rng: np.random.Generator, decimals: int) -> None:
    """With many ties, and with none."""
    targets, scores, patients = correlated(rng, num_patients=40, num_images=5, distance=1.0)
    scores = np.round(scores, decimals)
    bootstrap = PatientBootstrap(patients, 300, seed=1)
    areas, precisions = bootstrap.ranking_scores(targets, scores)
    resamples = drawn_images(bootstrap, len(targets))
    assert areas == pytest.approx([roc_auc_score(targets[rows], scores[rows]) for rows in resamples])
    assert precisions == pytest.approx([average_precision_score(targets[rows], scores[rows]) for rows in resamples])


def test_quantiles_equal_the_plain_loop(rng: np.random.Generator) -> None:
    """Of values of which an image has none, one or several, with ties, against NumPy on the repeated values."""
    _, _, patients = correlated(rng, num_patients=15, num_images=4, distance=1.0)
    image_rows = rng.integers(0, len(patients), 70)
    values = np.round(rng.exponential(5.0, 70), 1)
    bootstrap = PatientBootstrap(patients, 300, seed=1)
    levels = [0.0, 0.1, 0.5, 0.9, 1.0]
    found = bootstrap.quantiles(values, image_rows, levels)
    numbers = bootstrap.sums(np.eye(len(patients))).astype(int)
    expected = [np.quantile(np.repeat(values, row[image_rows]), levels) for row in numbers]
    assert found == pytest.approx(np.array(expected))


def test_quantiles_of_infinite_values() -> None:
    """Patients a, b and c have an error of 1, of 3, and a tip that was missed."""
    bootstrap = PatientBootstrap(np.array(["a", "b", "c"]), 200, seed=0)
    values = np.array([1.0, 3.0, math.inf])
    medians = bootstrap.quantiles(values, np.arange(3), [0.5])[:, 0]
    drawn = [np.sort(np.repeat(values, row)) for row in bootstrap.sums(np.eye(3)).astype(int)]
    assert medians.tolist() == [row[1] for row in drawn]
    quartiles = bootstrap.quantiles(values, np.arange(3), [0.75])[:, 0]  # half way between the second and the third
    assert quartiles.tolist() == [math.inf if row[2] == math.inf else (row[1] + row[2]) / 2 for row in drawn]
    estimate = percentile_estimate(3.0, medians, 3)
    assert (estimate.low, estimate.high) == (1.0, math.inf)


def test_quantiles_of_nothing() -> None:
    """A resample without a value is undefined."""
    bootstrap = PatientBootstrap(np.array(["a", "b"]), 100, seed=0)
    found = bootstrap.quantiles(np.array([7.0]), np.array([1]), [0.5])[:, 0]
    is_drawn = bootstrap.sums(np.array([[0], [1]]))[:, 0] > 0
    assert (np.isnan(found) == ~is_drawn).all()
    assert set(found[is_drawn]) == {7.0}
    assert np.isnan(bootstrap.quantiles(np.empty(0), np.empty(0, dtype=np.intp), [0.5])).all()


def test_means_of_what_is_defined() -> None:
    """Patients of whom nothing is known say nothing, and do not make the interval any narrower."""
    patients = np.array(list("aabbbcd"))
    values = np.array([1.0, math.nan, 2.0, 3.0, math.nan, 6.0, math.nan])
    bootstrap = PatientBootstrap(patients, 500, seed=0)
    estimate = bootstrap.mean(values)
    assert estimate.value == 3.0
    numbers = bootstrap.sums(np.eye(7)).astype(int)
    rows = [np.repeat(values, row) for row in numbers]
    means = np.array([np.nanmean(row) if not np.isnan(row).all() else math.nan for row in rows])
    assert estimate == percentile_estimate(3.0, means, 3)
    assert math.isnan(bootstrap.mean(np.full(7, math.nan)).value)
    assert bootstrap.num_patients_with(~np.isnan(values)) == 3


def test_whole_patients_are_drawn(rng: np.random.Generator) -> None:
    patients = np.array(list("aabbbc"))
    bootstrap = PatientBootstrap(patients, 200, seed=0)
    numbers = bootstrap.sums(np.eye(6)).astype(int)
    assert (numbers[:, 0] == numbers[:, 1]).all()
    assert (numbers[:, 2] == numbers[:, 3]).all() and (numbers[:, 3] == numbers[:, 4]).all()
    of_patients = numbers[:, [0, 2, 5]]
    assert (of_patients.sum(axis=1) == 3).all()  # as many patients as there are
    assert of_patients.mean(axis=0) == pytest.approx(1, abs=0.2)
    again = PatientBootstrap(patients, 200, seed=0)
    assert (again.sums(np.eye(6)) == numbers).all()
    assert (PatientBootstrap(patients, 200, seed=1).sums(np.eye(6)) != numbers).any()


def test_one_class_in_a_resample_is_undefined() -> None:
    """Of two patients, a resample without the one who has the label has no positive."""
    bootstrap = PatientBootstrap(np.array(["a", "a", "b"]), 100, seed=0)
    areas, precisions = bootstrap.ranking_scores(np.array([1, 0, 0], dtype=np.uint8), np.array([0.9, 0.5, 0.1]))
    is_drawn = bootstrap.sums(np.array([[1], [0], [0]]))[:, 0] > 0
    assert (np.isnan(areas) == ~is_drawn).all()
    assert (np.isnan(precisions) == ~is_drawn).all()
    assert set(areas[is_drawn]) == {1.0}


def test_percentiles_by_hand() -> None:
    """With many patients the plain ones; with 20 wider: sqrt(20/19) 2.093 is the normal's 2.147, 1.589% a side."""
    replicates = np.linspace(0, 1, 100_001)
    plain = percentile_estimate(0.5, replicates, num_patients=10**9)
    assert (plain.low, plain.high) == pytest.approx((0.025, 0.975), abs=1e-6)
    few = percentile_estimate(0.5, replicates, num_patients=20)
    assert (few.low, few.high) == pytest.approx((0.01588, 0.98412), abs=2e-4)
    assert math.isnan(percentile_estimate(0.5, replicates, num_patients=1).low)
    half = percentile_estimate(0.5, np.array([math.nan, math.nan, 0.1, 0.2]), num_patients=9)
    assert math.isnan(half.low) and half.value == 0.5
    assert math.isnan(percentile_estimate(math.nan, replicates, num_patients=9).low)


def test_one_patient_has_no_interval() -> None:
    bootstrap = PatientBootstrap(np.array(["a", "a"]), 100, seed=0)
    areas, _ = bootstrap.ranking_scores(np.array([1, 0], dtype=np.uint8), np.array([0.9, 0.1]))
    assert len(areas) == 0
    assert math.isnan(percentile_estimate(1.0, areas, bootstrap.num_patients).low)


def delong(targets: npt.NDArray[np.uint8], scores: npt.NDArray[np.float64]) -> tuple[float, float]:
    """DeLong, DeLong and Clarke-Pearson, Biometrics 44 (1988): the area and its standard error."""
    wins = (scores[targets == 1][:, None] > scores[targets == 0][None]).astype(float)
    of_positives, of_negatives = wins.mean(axis=1), wins.mean(axis=0)
    variance = of_positives.var(ddof=1) / len(of_positives) + of_negatives.var(ddof=1) / len(of_negatives)
    return float(wins.mean()), float(np.sqrt(variance))


def test_interval_is_delongs_where_patients_have_one_image(rng: np.random.Generator) -> None:
    targets = (rng.random(800) < 0.2).astype(np.uint8)
    scores = targets + rng.normal(size=800)
    area, standard_error = delong(targets, scores)
    areas, _ = PatientBootstrap(np.arange(800).astype(str), 4000, seed=0).ranking_scores(targets, scores)
    estimate = percentile_estimate(area, areas, 800)
    half = norm.ppf(0.975) * standard_error
    assert estimate.low == pytest.approx(area - half, abs=0.1 * half)
    assert estimate.high == pytest.approx(area + half, abs=0.1 * half)


@pytest.mark.slow
@pytest.mark.parametrize(("num_patients", "num_trials"), [(30, 1500), (60, 1500), (150, 1500)])
def test_coverage(num_patients: int, num_trials: int) -> None:
    """Of 95% intervals 93 to 97% hold the truth though patients' images are alike; resampled images do not do that."""
    rng = np.random.default_rng(1)
    truth = norm.cdf(1.5 / 2)
    num_held, num_held_by_images = 0, 0
    for trial in range(num_trials):
        targets, scores, patients = correlated(rng, num_patients, num_images=6, distance=1.5)
        area = float(roc_auc_score(targets, scores))
        for units, num_units in ((patients, num_patients), (np.arange(len(targets)).astype(str), len(targets))):
            areas, _ = PatientBootstrap(units, 400, seed=trial).ranking_scores(targets, scores)
            estimate = percentile_estimate(area, areas, num_units)
            is_held = estimate.low <= truth <= estimate.high
            if units is patients:
                num_held += is_held
            else:
                num_held_by_images += is_held
    print(f"{num_patients} patients: {num_held / num_trials:.3f}; by images {num_held_by_images / num_trials:.3f}")
    assert 0.93 <= num_held / num_trials <= 0.97
    assert num_held_by_images / num_trials < 0.91
