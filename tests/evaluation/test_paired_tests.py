"""Tests by permutation against the plain loop; that they keep their level where nothing differs."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from scipy.special import expit
from scipy.stats import binomtest
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from catheters.evaluation.paired_tests import PairedTests, adjust_by_holm, compare_models, describe_p, to_common_scale
from catheters.evaluation.prediction_set import PredictionSet
from tests.evaluation.conftest import make_predictions

SCORES: dict[str, Callable[..., float]] = {
    "roc_auc": roc_auc_score,
    "average_precision": average_precision_score,
    "brier": brier_score_loss,
}


def make_models(rng: np.random.Generator, gap: float = 0.0) -> tuple[PredictionSet, PredictionSet]:
    """Two models of 60 images of 20 patients; rounded, so that probabilities are tied within and between them."""
    targets = (rng.random((60, 2)) < [0.2, 0.5]).astype(np.float64)
    patients = rng.permutation(np.arange(60) % 20 * (np.arange(60) > 9)).tolist()  # the first one has many
    shared = rng.normal(size=targets.shape)
    first, second = (
        np.clip(
            np.round(expit((1 + better) * (2 * targets - 1) + shared + rng.normal(size=targets.shape)), 1), 0.01, 0.99
        )
        for better in (0.0, gap)
    )
    return make_predictions(targets, first, patients), make_predictions(targets, second, patients)


def coins(num_patients: int, num_permutations: int, seed: int) -> npt.NDArray[np.bool_]:
    """(R, P) of whom nothing is exchanged, as the module tosses them: 250 permutations at a time."""
    rng = np.random.default_rng(seed)
    sizes = [min(250, num_permutations - start) for start in range(0, num_permutations, 250)]
    return np.concatenate([rng.integers(0, 2, (num_patients, size), dtype=np.uint8).T == 1 for size in sizes])


@pytest.mark.slow
def test_p_values_are_those_of_the_plain_loop(rng: np.random.Generator) -> None:
    """Every permutation scored by scikit-learn, logits on one scale or probabilities exchanged patient by patient."""
    first, second = make_models(rng, gap=0.6)
    tests = compare_models(first, second, seed=3, num_permutations=100)
    patients = np.unique(first.patient_ids, return_inverse=True)[1]
    kept = [np.ones(20, dtype=np.bool_), *coins(20, 100, seed=3)]
    for metric, scored in SCORES.items():
        gaps = np.empty((101, 2))
        for k in range(2):
            values = np.stack([member.probabilities[:, k] for member in (first, second)])
            if metric != "brier":
                values = np.stack([to_common_scale(one, patients) for one in values])
            for r, is_kept in enumerate(kept):
                one, other = np.where(is_kept[patients], values, values[::-1])
                gaps[r, k] = scored(first.targets[:, k], other) - scored(first.targets[:, k], one)
        expected = (np.abs(gaps) >= np.abs(gaps[0]) - 1e-9).mean(axis=0)
        assert tests.p[metric] == pytest.approx(expected)
        means = gaps.mean(axis=1)
        assert tests.p_macro[metric] == pytest.approx((np.abs(means) >= abs(means[0]) - 1e-9).mean())
        assert 0.003 < tests.p[metric].min() < 0.5


def test_another_scale_is_no_difference_of_ranks(rng: np.random.Generator) -> None:
    """A twentieth ranks alike: p is 1. Their Brier score is another one, by far."""
    first, _ = make_models(rng)
    second = first.with_probabilities(first.probabilities / 20)
    tests = compare_models(first, second, seed=0)
    assert tests.p["roc_auc"].tolist() == tests.p["average_precision"].tolist() == [1, 1]
    assert tests.p_macro["roc_auc"] == 1
    assert tests.p_macro["brier"] < 0.01
    assert tests.is_significant("brier", None) and not tests.is_significant("roc_auc", "label 0")


def test_what_differs_is_found(rng: np.random.Generator) -> None:
    targets = (rng.random((600, 2)) < 0.3).astype(np.float64)
    noise = rng.normal(size=(2, *targets.shape))
    patients = (np.arange(600) // 3).tolist()
    first = make_predictions(targets, expit(targets * [1, 2] + noise[0]), patients)
    second = make_predictions(targets, expit(targets * [4, 2] + noise[1]), patients)
    tests = compare_models(first, second, seed=0)
    assert tests.p["roc_auc"][0] == pytest.approx(1 / 2001)  # none of the permutations comes near
    assert tests.p_holm["roc_auc"][0] == pytest.approx(2 / 2001)
    assert tests.is_significant("roc_auc", "label 0") and not tests.is_significant("roc_auc", "label 1")
    assert compare_models(second, first, seed=0).p["average_precision"] == pytest.approx(tests.p["average_precision"])


def test_one_scale_by_hand() -> None:
    """Five patients' shares end at .1, .3, .5, .7, .9: the quartiles of -2 to 2 are -1.25 and 1.25."""
    patients = np.arange(5)
    logits = np.array([-2.0, -1, 0, 1, 2])
    expected = logits / 2.5
    assert to_common_scale(expit(logits), patients) == pytest.approx(expected)
    assert to_common_scale(expit(2.5 * logits - 3), patients) == pytest.approx(expected)
    twice = to_common_scale(expit(logits[[0, 1, 2, 3, 4, 4, 4]]), patients[[0, 1, 2, 3, 4, 4, 4]])
    assert twice == pytest.approx(expected[[0, 1, 2, 3, 4, 4, 4]])  # many images of a patient move nothing
    # Shares .45 and .95: the median is .1 of the way from 0 to 10, the quartiles are 0 and .6 of the way.
    mostly_equal = to_common_scale(expit(np.array([0.0] * 9 + [10])), np.arange(10))
    assert mostly_equal == pytest.approx([-1 / 6] * 9 + [9 / 6])
    assert to_common_scale(np.array([0.3, 0.3]), patients[:2]).tolist() == [0, 0]
    extremes = to_common_scale(np.array([0.0, 1e-20, 1e-9, 0.5, 1 - 1e-9, 1.0]), np.arange(6))
    assert np.isfinite(extremes).all() and (np.diff(extremes) > 0).all()


