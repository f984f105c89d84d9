"""The calibration curve of a label elsewhere: what share of positives a predicted probability stands for there."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit

from catheters.evaluation.calibration import SMALLEST
from catheters.evaluation.intervals import ANY, Contributions, Estimate, estimate
from catheters.evaluation.patients import Patients
from catheters.evaluation.prediction_set import LabelPredictions
from catheters.evaluation.recalibration import measure

NUM_POINTS = 41


@dataclass(frozen=True, kw_only=True)
class CalibrationCurve:
    """The logistic recalibration as a curve.

    Attributes:
        predicted: (T,) probabilities, from the 1st to the 99th percentile of those of the images.
        observed: (T,) the share of positives that each stands for, with its interval.
    """

    predicted: npt.NDArray[np.float64]
    observed: tuple[Estimate, ...]


def calibration_curve(of_label: LabelPredictions, patients: Patients) -> CalibrationCurve | None:
    """sigmoid(intercept + slope logit(p)), with pointwise 95% intervals over patients on the logit.

    Args:
        of_label: calibrated predictions.
        patients: of the images of which the label is known.

    Returns:
        None where there is no slope.
    """
    if not of_label.has_both:
        return None
    parts = measure(of_label.targets, of_label.probabilities, patients)
    intercept, slope = parts["intercept"], parts["slope"]
    if np.isnan(slope.value):
        return None
    logits = logit(np.clip(of_label.probabilities, SMALLEST, 1 - SMALLEST))
    first, last = np.percentile(logits, [1, 99]).tolist()
    at = np.linspace(first, last, NUM_POINTS)
    observed = []
    for x in at.tolist():
        moved = estimate(
            Contributions(
                value=intercept.value + slope.value * x,
                of_patients=intercept.of_patients + slope.of_patients * x,
                num_patients=slope.num_patients,
                effective_patients=slope.effective_patients,
                bounds=ANY,
            )
        )
        value, low, high = expit([moved.value, moved.low, moved.high]).tolist()
        observed.append(Estimate(value=value, low=low, high=high, few_patients=moved.few_patients))
    return CalibrationCurve(predicted=expit(at), observed=tuple(observed))
