"""The difference of two ways to train, over seeds and patients: an interval that holds the chance of both.

Each way is trained with the same seeds, and each seed gives a difference on the same images. The seeds are then what
readers are in studies of several readers and several cases, and the patients the cases: both are samples, and the
interval has to hold for others. The variance of the mean difference has the parts of Obuchowski and Rockette
(Hypothesis testing of diagnostic accuracy for multiple readers and multiple tests, Communications in Statistics 24
(1995), 285-308), that of the patients here by a bootstrap:

    variance = V + max(s^2 / S - I, 0)

V is the variance of the mean over the S seeds where patients are resampled. s^2 is the sample variance of the seeds'
differences. I is what both hold, the chance that is of a seed and a patient together: with V_s, the variance of one
seed's difference where patients are resampled, I = (mean of V_s - V) / (S - 1), from 0 to V.

The interval is Student's t times the square root of the variance. Its degrees of freedom are those of Satterthwaite (An
approximate distribution of estimates of variance components, Biometrics Bulletin 2 (1946), 110-114) for V, with those
of P patients, and s^2 / S, of S seeds:

    degrees of freedom = variance^2 / (V^2 / (P - 1) + (s^2 / S)^2 / (S - 1))

With two or three seeds s^2 often comes out small by chance, and these degrees of freedom then too many. So t is never
below that of Cochran (Approximate significance levels of the Behrens-Fisher test, Biometrics 20 (1964), 191-195): the
mean of both parts' own t, weighted by the parts.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.stats import t as student_t

from catheters.evaluation.intervals import LEVEL, Estimate
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
        estimate: it, with its 95% interval; there is none where fewer than two patients count, or where most resamples
            leave the score undefined.
        of_seeds: (S,) each seed's difference.
        patient_variance: V, of the mean where patients are resampled; NaN without an interval.
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


def mean_difference(of_seeds: Floats, replicates: Floats, num_patients: int) -> SeedDifference:
    """The mean over S seeds with its interval, see this module.

    Args:
        of_seeds: (S,) difference of each seed, on the images themselves.
        replicates: (R, S) the same in R resamples of the patients, which are the same ones for all seeds; those in
            which one is undefined (NaN) are left out, and where they are most, there is no interval.
        num_patients: that the score depends on, for a label those of its rarer class.
    """
    num_seeds = len(of_seeds)
    value = float(of_seeds.mean())
    defined = replicates[~np.isnan(replicates).any(axis=1)]
    if math.isnan(value) or num_patients < 2 or len(defined) <= max(len(replicates) / 2, 1):
        nothing = Estimate(value=value, low=math.nan, high=math.nan)
        return SeedDifference(
            estimate=nothing,
            of_seeds=of_seeds,
            patient_variance=math.nan,
            seed_variance=math.nan,
            degrees_of_freedom=math.nan,
            p_value=math.nan,
        )
    # The variance of resamples is (P - 1) / P of that of the mean of P patients.
    widening = num_patients / (num_patients - 1)
    of_mean = float(defined.mean(axis=1).var(ddof=1)) * widening
    observed, added = 0.0, math.nan
    if num_seeds > 1:
        observed = float(of_seeds.var(ddof=1)) / num_seeds
        of_one = float(defined.var(axis=0, ddof=1).mean()) * widening
        shared = min(max((of_one - of_mean) / (num_seeds - 1), 0.0), of_mean)
        added = max(observed - shared, 0.0)
    variance = of_mean + float(np.nan_to_num(added))
    spread = of_mean**2 / (num_patients - 1) + (observed**2 / (num_seeds - 1) if num_seeds > 1 else 0.0)
    freedom = variance**2 / spread if spread else float(num_patients - 1)
    if num_seeds > 1 and variance:
        freedom = min(freedom, _cochran_freedom(of_mean, num_patients - 1, added, num_seeds - 1))
    error = math.sqrt(variance)
    half = float(student_t.ppf(1 - ALPHA / 2, freedom)) * error
    # Where no resample and no seed differs from another, the error is 0.
    p_value = float(2 * student_t.sf(abs(value) / error, freedom)) if error else float(value == 0)
    return SeedDifference(
        estimate=Estimate(value=value, low=value - half, high=value + half),
        of_seeds=of_seeds,
        patient_variance=of_mean,
        seed_variance=added,
        degrees_of_freedom=freedom,
        p_value=p_value,
    )


def _cochran_freedom(one: float, of_one: int, other: float, of_other: int) -> float:
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
        first: S scores, of one seed each, all in the same resamples of the same patients.
        second: the other way to train, of the same seeds in the same order; each pair is of the same images.

    Returns:
        `MACRO`, then each label -> the mean difference over the seeds. The macro mean is over the labels that are
        defined for every seed.
    """
    pairs = [difference(one, other) for one, other in zip(first, second, strict=True)]
    labels = pairs[0].labels
    values = np.array([pair.values[METRIC] for pair in pairs])  # (S, K)
    replicates = np.stack([pair.replicates[METRIC] for pair in pairs], axis=1)  # (R, S, K)
    is_defined = ~np.isnan(values).any(axis=0)
    results: dict[str, SeedDifference] = {}
    if is_defined.any():
        num_patients = min(pair.num_patients for pair in pairs)
        of_macro, in_resamples = values[:, is_defined].mean(axis=1), replicates[:, :, is_defined].mean(axis=2)
        results[MACRO] = mean_difference(of_macro, in_resamples, num_patients)
    else:
        results[MACRO] = mean_difference(np.full(len(pairs), math.nan), np.empty((0, len(pairs))), 0)
    for k, label in enumerate(labels):
        rarer = min(min(pair.num_positive_patients[k], pair.num_negative_patients[k]) for pair in pairs)
        results[label] = mean_difference(values[:, k], replicates[:, :, k], rarer)
    return results


def is_shown(difference_of: SeedDifference, adjusted_p_value: float) -> bool:
    """Whether a difference is shown: its interval leaves out 0, and so does Holm's test of all comparisons."""
    return difference_of.leaves_out_zero and adjusted_p_value < ALPHA