def test_undefined_and_unknown_labels(rng: np.random.Generator) -> None:
    """One class has no ranking; a label that is known of no image has nothing; unknown images count nowhere."""
    first, second = make_models(rng)
    targets = np.concatenate([first.targets[:, :1], np.zeros((60, 1)), np.full((60, 1), np.nan)], axis=1)
    targets[:10, 0] = np.nan
    wide = [
        make_predictions(targets, np.repeat(member.probabilities[:, :1], 3, axis=1), member.patient_ids.tolist())
        for member in (first, second)
    ]
    tests = compare_models(*wide, seed=0, num_permutations=99)
    assert np.isnan(tests.p["roc_auc"]).tolist() == np.isnan(tests.p_holm["average_precision"]).tolist()
    assert np.isnan(tests.p["roc_auc"]).tolist() == [False, True, True]
    assert np.isnan(tests.p["brier"]).tolist() == [False, False, True]
    assert tests.p_macro["roc_auc"] == tests.p["roc_auc"][0] == tests.p_holm["roc_auc"][0]
    changed = wide[1].probabilities.copy()
    changed[:10, 0] = 0.99
    again = compare_models(wide[0], wide[1].with_probabilities(changed), seed=0, num_permutations=99)
    assert again.p["roc_auc"][0] == tests.p["roc_auc"][0]


def test_one_patient_shows_nothing(rng: np.random.Generator) -> None:
    first, second = make_models(rng, gap=3.0)
    alone = [make_predictions(one.targets, one.probabilities, [0] * 60) for one in (first, second)]
    assert compare_models(*alone, seed=0, num_permutations=50).p["roc_auc"].tolist() == [1, 1]


def test_holm_by_hand() -> None:
    nan = float("nan")
    assert adjust_by_holm(np.array([0.01, 0.04, 0.03, nan])) == pytest.approx([0.03, 0.06, 0.06, nan], nan_ok=True)
    assert adjust_by_holm(np.array([0.6, 0.5])).tolist() == [1, 1]
    assert np.isnan(adjust_by_holm(np.array([nan]))).all()


def test_p_values_in_words() -> None:
    assert [describe_p(p) for p in (0.0123, 0.00099, 1.0, float("nan"))] == ["0.012", "<0.001", "1.000", "-"]


def simulate(
    rng: np.random.Generator, num_patients: int, num_positive_patients: int, distance: float, num_trials: int
) -> list[PairedTests]:
    """Trials in which two models are drawn alike.

    Patients have 1 to 60 images, most of them few (Pareto); both models see the same images, and each errs by itself as
    well, in part the same way in all images of a patient.
    """
    tests = []
    for trial in range(num_trials):
        sizes = np.minimum(1 + rng.pareto(1.2, num_patients).astype(int), 60)
        patients = np.repeat(np.arange(num_patients), sizes)
        is_ill = np.arange(num_patients) < num_positive_patients
        targets = (is_ill[patients] & (rng.random(len(patients)) < 0.6)).astype(np.float64)
        targets[np.flatnonzero(np.diff(patients, prepend=-1))[:num_positive_patients]] = 1
        shared = distance * targets + rng.normal(size=len(patients)) + rng.normal(size=num_patients)[patients]
        one, other = (
            expit(shared - 2 + rng.normal(size=num_patients)[patients] + rng.normal(size=len(patients)))[:, None]
            for _ in range(2)
        )
        members = [make_predictions(targets[:, None], made, patients.tolist()) for made in (one, other)]
        tests.append(compare_models(*members, seed=trial, num_permutations=199))
    return tests


@pytest.mark.slow
@pytest.mark.parametrize(
    ("num_patients", "num_positive_patients", "distance"),
    [(150, 10, 2.0), (150, 60, 2.0), (150, 60, 9.0), (60, 3, 3.0)],
)
def test_equal_models_differ_in_one_of_twenty_trials(
    num_patients: int, num_positive_patients: int, distance: float
) -> None:
    """Rare labels, saturated ones (ROC AUC 0.999) and heavy tails of images per patient, 400 trials each."""
    tests = simulate(np.random.default_rng(0), num_patients, num_positive_patients, distance, 400)
    for metric in SCORES:
        num_found = sum(bool(one.p[metric][0] <= 0.05) for one in tests)
        interval = binomtest(num_found, len(tests)).proportion_ci(0.999)
        assert interval.low <= 0.05, (metric, num_found / len(tests))
        assert num_found / len(tests) > 0.02, (metric, num_found / len(tests))
