"""Contributions against leaving patients out, Obuchowski's and DeLong's formulas; intervals by hand."""

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from scipy.optimize import brentq
from scipy.stats import beta, binom, chi2, norm
from scipy.stats import t as student_t
from sklearn.metrics import average_precision_score, roc_auc_score

from catheters.evaluation.intervals import (
    ANY,
    COUNT,
    FEW_PATIENTS,
    LEAST_SKEWNESS,
    SHARE,
    Bounds,
    Contributions,
    estimate,
    exact_binomial,
    kish,
    mean_estimate,
    subtract,
)
from catheters.evaluation.patients import Patients, quantiles
from tests.evaluation.conftest import correlated

Floats = npt.NDArray[np.float64]


def leave_out(patients: npt.NDArray[np.str_], statistic: Callable[[npt.NDArray[np.intp]], float]) -> Floats:
    """How much lower a number of image rows is without each patient, by the plain loop."""
    rows = np.arange(len(patients))
    whole = statistic(rows)
    return np.array([whole - statistic(rows[patients != patient]) for patient in np.unique(patients)])


def share(of_patients: Floats, value: float, effective: float = 1e9, bounds: Bounds = SHARE) -> Contributions:
    return Contributions(
        value=value, of_patients=of_patients, num_patients=99, effective_patients=effective, bounds=bounds
    )


def test_ratios_are_the_jackknifes(rng: np.random.Generator) -> None:
    """Exactly, with patients of 1 to 40 images."""
    patients = np.repeat(np.arange(8), [1, 40, 2, 2, 3, 9, 1, 5]).astype(str)
    parts, wholes = rng.random(63), (rng.random(63) < 0.7).astype(float)
    found = Patients(patients).ratio(parts * wholes, wholes)
    expected = leave_out(patients, lambda rows: (parts * wholes)[rows].sum() / wholes[rows].sum())
    assert found.value == pytest.approx((parts * wholes).sum() / wholes.sum())
    assert found.of_patients == pytest.approx(expected)
    sizes = np.array([wholes[patients == patient].sum() for patient in np.unique(patients)])
    assert found.effective_patients == pytest.approx(sizes.sum() ** 2 / (sizes**2).sum())
    assert found.num_patients == (sizes > 0).sum()


def test_means_leave_out_what_is_unknown() -> None:
    patients = Patients(np.array(list("aabbbcd")))
    found = patients.mean(np.array([1.0, math.nan, 2.0, 3.0, math.nan, 6.0, math.nan]), COUNT)
    assert (found.value, found.num_patients) == (3.0, 3)
    assert math.isnan(patients.mean(np.full(7, math.nan)).value)
    assert patients.num_patients_with(np.array([1, 1, 0, 0, 0, 0, 1], dtype=bool)) == 2


def obuchowski(targets: npt.NDArray[np.uint8], scores: Floats, patients: npt.NDArray[np.str_]) -> float:
    """The variance of Obuchowski 1997, formulas 2 to 6, by a double loop over images."""
    positives, negatives = scores[targets == 1], scores[targets == 0]

    def psi(x: float, y: float) -> float:
        return 1.0 if x > y else 0.5 if x == y else 0.0

    area = np.mean([[psi(x, y) for y in negatives] for x in positives])
    names = np.unique(patients)
    m, n = (np.array([((patients == name) & (targets == target)).sum() for name in names]) for target in (1, 0))
    x = np.array([sum(np.mean([psi(s, y) for y in negatives]) for s in scores[(patients == name) & (targets == 1)])
                  for name in names])  # fmt: skip
    y = np.array([sum(np.mean([psi(s, t) for s in positives]) for t in scores[(patients == name) & (targets == 0)])
                  for name in names])  # fmt: skip
    num_positive, num_negative, num_all = (m > 0).sum(), (n > 0).sum(), len(names)
    s10 = num_positive / ((num_positive - 1) * m.sum()) * ((x - m * area) ** 2)[m > 0].sum()
    s01 = num_negative / ((num_negative - 1) * n.sum()) * ((y - n * area) ** 2)[n > 0].sum()
    s11 = num_all / (num_all - 1) * ((x - m * area) * (y - n * area)).sum()
    return float(s10 / m.sum() + s01 / n.sum() + 2 * s11 / (m.sum() * n.sum()))


