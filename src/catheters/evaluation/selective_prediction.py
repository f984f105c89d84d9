"""Images whose label is deferred to a person, so that the rest is decided with few errors.

Two thresholds per label: below the lower one it is predicted negative, from the upper one on positive, between them it
is deferred. Each threshold is a quantile of the class that it could wrong, which makes it a conformal prediction set
for each class (Vovk, Gammerman and Shafer, Algorithmic Learning in a Random World, 2005, 4.5; Angelopoulos and Bates,
Conformal prediction: a gentle introduction, Foundations and Trends in Machine Learning 16 (2023)): of new images like
these at most the share that was asked for of all positives is predicted negative, and of all negatives predicted
positive. With too few of a class to promise that, the label is never decided so.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from catheters.evaluation.intervals import NO_ESTIMATE, Estimate, estimate
from catheters.evaluation.operating_points import OperatingPoint
from catheters.evaluation.patients import Patients
from catheters.evaluation.prediction_set import PredictionSet

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Band:
    """Probabilities at which a label is deferred: from `low` on, below `high`.

    Attributes:
        low: below it the label is predicted negative; -infinity: never.
        high: from it on the label is predicted positive; infinity: never.
    """

    low: float
    high: float

    def is_deferred(self, probabilities: Floats) -> npt.NDArray[np.bool_]:
        """(n,) -> (n,)."""
        deferred: npt.NDArray[np.bool_] = (probabilities >= self.low) & (probabilities < self.high)
        return deferred


EVERYTHING = Band(low=-math.inf, high=math.inf)
"""Of a label that nothing is known of."""


@dataclass(frozen=True, kw_only=True)
class Abstention:
    """What becomes of a label when uncertain images are deferred to a person; all NaN where it cannot be judged.

    Attributes:
        label: its name.
        band: chosen on all images, for new ones.
        decided: share of the images that are decided.
        missed: share of all positives that are predicted negative.
        false_alarms: share of all negatives that are predicted positive.
        accuracy: of what is decided.
    """

    label: str
    band: Band
    decided: Estimate
    missed: Estimate
    false_alarms: Estimate
    accuracy: Estimate


def choose_band(targets: npt.NDArray[np.uint8], probabilities: Floats, threshold: float, error_rate: float) -> Band:
    """The thresholds for one label, around its operating point; one threshold where both errors are rare there.

    Args:
        targets: (n,) 0/1.
        probabilities: (n,).
        threshold: of the operating point: what is decided is decided as it does.
        error_rate: share of each class that may be decided wrongly.
    """
    positives = np.sort(probabilities[targets == 1])
    negatives = np.sort(probabilities[targets == 0])[::-1]
    num_missed, num_alarms = (_whole(error_rate * (len(of_class) + 1)) for of_class in (positives, negatives))
    low = positives[num_missed - 1] if num_missed else -math.inf
    high = np.nextafter(negatives[num_alarms - 1], np.inf) if num_alarms else math.inf
    # Both errors only become rarer where a threshold moves out, and rare enough where the classes lie apart of it.
    return Band(low=float(min(low, threshold)), high=float(max(high, threshold)))


def abstain(
    evaluated: PredictionSet,
    folds: npt.NDArray[np.int64],
    points: Sequence[OperatingPoint],
    patients: Patients,
    error_rate: float,
) -> list[Abstention]:
    """What every label's uncertain images are, and how the others fare, each fold by the thresholds that the others
    chose.

    Args:
        evaluated: n images.
        folds: (n,) see `fitting_folds`.
        points: of the labels.
        patients: of these images.
        error_rate: share of each class that may be decided wrongly.
    """
    return [_abstain(evaluated, k, folds, point, patients, error_rate) for k, point in enumerate(points)]


def _abstain(
    evaluated: PredictionSet,
    k: int,
    folds: npt.NDArray[np.int64],
    point: OperatingPoint,
    patients: Patients,
    error_rate: float,
) -> Abstention:
    of_label = evaluated.of_label(k)
    targets, probabilities = of_label.targets, of_label.probabilities
    folds, patients = folds[of_label.rows], patients.take(of_label.rows)
    if math.isnan(point.threshold):
        return Abstention(
            label=point.label,
            band=EVERYTHING,
            decided=NO_ESTIMATE,
            missed=NO_ESTIMATE,
            false_alarms=NO_ESTIMATE,
            accuracy=NO_ESTIMATE,
        )
    is_deferred = np.empty(len(targets), dtype=np.bool_)
    is_predicted = np.empty(len(targets), dtype=np.bool_)
    for fold, threshold in point.fold_thresholds.items():
        here = folds == fold
        band = choose_band(targets[~here], probabilities[~here], threshold, error_rate)
        is_deferred[here] = band.is_deferred(probabilities[here])
        is_predicted[here] = probabilities[here] >= band.high
    is_positive = targets == 1
    is_decided = ~is_deferred
    return Abstention(
        label=point.label,
        band=choose_band(targets, probabilities, point.threshold, error_rate),
        decided=estimate(patients.ratio(is_decided, np.ones(len(targets)))),
        missed=estimate(patients.ratio(is_positive & is_decided & ~is_predicted, is_positive)),
        false_alarms=estimate(patients.ratio(~is_positive & is_predicted, ~is_positive)),
        accuracy=estimate(patients.ratio(is_decided & (is_predicted == is_positive), is_decided)),
    )


def _whole(number: float) -> int:
    """Rounded down, but for what floating point has taken from a whole number."""
    return math.floor(number + 1e-9)
