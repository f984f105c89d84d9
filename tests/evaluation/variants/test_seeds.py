"""The difference over seeds and patients: by hand, and how often it is wrong."""

import math

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import t as student_t
from sklearn.metrics import roc_auc_score

from catheters.evaluation.intervals import ANY, UNDEFINED, Contributions
from catheters.evaluation.patients import Patients
from catheters.evaluation.scores import Scores, score
from catheters.evaluation.variants.seeds import MACRO, SeedDifference, compare_seeds, is_shown, mean_difference
from tests.evaluation.conftest import make_predictions

Floats = npt.NDArray[np.float64]


def of_seed(value: float, of_patients: Floats, num_patients: int | None = None) -> Contributions:
    number = len(of_patients) if num_patients is None else num_patients
    return Contributions(
        value=value, of_patients=of_patients, num_patients=number, effective_patients=number, bounds=ANY
    )


def test_the_interval_by_hand() -> None:
    """Three seeds and eleven patients: every part worked out on paper.

    Differences .01, .03, .05: mean .03, s^2 = .0004. Each patient makes up .005 or -.005 of all three: V and each V_s
    are 11 x .000025 = .000275, so I = (.000275 - .000275) / 2 = 0. Eleven patients alike have 10 degrees of freedom.
    """
    moved = 0.005 * np.array([1.0, -1] * 5 + [1])
    found = mean_difference([of_seed(value, moved) for value in (0.01, 0.03, 0.05)])
    assert found.estimate.value == pytest.approx(0.03)
    assert found.patient_variance == pytest.approx(0.000275)
    assert found.seed_variance == pytest.approx(0.0004 / 3)
    variance = 0.000275 + 0.0004 / 3
    satterthwaite = variance**2 / (0.000275**2 / 10 + (0.0004 / 3) ** 2 / 2)
    cochran = (0.000275 * student_t.ppf(0.975, 10) + 0.0004 / 3 * student_t.ppf(0.975, 2)) / variance
    assert cochran > student_t.ppf(0.975, satterthwaite)  # so t is Cochran's
    assert found.estimate.high - 0.03 == pytest.approx(cochran * math.sqrt(variance))
    assert 0.03 - found.estimate.low == pytest.approx(cochran * math.sqrt(variance))
    at_the_edge = mean_difference([of_seed(value - found.estimate.low, moved) for value in (0.01, 0.03, 0.05)])
    assert at_the_edge.p_value == pytest.approx(0.05)


def test_chance_of_seed_and_patient_together_counts_once() -> None:
    """Patients of their own move each seed, with a variance of 1 each: V = 1 / 4, of one 1, so I = V = 1 / 4."""
    of_patients = np.kron(np.eye(4), np.full(1000, 1 / math.sqrt(1000)))  # (4, 4000)

    def found(values: list[float]) -> SeedDifference:
        return mean_difference([of_seed(*pair) for pair in zip(values, of_patients, strict=True)])

    apart = found([-1.0, 1.0, -1.0, 1.0])
    assert apart.patient_variance == pytest.approx(1 / 4)
    assert apart.seed_variance == pytest.approx((4 / 3) / 4 - 1 / 4)
    assert found([0.1, -0.1, 0.1, -0.1]).seed_variance == 0


def test_one_seed_holds_the_patients_alone() -> None:
    found = mean_difference([of_seed(0.1, np.array([0.1, -0.1, 0.1, -0.1, 0.0]))])
    assert math.isnan(found.seed_variance)
    # Four of five patients make up the variance: 2 / (1/4 - 1/5) = 40 would be the degrees of freedom, 5 - 1 are.
    assert found.degrees_of_freedom == 4
    assert found.standard_error == pytest.approx(0.2)