@pytest.mark.parametrize("decimals", [1, 9])
def test_ranking_is_scikit_learns_and_obuchowskis(rng: np.random.Generator, decimals: int) -> None:
    """With many ties, and with none. The classes' own factors are 1 / (1 - share) here, n / (n - 1) in the paper."""
    targets, scores, patients = correlated(rng, num_patients=60, num_images=4, distance=1.0)
    scores = np.round(scores, decimals)
    area, precision = Patients(patients).ranking(targets, scores)
    assert area.value == pytest.approx(roc_auc_score(targets, scores))
    assert precision.value == pytest.approx(average_precision_score(targets, scores))
    assert area.standard_error**2 == pytest.approx(obuchowski(targets, scores, patients), rel=0.04)
    assert area.of_patients == pytest.approx(
        leave_out(patients, lambda rows: float(roc_auc_score(targets[rows], scores[rows]))), abs=2e-4
    )
    of_precision = leave_out(patients, lambda rows: float(average_precision_score(targets[rows], scores[rows])))
    assert np.corrcoef(precision.of_patients, of_precision)[0, 1] > 0.995
    assert precision.standard_error == pytest.approx(np.sqrt((of_precision**2).sum()), rel=0.05)


def test_area_is_delongs_where_patients_have_one_image(rng: np.random.Generator) -> None:
    """DeLong, DeLong and Clarke-Pearson, Biometrics 44 (1988), and the interval that is normal with many patients."""
    targets = (rng.random(3000) < 0.2).astype(np.uint8)
    scores = targets + rng.normal(size=3000)
    wins = (scores[targets == 1][:, None] > scores[targets == 0][None]).astype(float)
    of_positives, of_negatives = wins.mean(axis=1), wins.mean(axis=0)
    variance = of_positives.var(ddof=1) / len(of_positives) + of_negatives.var(ddof=1) / len(of_negatives)
    area, _ = Patients(np.arange(3000).astype(str)).ranking(targets, scores)
    assert area.standard_error == pytest.approx(math.sqrt(variance), rel=1e-3)
    found, half = estimate(area), norm.ppf(0.975) * math.sqrt(variance)
    assert (found.low, found.high) == pytest.approx((area.value - half, area.value + half), abs=0.2 * half)


def test_derivatives_of_average_precision(rng: np.random.Generator) -> None:
    """Against scikit-learn with a little more weight on one image."""
    targets = np.array([1, 0, 1, 1, 0, 0, 1, 0], dtype=np.uint8)
    scores = np.array([0.9, 0.9, 0.8, 0.5, 0.5, 0.4, 0.2, 0.1])
    _, precision = Patients(np.arange(8).astype(str)).ranking(targets, scores)
    for image in range(8):
        weights = np.ones(8)
        weights[image] += 1e-6
        slope = (average_precision_score(targets, scores, sample_weight=weights) - precision.value) / 1e-6
        left = 1 - targets[image] / 4  # of the positives
        assert precision.of_patients[image] * left == pytest.approx(slope, abs=1e-5)


def test_one_class_is_undefined() -> None:
    for found in Patients(np.array(["a", "b"])).ranking(np.array([1, 1], dtype=np.uint8), np.array([0.9, 0.5])):
        assert math.isnan(found.value) and not estimate(found).has_interval


def test_clopper_and_pearson() -> None:
    """Found where the binomial tails are 2.5% each; of part of a patient, by the beta distribution."""
    low, high = exact_binomial(3 / 20, 20)
    assert low == pytest.approx(brentq(lambda p: binom.sf(2, 20, p) - 0.025, 1e-6, 0.5))
    assert high == pytest.approx(brentq(lambda p: binom.cdf(3, 20, p) - 0.025, 0.01, 0.9))
    assert exact_binomial(0.3, 7.5) == pytest.approx((beta.ppf(0.025, 2.25, 6.25), beta.ppf(0.975, 3.25, 5.25)))
    assert exact_binomial(0.0, 10) == pytest.approx((0, 1 - 0.025**0.1))
    assert exact_binomial(1.0, 10) == pytest.approx((0.025**0.1, 1))


def test_rates_of_one_have_width() -> None:
    """All of 12 patients' positives are found: as exact as that many patients are, however many images they have."""
    patients = Patients(np.repeat(np.arange(12), 6))
    found = estimate(patients.ratio(np.ones(72), np.ones(72)))
    assert (found.value, found.high) == (1.0, 1.0)
    assert found.low == pytest.approx(0.025 ** (1 / 12))
    targets = np.tile([1, 0], 36).astype(np.uint8)
    area, precision = patients.ranking(targets, targets + 0.0)
    for perfect in (area, precision):
        assert estimate(perfect).low == pytest.approx(0.025 ** (1 / 12))
    gap = estimate(subtract(area, area))  # no patient tells them apart
    assert (gap.value, gap.low, gap.high) == pytest.approx((0, 0.025 ** (1 / 12) - 1, 1 - 0.025 ** (1 / 12)))


