"""Likelihood ratios of a test: by how much its result changes the odds that an image has the label."""

import dataclasses
import math

from catheters.evaluation.intervals import NO_ESTIMATE, Contributions, Estimate, estimate


def likelihood_ratios(sensitivity: Contributions, specificity: Contributions) -> tuple[Estimate, Estimate]:
    """The positive one, sensitivity / (1 - specificity), and the negative one, (1 - sensitivity) / specificity.

    Their intervals are made on the logarithm, of the intervals of both rates and of how their patients' contributions
    correlate: Zou and Donner, Construction of confidence limits about effect measures, Statistics in Medicine 27
    (2008), as for the other combined numbers. A ratio with nothing below the line is infinite, and has a lower end.

    Args:
        sensitivity: of the label.
        specificity: of the label, of the same patients.
    """
    return _ratio(sensitivity, _complement(specificity)), _ratio(_complement(sensitivity), specificity)


def _complement(share: Contributions) -> Contributions:
    return dataclasses.replace(share, value=1 - share.value, of_patients=-share.of_patients)


def _ratio(above: Contributions, below: Contributions) -> Estimate:
    if math.isnan(above.value) or math.isnan(below.value) or above.value == below.value == 0:
        return NO_ESTIMATE
    first, second = estimate(above), estimate(below)
    value = above.value / below.value if below.value else math.inf
    if not (first.has_interval and second.has_interval):
        return Estimate(value=value, low=math.nan, high=math.nan)
    few_patients = first.few_patients or second.few_patients
    if 0 in (above.value, below.value):  # the logarithm has no value to correlate at: both ends count at once
        high = first.high / second.low if second.low else math.inf
        return Estimate(value=value, low=first.low / second.high, high=high, few_patients=few_patients)
    correlation = _correlation(above, below)
    down = _distance(_log(first.value, first.low), _log(second.high, second.value), correlation)
    up = _distance(_log(first.high, first.value), _log(second.value, second.low), correlation)
    return Estimate(value=value, low=value * math.exp(-down), high=value * math.exp(up), few_patients=few_patients)


def _log(larger: float, smaller: float) -> float:
    """How far apart the two are on the logarithm."""
    return math.log(larger / smaller) if smaller > 0 else math.inf


def _distance(one: float, other: float, correlation: float) -> float:
    if math.isinf(one) or math.isinf(other):
        return math.inf
    return math.sqrt(max(one**2 + other**2 - 2 * correlation * one * other, 0.0))


def _correlation(above: Contributions, below: Contributions) -> float:
    errors = above.standard_error * below.standard_error
    return float(above.of_patients @ below.of_patients) / errors if errors else 0.0
