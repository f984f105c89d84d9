"""How probabilities would have to be moved to be right, label by label: slope, intercept, observed over expected.

The logistic recalibration of Cox, Two further applications of a model for binary regression, Biometrika 45 (1958):
logit P(y = 1) = intercept + slope logit(p). A slope below 1 says that probabilities are too extreme, above 1 that they
are too timid. The intercept with the slope held at 1 is the calibration in the large: above 0 where probabilities are
too low. Van Calster et al., Calibration: the Achilles heel of predictive analytics, BMC Medicine 17 (2019), say how the
three are read.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.special import expit, logit

from catheters.evaluation.calibration import SMALLEST
from catheters.evaluation.intervals import NO_ESTIMATE, Estimate, PatientBootstrap, percentile_estimate
from catheters.evaluation.prediction_set import PredictionSet

MAX_STEPS = 100
"""Of Newton's method; some ten are enough."""
FARTHEST = 100.0
"""Intercepts are sought this far from 0 at most; logits of probabilities kept `SMALLEST` from 0 and 1 are below 17."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Recalibration:
    """Of one label, with intervals over patients.

    Attributes:
        label: its name.
        slope: of the logit; 1 at best. NaN where a threshold keeps the classes apart: then any steeper one is better.
        intercept: beside that slope; 0 at best.
        in_the_large: the intercept with a slope of 1; 0 at best.
        observed_to_expected: positives over the sum of the probabilities; 1 at best.
    """

    label: str
    slope: Estimate
    intercept: Estimate
    in_the_large: Estimate
    observed_to_expected: Estimate


def recalibrate(evaluated: PredictionSet, bootstrap: PatientBootstrap) -> list[Recalibration]:
    """What would make the probabilities right, of each label, with one value of NaN for those of one class.

    Each resample's slope and intercepts are one step of Newton's method from those of all images (the one-step
    bootstrap of Moulton and Zeger, Bootstrapping generalized linear models, Computational Statistics & Data Analysis 11
    (1991)), so that nothing is fitted thousands of times.

    Args:
        evaluated: n predictions.
        bootstrap: of their patients.
    """
    return [_of_label(evaluated, k, bootstrap) for k in range(len(evaluated.labels))]


def fit_slope(targets: npt.NDArray[np.uint8], logits: Floats) -> tuple[float, float]:
    """The likeliest intercept and slope; NaN where there is none, since the classes are apart or all logits equal."""
    positives, negatives = logits[targets == 1], logits[targets == 0]
    are_apart = positives.min() >= negatives.max() or positives.max() <= negatives.min()
    if are_apart or np.ptp(logits) == 0:
        return math.nan, math.nan
    design = np.stack([np.ones(len(logits)), logits], axis=1)
    found = np.array([0.0, 1.0])
    log_likelihood = _log_likelihood(targets, design @ found)
    for _ in range(MAX_STEPS):
        probabilities = expit(design @ found)
        gradient = design.T @ (targets - probabilities)
        curvature = design.T @ (design * (probabilities * (1 - probabilities))[:, None])
        step = np.linalg.lstsq(curvature, gradient, rcond=None)[0]
        share = 1.0
        while (reached := _log_likelihood(targets, design @ (found + share * step))) < log_likelihood and share > 1e-9:
            share /= 2
        if reached - log_likelihood < 1e-10:
            break
        found, log_likelihood = found + share * step, reached
    return float(found[0]), float(found[1])


def fit_intercept(targets: npt.NDArray[np.uint8], logits: Floats) -> float:
    """The intercept with a slope of 1 by which as many positives are expected as there are."""
    return float(brentq(lambda moved: (expit(moved + logits) - targets).sum(), -FARTHEST, FARTHEST))


def _of_label(evaluated: PredictionSet, k: int, bootstrap: PatientBootstrap) -> Recalibration:
    of_label, label = evaluated.of_label(k), evaluated.labels[k]
    if not of_label.has_both:
        none = NO_ESTIMATE
        return Recalibration(label=label, slope=none, intercept=none, in_the_large=none, observed_to_expected=none)
    targets, probabilities = of_label.targets, of_label.probabilities
    logits: Floats = logit(np.clip(probabilities, SMALLEST, 1 - SMALLEST))
    of_known = bootstrap.take(of_label.rows)
    intercept, slope = fit_slope(targets, logits)
    in_the_large = fit_intercept(targets, logits)
    by_both, by_one = expit(intercept + slope * logits), expit(in_the_large + logits)
    weights = by_both * (1 - by_both)
    columns = [
        *(targets - by_both, (targets - by_both) * logits, weights, weights * logits, weights * logits**2),
        *(targets - by_one, by_one * (1 - by_one), targets, 1 - targets, probabilities),
    ]
    sums = of_known.sums(np.stack(columns, axis=1)).T  # (10, R)
    gradient, gradient_by_logit, weight, weight_by_logit, weight_by_square = sums[:5]
    gradient_of_one, weight_of_one, positives, negatives, expected = sums[5:]
    has_both = (positives > 0) & (negatives > 0)
    num_patients = min(of_known.num_patients_with(targets == value) for value in (0, 1))

    def estimate(value: float, replicates: Floats) -> Estimate:
        return percentile_estimate(value, np.where(has_both, replicates, math.nan), num_patients)

    with np.errstate(invalid="ignore", divide="ignore"):
        determinant = weight * weight_by_square - weight_by_logit**2
        slopes = slope + (weight * gradient_by_logit - weight_by_logit * gradient) / determinant
        intercepts = intercept + (weight_by_square * gradient - weight_by_logit * gradient_by_logit) / determinant
        return Recalibration(
            label=label,
            slope=estimate(slope, slopes),
            intercept=estimate(intercept, intercepts),
            in_the_large=estimate(in_the_large, in_the_large + gradient_of_one / weight_of_one),
            observed_to_expected=estimate(float(targets.sum() / probabilities.sum()), positives / expected),
        )


def _log_likelihood(targets: npt.NDArray[np.uint8], logits: Floats) -> float:
    return float(-np.logaddexp(0, np.where(targets == 1, -logits, logits)).sum())