def test_interval_by_hand() -> None:
    """Student's t by Satterthwaite, Hall's cubic and the logit, each solved another way."""
    of_patients = np.array([0.03, -0.01, -0.01, -0.02, 0.02, -0.01])
    found = share(of_patients, 0.3, bounds=ANY)
    error = math.sqrt((of_patients**2).sum())
    inverse = (of_patients**4).sum() / (of_patients**2).sum() ** 2
    quantile = student_t.ppf(0.975, min(2 / (inverse - 1 / 6), 5))
    skewness = (of_patients**3).sum() / error**3

    def ends(centre: float, scale: float, skewness: float) -> tuple[float, float]:
        def cubic(w: float) -> float:
            return w + skewness * w**2 / 3 + skewness**2 * w**3 / 27 + skewness / 6

        solved = [brentq(lambda w, q=q: cubic(w) - q, -500, 500) for q in (quantile, -quantile)]
        return centre - scale * solved[0], centre - scale * solved[1]

    by_hand = estimate(found)
    assert (by_hand.low, by_hand.high) == pytest.approx(ends(0.3, error, skewness))
    on_logit = estimate(share(of_patients, 0.3))  # too many effective patients for the least skewness to matter
    expected = ends(math.log(0.3 / 0.7), error / 0.21, skewness)
    exact = exact_binomial(0.3, 1e9)
    assert on_logit.low == pytest.approx(max(1 / (1 + math.exp(-expected[0])), exact[0]))
    wide = share(of_patients, 0.3, effective=20)
    assert wide.skewness() == pytest.approx(max(skewness, LEAST_SKEWNESS * 0.4 / math.sqrt(20)))
    near_one = share(of_patients, 0.999, effective=20)
    assert near_one.skewness() == pytest.approx(-LEAST_SKEWNESS * 0.998 / math.sqrt(20))
    assert found.student == pytest.approx(quantile)
    assert share(of_patients, 0.3, effective=3).student == pytest.approx(student_t.ppf(0.975, 2))


def test_never_wider_than_the_exact_binomial(rng: np.random.Generator) -> None:
    """Patients all right or all wrong are what it is of; those who differ less say more."""
    is_right = np.repeat(rng.random(40) < 0.9, 3).astype(float)
    patients = Patients(np.repeat(np.arange(40), 3))
    found, exact = estimate(patients.ratio(is_right, np.ones(120))), exact_binomial(is_right.mean(), 40)
    assert exact[0] <= found.low < found.value < found.high <= exact[1]
    assert found.low == pytest.approx(exact[0], abs=0.05) and found.high == pytest.approx(exact[1], abs=0.05)


def test_few_patients_are_marked() -> None:
    images = np.ones(30)
    right = np.tile([1.0, 1.0, 0.0], 10)
    even, uneven = Patients(np.repeat(np.arange(15), 2)), Patients(np.array([0] * 24 + list(range(1, 7))))
    assert not estimate(even.ratio(right, images)).few_patients
    assert kish(uneven.sums(images)) < FEW_PATIENTS and estimate(uneven.ratio(right, images)).few_patients
    one_bad = Patients(np.arange(30))
    assert estimate(one_bad.ratio(np.arange(30) > 0, images)).few_patients  # a single patient makes up the variance
    one = estimate(Patients(np.zeros(30)).ratio(right, images))
    assert one.is_defined and not one.has_interval


def test_mean_by_hand(rng: np.random.Generator) -> None:
    """Of independent numbers distances add by their squares, of equal ones as they are."""
    first, second = (np.kron(rng.permutation([1.0, -1.0] * 200), pattern) * 1e-3 for pattern in ([1, 0], [0, 1]))
    parts = [share(first, 0.5), share(second, 0.4)]
    ends = [mean_estimate([part]) for part in parts]
    mean = mean_estimate(parts)
    assert mean.value == pytest.approx(0.45)
    assert mean.value - mean.low == pytest.approx(math.hypot(0.5 - ends[0].low, 0.4 - ends[1].low) / 2)
    assert mean.high - mean.value == pytest.approx(math.hypot(ends[0].high - 0.5, ends[1].high - 0.4) / 2)
    twice = mean_estimate([parts[0], parts[0]])
    assert (twice.low, twice.high) == pytest.approx((ends[0].low, ends[0].high))
    assert not mean_estimate([]).is_defined


def test_differences_are_paired(rng: np.random.Generator) -> None:
    """In the middle of the scale a difference has Student's interval; what both models share cancels."""
    shared, own = rng.normal(size=(2, 500)) * [[2e-3], [2e-4]]
    gap = subtract(share(shared, 0.5), share(shared + own, 0.52))
    found = estimate(gap)
    half = gap.student * math.sqrt((own**2).sum())
    assert found.value == pytest.approx(0.02)
    assert found.high - found.value == pytest.approx(half, rel=0.05)
    assert found.high - found.value > half
    near_one = estimate(subtract(share(shared / 20, 0.995), share((shared + own) / 20, 0.996)))
    assert near_one.high - near_one.value > 1.2 * half / 20  # there the spread itself is unsure


