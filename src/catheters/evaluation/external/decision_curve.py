"""Decision curves: whether acting on a model is worth more than acting on everybody or on nobody.

Vickers and Elkin, Decision curve analysis, Medical Decision Making 26 (2006): who acts from a probability of t on holds
a false positive for t / (1 - t) times as bad as a missed positive. The net benefit is the share of true positives minus
so many times that of false positives; that of acting on nobody is 0.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from catheters.evaluation.intervals import ANY, Estimate, estimate
from catheters.evaluation.patients import Patients
from catheters.evaluation.prediction_set import PredictionSet

Floats = npt.NDArray[np.float64]

THRESHOLDS = (*(round(0.01 * step, 2) for step in range(1, 10)), *(round(0.05 * step, 2) for step in range(2, 20)))
"""Probabilities from which on somebody may act: 0.01 to 0.95."""


@dataclass(frozen=True, kw_only=True)
class DecisionCurve:
    """Of one label; T are the `THRESHOLDS`.

    Attributes:
        label: its name.
        net_benefit: (T,) of acting on the model, per image.
        treat_all: (T,) of acting on everybody.
        over_all: (T,) the model's minus that, of the same patients.
    """

    label: str
    net_benefit: tuple[Estimate, ...]
    treat_all: tuple[Estimate, ...]
    over_all: tuple[Estimate, ...]

    @property
    def useful(self) -> tuple[float, ...]:
        """The thresholds at which the model is better than both, beyond the intervals."""
        pairs = zip(THRESHOLDS, self.net_benefit, self.over_all, strict=True)
        return tuple(threshold for threshold, own, over in pairs if own.low > 0 and over.low > 0)

    @property
    def harmful(self) -> tuple[float, ...]:
        """Those at which it is worse than one of them, beyond the interval."""
        pairs = zip(THRESHOLDS, self.net_benefit, self.over_all, strict=True)
        return tuple(threshold for threshold, own, over in pairs if own.high < 0 or over.high < 0)


def decision_curves(evaluated: PredictionSet) -> dict[str, DecisionCurve]:
    """Label -> its curve, of those that have positives and negatives; by the calibrated probabilities."""
    patients = Patients(evaluated.patient_ids)
    curves = {}
    for k, label in enumerate(evaluated.labels):
        of_label = evaluated.of_label(k)
        if of_label.has_both:
            of_known = patients.take(of_label.rows)
            curves[label] = _curve(label, of_label.targets == 1, of_label.probabilities, of_known)
    return curves


def _curve(label: str, is_positive: npt.NDArray[np.bool_], probabilities: Floats, patients: Patients) -> DecisionCurve:
    benefits, of_all, over = [], [], []
    for threshold in THRESHOLDS:
        harm = threshold / (1 - threshold)
        gain = np.where(is_positive, 1.0, -harm)  # what an image that is acted on brings
        is_acted = probabilities >= threshold
        benefits.append(_mean(np.where(is_acted, gain, 0.0), 1.0, harm, patients))
        of_all.append(_mean(gain, 1.0, harm, patients))
        over.append(_mean(np.where(is_acted, 0.0, -gain), harm, 1.0, patients))
    return DecisionCurve(label=label, net_benefit=tuple(benefits), treat_all=tuple(of_all), over_all=tuple(over))


def _mean(values: Floats, most: float, worst: float, patients: Patients) -> Estimate:
    """The mean of values of which each is `most`, 0 or -`worst`.

    One of the two that no image has is not sure never to come: the interval is wider by what its share, an exact
    binomial's of 0, may be.
    """
    found = estimate(patients.mean(values, ANY)) if values.any() else Estimate(value=0.0, low=0.0, high=0.0)
    everything = np.ones(len(values))

    def unseen(is_it: npt.NDArray[np.bool_]) -> float:
        return 0.0 if is_it.any() else estimate(patients.ratio(is_it, everything)).high

    return replace(
        found,
        low=found.value - math.hypot(found.value - found.low, worst * unseen(values < 0)),
        high=found.value + math.hypot(found.high - found.value, most * unseen(values > 0)),
    )