def test_without_an_interval() -> None:
    parts = np.array([0.1, -0.1])
    assert not mean_difference([of_seed(0.1, parts, num_patients=1)]).estimate.has_interval
    assert not mean_difference([of_seed(0.1, parts), UNDEFINED]).estimate.is_defined
    same = mean_difference([of_seed(0.0, np.zeros(9))] * 2)
    # None of nine patients tells the two apart: the exact binomial's end for 0 of 9.
    assert same.estimate.high == -same.estimate.low == pytest.approx(1 - 0.025 ** (1 / 9))
    assert same.p_value == 1
    alike = mean_difference([of_seed(value, np.zeros(9)) for value in (0.0100, 0.0101, 0.0099)])
    assert alike.estimate.low < 0 and alike.p_value > 0.5  # the p-value says what the interval says


def test_differences_are_those_of_scikit_learn() -> None:
    """Of each seed and label, and of their mean over the labels that are defined."""
    rng = np.random.default_rng(1)
    targets = (rng.random((60, 3)) < 0.4).astype(np.float64)
    targets[:, 2] = 0  # undefined
    patients = np.repeat(np.arange(30), 2)
    numbered = Patients(patients)

    def run() -> tuple[Floats, Scores]:
        probabilities = rng.random((60, 3))
        return probabilities, score(make_predictions(targets, probabilities, patients.tolist()), numbered)

    (one, of_one), (two, of_two), (three, of_three), (four, of_four) = run(), run(), run(), run()
    found = compare_seeds([of_one, of_two], [of_three, of_four])
    by_hand = np.array(
        [
            [roc_auc_score(targets[:, k], second[:, k]) - roc_auc_score(targets[:, k], first[:, k]) for k in (0, 1)]
            for first, second in ((one, three), (two, four))
        ]
    )
    assert list(found) == [MACRO, "label 0", "label 1", "label 2"]
    assert found["label 1"].of_seeds == pytest.approx(by_hand[:, 1])
    assert found[MACRO].of_seeds == pytest.approx(by_hand.mean(axis=1))
    assert found[MACRO].estimate.value == pytest.approx(by_hand.mean())
    assert not found["label 2"].estimate.is_defined


def chance(
    rng: np.random.Generator, num_seeds: int, of_seeds: float, of_patients: float, of_both: float, shift: float = 0.0
) -> bool:
    """Whether a difference is shown where seeds, 60 patients and both together bring chance of these sizes."""
    num_patients = 60
    each = rng.normal(0, of_patients, (num_patients, 1)) + rng.normal(0, of_both, (num_patients, num_seeds))
    each = each * math.sqrt(num_patients) + rng.normal(shift, of_seeds, num_seeds)
    means = each.mean(axis=0)
    # What a mean is lower by without a patient.
    parts = (each - means) / (num_patients - 1)
    found = mean_difference([of_seed(*pair) for pair in zip(means.tolist(), parts.T, strict=True)])
    return is_shown(found, found.p_value)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("num_seeds", "at_most"), [(2, 0.10), (3, 0.075), (5, 0.075)], ids=["2 seeds", "3 seeds", "5 seeds"]
)
@pytest.mark.parametrize("sizes", [(0, 1, 0), (0, 0, 1), (1, 0, 0), (1, 1, 1), (1.5, 1, 0.3)], ids=str)
def test_equal_variants_differ_in_one_comparison_of_twenty(
    num_seeds: int, at_most: float, sizes: tuple[float, float, float]
) -> None:
    """800 A/A comparisons: 5% are 40, with a standard deviation of 6; two seeds are known to be too bold."""
    rng = np.random.default_rng(2)
    share = np.mean([chance(rng, num_seeds, *sizes) for _ in range(800)])
    assert share <= at_most
    assert sizes == (0, 0, 1) or share >= 0.01  # no interval is so wide that it is never wrong


def test_a_planted_difference_is_found_with_three_seeds() -> None:
    """Of .03, where seeds scatter by .005 and patients by .007, as on the synthetic sample."""
    rng = np.random.default_rng(3)
    found = [chance(rng, 3, 0.005, 0.005, 0.005, shift=0.03) for _ in range(200)]
    assert np.mean(found) > 0.8