def test_quantiles_are_woodruffs(rng: np.random.Generator) -> None:
    """The ends are the quantiles at the ends of the share below; infinite values too."""
    values = np.append(rng.exponential(size=195), [math.inf] * 5)
    patients = Patients(np.repeat(np.arange(100), 2))
    (median,) = patients.quantiles(values, np.arange(200), [0.5])
    assert median.value == pytest.approx(np.median(values))
    below = patients.ratio(values <= median.value, np.ones(200))
    half = below.student * below.standard_error / 0.25
    levels = [1 / (1 + math.exp(half)), 1 / (1 + math.exp(-half))]
    assert (median.low, median.high) == pytest.approx(tuple(np.quantile(values, levels)))
    (highest,) = patients.quantiles(values, np.arange(200), [0.97])
    assert highest.high == math.inf
    assert not patients.quantiles(np.empty(0), np.empty(0, dtype=np.intp), [0.5])[0].is_defined


def test_plain_quantiles() -> None:
    assert quantiles(np.array([3.0, 1.0, math.inf]), [0.0, 0.5, 0.75]).tolist() == [1.0, 3.0, math.inf]
    assert quantiles(np.array([3.0, 1.0]), [0.25]).tolist() == [1.5]


def test_limits_are_nearly_the_jackknifes(rng: np.random.Generator) -> None:
    patients = np.repeat(np.arange(40), 3).astype(str)
    values = 1e6 + rng.normal(size=120) + np.repeat(rng.normal(size=40), 3)
    lower, upper = Patients(patients).spread_limits(values, 1.96)
    for sign, found in ((-1, lower), (1, upper)):
        expected = leave_out(patients, lambda rows, s=sign: values[rows].mean() + s * 1.96 * values[rows].std(ddof=1))
        assert found.value == pytest.approx(values.mean() + sign * 1.96 * values.std(ddof=1))
        assert found.of_patients == pytest.approx(expected, abs=0.02)


def test_counts_are_on_the_logarithm() -> None:
    """No false line in 12 patients is no proof of none; some have an interval above 0."""
    patients = Patients(np.arange(12))
    none = estimate(patients.ratio(np.zeros(12), np.ones(12), COUNT))
    assert (none.low, none.high) == pytest.approx((0, 1 - 0.025 ** (1 / 12)))
    some = estimate(patients.ratio(np.array([3.0] + [1.0] * 5 + [0.0] * 6), np.ones(12), COUNT))
    assert 0 < some.low < some.value < some.high < math.inf


def test_counts_that_do_not_vary_have_an_interval() -> None:
    """Two in each image of nine patients: as if those not drawn, at most 1 - .025^(1/9) of all, had none, or more."""
    found = estimate(Patients(np.arange(9)).mean(np.full(9, 2.0), COUNT))
    left = 0.025 ** (1 / 9)
    assert (found.low, found.high) == pytest.approx((2 * left, 2 / left))
    assert not estimate(Patients(np.arange(9)).mean(np.full(9, 2.0), ANY)).has_interval


@pytest.mark.parametrize(("events", "num_patients"), [(5, 56), (10, 150), (40, 300)])
def test_few_counts_have_ends_like_poissons(events: int, num_patients: int) -> None:
    """The exact interval of a Poisson number (Garwood 1936), by the chi-squared distribution."""
    found = estimate(Patients(np.arange(num_patients)).mean(np.arange(num_patients) < events, COUNT))
    low, high = chi2.ppf(0.025, 2 * events) / 2 / num_patients, chi2.ppf(0.975, 2 * events + 2) / 2 / num_patients
    assert 0.8 * low < found.low < 1.1 * low
    assert 0.9 * high < found.high < 1.1 * high


def test_one_count_has_an_end_of_its_size() -> None:
    """Of one in 60 patients the exact upper end is .093; an interval may be wider, but not hundreds of times."""
    found = estimate(Patients(np.arange(60)).mean(np.arange(60) < 1, COUNT))
    assert found.few_patients and 0.093 < found.high < 0.3


def test_a_part_that_does_not_vary_adds_nothing_to_a_mean(rng: np.random.Generator) -> None:
    patients, values = Patients(np.arange(40)), rng.normal(size=40)
    alone = mean_estimate([patients.mean(values, ANY)])
    found = mean_estimate([patients.mean(values, ANY), patients.mean(np.zeros(40), ANY)])
    assert (found.low, found.high) == pytest.approx((alone.low / 2, alone.high / 2))
