"""The difference of two ways to train, over seeds and patients: an interval that holds the chance of both.

Each way is trained with the same seeds, and each seed gives a difference on the same images. The seeds are then what
readers are in studies of several readers and several cases, and the patients the cases: both are samples, and the
interval has to hold for others. The variance of the mean difference has the parts of Obuchowski and Rockette
(Hypothesis testing of diagnostic accuracy for multiple readers and multiple tests, Communications in Statistics 24
(1995), 285-308), that of the patients here by the jackknife (see `intervals`):

    variance = V + max(s^2 / S - I, 0)

V is the variance over patients of the mean over the S seeds. s^2 is the sample variance of the seeds' differences. I is
what both hold, the chance that is of a seed and a patient together: with V_s, the variance over patients of one seed's
difference, I = (mean of V_s - V) / (S - 1), from 0 to V.

The interval is Student's t times the square root of the variance. Its degrees of freedom are those of Satterthwaite (An
approximate distribution of estimates of variance components, Biometrics Bulletin 2 (1946), 110-114) for V, with F that
depend on how many patients make it up, and s^2 / S, of S seeds:

    degrees of freedom = variance^2 / (V^2 / F + (s^2 / S)^2 / (S - 1))

With two or three seeds s^2 often comes out small by chance, and these degrees of freedom then too many. So t is never
below that of Cochran (Approximate significance levels of the Behrens-Fisher test, Biometrics 20 (1964), 191-195): the
mean of both parts' own t, weighted by the parts.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.stats import t as student_t

from catheters.evaluation.intervals import ANY, LEVEL, UNDEFINED, Contributions, Estimate, exact_binomial
from catheters.evaluation.scores import Scores, difference

Floats = npt.NDArray[np.float64]

METRIC = "roc_auc"
MACRO = "macro mean"
"""What the mean over the labels is called among them."""
ALPHA = 1 - LEVEL


@dataclass(frozen=True, kw_only=True)
class SeedDifference:
    """The mean difference over S seeds, of one score.

    Attributes:
        estimate: it, with its 95% interval; there is none where fewer than two patients count.
        of_seeds: (S,) each seed's difference.
        patient_variance: V, of the mean over patients; NaN without an interval.
        seed_variance: what the seeds add to it, 0 at least; NaN with one seed, whose interval holds the patients alone.
        degrees_of_freedom: of Student's t; NaN without an interval.
        p_value: of no difference, two-sided; NaN without an interval.
    """

    estimate: Estimate
    of_seeds: Floats
    patient_variance: float
    seed_variance: float
    degrees_of_freedom: float
    p_value: float

    @property
    def leaves_out_zero(self) -> bool:
        """Whether there is an interval, without 0 in it."""
        return self.estimate.has_interval and not self.estimate.low <= 0 <= self.estimate.high

    @property
    def standard_error(self) -> float:
        """Of the mean difference; NaN without an interval."""
        return math.sqrt(self.patient_variance + np.nan_to_num(self.seed_variance))


def mean_difference(of_seeds: Sequence[Contributions]) -> SeedDifference:
    """The mean over S seeds with its interval, see this module.

    Args:
        of_seeds: (S,) difference of each seed, and what each patient makes up of it; of the same patients.
    """
    num_seeds = len(of_seeds)
    values = np.array([difference_of.value for difference_of in of_seeds])
    value = float(values.mean())
    if math.isnan(value) or min(difference_of.num_patients for difference_of in of_seeds) < 2:
        nothing = Estimate(value=value, low=math.nan, high=math.nan)
        return SeedDifference(
            estimate=nothing,
            of_seeds=values,
            patient_variance=math.nan,
            seed_variance=math.nan,
            degrees_of_freedom=math.nan,
            p_value=math.nan,
        )
    of_patients = np.stack([difference_of.of_patients for difference_of in of_seeds])  # (S, P)
    mean = Contributions(
        value=value,
        of_patients=of_patients.mean(axis=0),
        num_patients=min(difference_of.num_patients for difference_of in of_seeds),
        effective_patients=min(difference_of.effective_patients for difference_of in of_seeds),
        bounds=ANY,
    )
    of_mean = mean.standard_error**2
    of_patients_freedom = float(mean.num_patients - 1) if mean.is_constant else mean.degrees_of_freedom
    observed, added = 0.0, math.nan
    if num_seeds > 1:
        observed = float(values.var(ddof=1)) / num_seeds
        of_one = float((of_patients**2).sum(axis=1).mean())
        shared = min(max((of_one - of_mean) / (num_seeds - 1), 0.0), of_mean)
        added = max(observed - shared, 0.0)
    variance = of_mean + float(np.nan_to_num(added))
    spread = of_mean**2 / of_patients_freedom + (observed**2 / (num_seeds - 1) if num_seeds > 1 else 0.0)
    freedom = variance**2 / spread if spread else of_patients_freedom
    if num_seeds > 1 and variance:
        freedom = min(freedom, _cochran_freedom(of_mean, of_patients_freedom, added, num_seeds - 1))
    error = math.sqrt(variance)
    quantile = float(student_t.ppf(1 - ALPHA / 2, freedom))
    if mean.is_constant:  # no patient tells the two apart, which as many patients cannot be sure of
        error = max(error, exact_binomial(0.0, max(mean.effective_patients, 1))[1] / quantile)
    half = quantile * error
    return SeedDifference(
        estimate=Estimate(value=value, low=value - half, high=value + half),
        of_seeds=values,
        patient_variance=of_mean,
        seed_variance=added,
        degrees_of_freedom=freedom,
        p_value=float(2 * student_t.sf(abs(value) / error, freedom)),
    )


def _cochran_freedom(one: float, of_one: float, other: float, of_other: float) -> float:
    """The degrees of freedom of the t that is the mean of two variances' own, weighted by them."""
    level = 1 - ALPHA / 2
    aim = float(np.average(student_t.ppf(level, [of_one, of_other]), weights=[one, other]))
    fewest, most = sorted((of_one, of_other))
    if fewest == most or not student_t.ppf(level, most) < aim < student_t.ppf(level, fewest):
        return float(most if aim <= student_t.ppf(level, most) else fewest)
    return float(brentq(lambda freedom: student_t.ppf(level, freedom) - aim, fewest, most))


