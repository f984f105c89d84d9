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
from catheters.evaluation.intervals import (
    ANY,
    COUNT,
    NO_ESTIMATE,
    UNDEFINED,
    Bounds,
    Contributions,
    Estimate,
    estimate,
    kish,
)
from catheters.evaluation.patients import LEAST_REST, Patients
from catheters.evaluation.prediction_set import PredictionSet

MAX_STEPS = 100
"""Of Newton's method; some ten are enough."""
FARTHEST = 100.0
"""Intercepts are sought this far from 0 at most; logits of probabilities kept `SMALLEST` from 0 and 1 are below 17."""

NAMES = ("slope", "intercept", "in_the_large", "observed_to_expected")
"""What is measured of a label."""

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


def recalibrate(evaluated: PredictionSet, patients: Patients) -> list[Recalibration]:
    """What would make the probabilities right, of each label, with one value of NaN for those of one class.

    Without a patient, slope and intercepts are one step of Newton's method from those of all images (the one-step
    jackknife of Pregibon, Logistic regression diagnostics, Annals of Statistics 9 (1981)), so that nothing is fitted
    anew for each.

    Args:
        evaluated: n predictions.
        patients: of these images.
    """
    found = []
    for k, label in enumerate(evaluated.labels):
        of_label = evaluated.of_label(k)
        estimates = dict.fromkeys(NAMES, NO_ESTIMATE)
        if of_label.has_both:
            parts = measure(of_label.targets, of_label.probabilities, patients.take(of_label.rows))
            estimates = {name: estimate(part) for name, part in parts.items()}
        found.append(Recalibration(label=label, **estimates))
    return found


def measure(targets: npt.NDArray[np.uint8], probabilities: Floats, patients: Patients) -> dict[str, Contributions]:
    """`NAMES` -> the number and what each patient makes up of it; as sure as the rarer class.

    Args:
        targets: (n,) 0/1, both of them there.
        probabilities: (n,).
        patients: of these images.
    """
    logits: Floats = logit(np.clip(probabilities, SMALLEST, 1 - SMALLEST))
    intercept, slope = fit_slope(targets, logits)
    in_the_large = fit_intercept(targets, logits)
    by_both, by_one = expit(intercept + slope * logits), expit(in_the_large + logits)
    weights = by_both * (1 - by_both)
    gradient, gradient_by_logit = patients.sums(targets - by_both), patients.sums((targets - by_both) * logits)
    sums = np.stack([patients.sums(weights * logits**power) for power in range(3)])  # (3, P)
    total = sums.sum(axis=1)
    weight, by_logit, by_square = total[:, None] - sums
    # A patient who is nearly all of it cannot be left out.
    least = LEAST_REST * (total[0] * total[2] - total[1] ** 2)
    determinant = np.maximum(weight * by_square - by_logit**2, least)
    weights_of_one = patients.sums(by_one * (1 - by_one))
    left = np.maximum(weights_of_one.sum() - weights_of_one, LEAST_REST * weights_of_one.sum())
    ratio = patients.ratio(targets, probabilities, COUNT)
    shares = [patients.sums(targets == value) for value in (0, 1)]

    def of_rarer_class(value: float, of_patients: Floats, bounds: Bounds = ANY) -> Contributions:
        if math.isnan(value):
            return UNDEFINED
        return Contributions(
            value=value,
            of_patients=of_patients,
            num_patients=min(int((share > 0).sum()) for share in shares),
            effective_patients=min(map(kish, shares)),
            bounds=bounds,
        )

    return {
        "slope": of_rarer_class(slope, (weight * gradient_by_logit - by_logit * gradient) / determinant),
        "intercept": of_rarer_class(intercept, (by_square * gradient - by_logit * gradient_by_logit) / determinant),
        "in_the_large": of_rarer_class(in_the_large, patients.sums(targets - by_one) / left),
        "observed_to_expected": of_rarer_class(ratio.value, ratio.of_patients, COUNT),
    }


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


def _log_likelihood(targets: npt.NDArray[np.uint8], logits: Floats) -> float:
    return float(-np.logaddexp(0, np.where(targets == 1, -logits, logits)).sum())
