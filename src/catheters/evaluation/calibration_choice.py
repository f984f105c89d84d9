"""Which calibration is kept: the simplest one, unless a proper score says that another one is better.

Of methods that are about equally good, chance decides which has the best score. So the methods are tried from the
simplest on, and one takes the place of the one before where Brier skill or log loss is better beyond the interval of
the paired difference, over the patients, and neither is worse beyond its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from catheters.evaluation.calibration import (
    IDENTITY,
    METHODS,
    Calibrator,
    calibrate_across_folds,
    cross_entropies,
    fit_calibrator,
    log_losses,
    reliability,
)
from catheters.evaluation.intervals import ANY, Estimate, mean_estimate
from catheters.evaluation.options import BEST_CALIBRATION, NO_CALIBRATION
from catheters.evaluation.patients import Patients
from catheters.evaluation.prediction_set import PredictionSet, mean_of_known

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Calibrated:
    """How well probabilities are calibrated by a method, across folds; means over the labels with both classes.

    Attributes:
        method: of calibration; `none` for the probabilities as they are.
        probabilities: (n, K).
        brier_skill: 1 - Brier score / that of predicting the prevalence; 1 at best, 0 for knowing nothing.
        log_loss: mean binary cross-entropy.
        expected_error: expected calibration error.
    """

    method: str
    probabilities: Floats
    brier_skill: float
    log_loss: float
    expected_error: float


@dataclass(frozen=True, kw_only=True)
class CalibrationStep:
    """A method beside the simpler one that was kept until then; means over the labels with both classes.

    Attributes:
        method: the one that is tried.
        simpler: the one that was kept.
        brier_skill: of the method minus of the simpler one, with the paired interval over patients: more is better.
        log_loss: likewise: less is better.
    """

    method: str
    simpler: str
    brier_skill: Estimate
    log_loss: Estimate

    @property
    def is_better(self) -> bool:
        """Whether the method takes the simpler one's place."""
        is_any_better = self.brier_skill.low > 0 or self.log_loss.high < 0
        is_any_worse = self.brier_skill.high < 0 or self.log_loss.low > 0
        return is_any_better and not is_any_worse  # NaN is neither

    def __str__(self) -> str:
        """As in "temperature is no better than none: Brier skill 0.0004 (-0.0002 to 0.0011), log loss ..." ."""
        verdict = "better" if self.is_better else "no better"
        return (
            f"{self.method} is {verdict} than {self.simpler}: Brier skill {_signed(self.brier_skill)}, log loss "
            f"{_signed(self.log_loss)}"
        )


@dataclass(frozen=True, kw_only=True)
class CalibrationChoice:
    """The method that is kept, and why.

    Attributes:
        method: a key of `METHODS`, or `none`.
        reason: in words.
        steps: every method beside the simpler one that was kept until then; empty where nothing could be judged.
    """

    method: str
    reason: str
    steps: tuple[CalibrationStep, ...]


def calibrate_by_all(evaluated: PredictionSet, folds: npt.NDArray[np.int64]) -> list[Calibrated]:
    """Every method, from the simplest on; `none` alone where there are no others to fit on."""
    methods = (NO_CALIBRATION, *METHODS) if len(np.unique(folds)) > 1 else (NO_CALIBRATION,)
    return [_calibrated(method, evaluated, folds) for method in methods]


def choose_calibration(
    asked: str, evaluated: PredictionSet, calibrations: Sequence[Calibrated], patients: Patients
) -> CalibrationChoice:
    """Choose a method.

    Args:
        asked: a key of `METHODS` or `none`, which are obeyed, or `best`.
        evaluated: n predictions.
        calibrations: of them, see `calibrate_by_all`.
        patients: of them.
    """
    if len(calibrations) == 1:
        return CalibrationChoice(method=NO_CALIBRATION, reason="no other patients could judge one", steps=())
    steps, kept = [], calibrations[0]
    for calibrated in calibrations[1:]:
        step = _compare(evaluated, kept, calibrated, patients)
        kept = calibrated if step.is_better else kept
        steps.append(step)
    if asked != BEST_CALIBRATION:
        return CalibrationChoice(method=asked, reason="it was asked for", steps=tuple(steps))
    taken = next((step for step in steps[::-1] if step.is_better), None)
    if taken is None:
        reason = "no method has a Brier skill or log loss that is better beyond its interval"
    else:
        reason = f"it is better than {taken.simpler} beyond the interval of a proper score, and no further method is"
    return CalibrationChoice(method=kept.method, reason=reason, steps=tuple(steps))


def fit_chosen(method: str, evaluated: PredictionSet) -> Calibrator:
    """For new images: fitted on all; `none` is one too."""
    if method == NO_CALIBRATION:
        return Calibrator(method=method, maps=dict.fromkeys(evaluated.labels, IDENTITY))
    return fit_calibrator(method, evaluated)


def _calibrated(method: str, evaluated: PredictionSet, folds: npt.NDArray[np.int64]) -> Calibrated:
    probabilities = evaluated.probabilities
    if method != NO_CALIBRATION:
        probabilities = calibrate_across_folds(method, evaluated, folds)
    calibrated, is_known = evaluated.with_probabilities(probabilities), evaluated.is_known
    prevalence = mean_of_known(evaluated.targets, is_known)
    has_both = (prevalence > 0) & (prevalence < 1)
    if not has_both.any():
        nan = float("nan")
        return Calibrated(method=method, probabilities=probabilities, brier_skill=nan, log_loss=nan, expected_error=nan)
    brier = mean_of_known((probabilities - evaluated.targets) ** 2, is_known)[has_both]
    knowing_nothing = (prevalence * (1 - prevalence))[has_both]
    of_labels = map(calibrated.of_label, np.flatnonzero(has_both).tolist())
    errors = [reliability(of.targets, of.probabilities).expected_error for of in of_labels]
    return Calibrated(
        method=method,
        probabilities=probabilities,
        brier_skill=float((1 - brier / knowing_nothing).mean()),
        log_loss=float(log_losses(calibrated)[has_both].mean()),
        expected_error=float(np.mean(errors)),
    )


def _compare(
    evaluated: PredictionSet, simpler: Calibrated, calibrated: Calibrated, patients: Patients
) -> CalibrationStep:
    """The paired differences; a label's Brier skill is measured by its prevalence in all images."""
    targets, is_known = evaluated.targets, evaluated.is_known
    prevalence = mean_of_known(targets, is_known)
    has_both = (prevalence > 0) & (prevalence < 1)
    scales = np.sqrt(np.where(has_both, prevalence * (1 - prevalence), 1))

    def mean_difference(of_simpler: Floats, of_method: Floats) -> Estimate:
        gaps = np.where(is_known, of_method - of_simpler, 0)
        return mean_estimate([patients.ratio(gaps[:, k], is_known[:, k], ANY) for k in np.flatnonzero(has_both)])

    pair = simpler.probabilities, calibrated.probabilities
    # The skill rises where the squared error falls.
    return CalibrationStep(
        method=calibrated.method,
        simpler=simpler.method,
        brier_skill=mean_difference(*(-(((probabilities - targets) / scales) ** 2) for probabilities in pair)),
        log_loss=mean_difference(*(cross_entropies(targets, probabilities) for probabilities in pair)),
    )


def _signed(estimate: Estimate) -> str:
    if not estimate.is_defined:
        return "undefined"
    interval = f" ({estimate.low:+.4f} to {estimate.high:+.4f})" if estimate.has_interval else ""
    return f"{estimate.value:+.4f}{interval}"