def compare_seeds(first: Sequence[Scores], second: Sequence[Scores]) -> dict[str, SeedDifference]:
    """The second's ROC AUC minus the first's, of the mean over the labels and of each label.

    Args:
        first: S scores, of one seed each, all of the same patients.
        second: the other way to train, of the same seeds in the same order; each pair is of the same images.

    Returns:
        `MACRO`, then each label -> the mean difference over the seeds. The macro mean is over the labels that are
        defined for every seed.
    """
    pairs = [difference(one, other) for one, other in zip(first, second, strict=True)]
    labels = pairs[0].labels
    defined = [k for k in range(len(labels)) if not any(np.isnan(pair.values[METRIC][k]) for pair in pairs)]
    widened = [[_widened(part, in_mean=False) for part in pair.contributions[METRIC]] for pair in pairs]
    results = {MACRO: mean_difference([_macro(pair, defined) for pair in pairs])}
    for k, label in enumerate(labels):
        results[label] = mean_difference([of_labels[k] for of_labels in widened])
    return results


def _widened(of_label: Contributions, *, in_mean: bool) -> Contributions:
    """With the patients' parts as much larger as the interval of the difference is wider, see `intervals.subtract`."""
    if of_label.widening is None:
        return of_label
    factor = of_label.widening[1 if in_mean else 0]
    return replace(of_label, of_patients=of_label.of_patients * factor, widening=None)


def _macro(pair: Scores, labels: Sequence[int]) -> Contributions:
    """The mean over some of the labels."""
    parts = [_widened(pair.contributions[METRIC][k], in_mean=True) for k in labels]
    if not parts:
        return UNDEFINED
    return Contributions(
        value=float(np.mean([part.value for part in parts])),
        of_patients=np.mean([part.of_patients for part in parts], axis=0),
        num_patients=max(part.num_patients for part in parts),
        effective_patients=max(part.effective_patients for part in parts),
        bounds=ANY,
    )


def is_shown(difference_of: SeedDifference, adjusted_p_value: float) -> bool:
    """Whether a difference is shown: its interval leaves out 0, and so does Holm's test of all comparisons."""
    return difference_of.leaves_out_zero and adjusted_p_value < ALPHA
