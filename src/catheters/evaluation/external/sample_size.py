"""How many patients an external validation needs for intervals of a wanted width.

Riley et al., Evaluation of clinical prediction models (part 3): calculating the sample size required for an external
validation study, BMJ 384 (2024), e074821, by the formulas of Riley et al., Minimum sample size for external validation
of a clinical prediction model with a binary outcome, Statistics in Medicine 40 (2021). These count independent images.
Images of one patient are alike, so they are multiplied by the design effect of Kish (Survey Sampling, 1965) and divided
by the images of a patient.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.special import expit
from scipy.stats import norm

from catheters.evaluation.intervals import LEVEL

Floats = npt.NDArray[np.float64]

QUANTILE = float(norm.ppf((1 + LEVEL) / 2))
MOST_IMAGES = 1e9


@dataclass(frozen=True, kw_only=True)
class Assumed:
    """What is taken for true of a label where the model will be validated.

    Attributes:
        prevalence: share of positives.
        roc_auc: of the model.
        observed_to_expected: of it.
        slope: of its calibration.
        intercept: beside that slope.
        logits: (n,) of its probabilities, as a sample of those to come.
        sensitivity: at its threshold; NaN where there is none.
        specificity: likewise.
        ppv: likewise.
    """

    prevalence: float
    roc_auc: float
    observed_to_expected: float
    slope: float
    intercept: float
    logits: Floats
    sensitivity: float
    specificity: float
    ppv: float

    @property
    def predicted_positive(self) -> float:
        """Share of the images that are predicted positive."""
        false_alarms = 1 - self.specificity
        return self.sensitivity * self.prevalence + false_alarms * (1 - self.prevalence)


@dataclass(frozen=True, kw_only=True)
class SampleSize:
    """What an interval of a width takes.

    Attributes:
        label: of which label.
        measure: of which of `INTERVAL_WIDTHS`.
        width: that is wanted.
        images: that would do if they were independent; NaN where the measure is undefined.
        design_effect: times as many are needed of patients with several.
        patients: that have so many images.
    """

    label: str
    measure: str
    width: float
    images: float
    design_effect: float
    patients: float


def images_needed(measure: str, assumed: Assumed, width: float) -> float:
    """Independent images for a 95% interval of a width; NaN where what is assumed does not say it, as a share of 0 or 1
    does not, or where a billion would not do.

    Args:
        measure: a key of `INTERVAL_WIDTHS`.
        assumed: of the label.
        width: of the interval, from end to end.
    """
    found = _FORMULAS[measure](assumed, width)
    return math.nan if math.isnan(found) else float(math.ceil(found - 1e-9))


def design_effect(targets: Floats, patient_ids: npt.NDArray[np.str_]) -> float:
    """1 + (m - 1) ICC: m is the mean number of images over images, not patients; ICC how alike those of a patient are.

    The intraclass correlation is that of an analysis of variance (Donner and Koval, The estimation of intraclass
    correlation in the analysis of family data, Biometrics 36 (1980)), 0 at least.

    Args:
        targets: (n,) 0/1.
        patient_ids: (n,).
    """
    _, patient_of, counts = np.unique(patient_ids, return_inverse=True, return_counts=True)
    num_images, num_patients = len(targets), len(counts)
    if num_patients < 2 or num_patients == num_images:
        return 1.0
    means = np.bincount(patient_of, targets) / counts
    between = float((counts * (means - targets.mean()) ** 2).sum()) / (num_patients - 1)
    within = float(((targets - means[patient_of]) ** 2).sum()) / (num_images - num_patients)
    usual = (num_images - float((counts**2).sum()) / num_images) / (num_patients - 1)
    total = between + (usual - 1) * within
    alike = max((between - within) / total, 0.0) if total > 0 else 0.0
    return 1 + (float((counts**2).sum()) / num_images - 1) * alike


def _of_area(assumed: Assumed, width: float) -> float:
    """Formula 4 of Newcombe, Confidence intervals for an effect size measure based on the Mann-Whitney statistic. Part
    2, Statistics in Medicine 25 (2006)."""
    area, prevalence = assumed.roc_auc, assumed.prevalence

    def variance(images: float) -> float:
        half = images / 2 - 1
        parts = 1 + half * (1 - area) / (2 - area) + half * area / (1 + area)
        return area * (1 - area) * parts / (images**2 * prevalence * (1 - prevalence))

    wanted = (width / 2 / QUANTILE) ** 2
    if math.isnan(area) or not area * (1 - area):
        return math.nan
    if variance(2) <= wanted:
        return 2.0
    if variance(MOST_IMAGES) > wanted:
        return math.nan
    return float(brentq(lambda images: variance(images) - wanted, 2, MOST_IMAGES))


def _of_ratio(assumed: Assumed, width: float) -> float:
    """The interval is that of the logarithm, so that its ends are ratio / factor and ratio * factor."""
    error = math.asinh(width / 2 / assumed.observed_to_expected) / QUANTILE
    return (1 - assumed.prevalence) / (assumed.prevalence * error**2)


def _of_slope(assumed: Assumed, width: float) -> float:
    """By Fisher's information of a logistic regression, of one image on average."""
    error = width / 2 / QUANTILE
    truth = expit(assumed.intercept + assumed.slope * assumed.logits)
    weights = truth * (1 - truth)
    one, by_logit, by_square = (float((weights * assumed.logits**power).mean()) for power in range(3))
    determinant = one * by_square - by_logit**2
    return one / (error**2 * determinant) if determinant > 0 else math.nan


def _of_share(share: float, share_of_images: float, width: float) -> float:
    """Of a share of some of the images, as normal; of one of 0 or 1 that would say that none are needed."""
    if not (share_of_images > 0 and 0 < share < 1):
        return math.nan
    return share * (1 - share) / ((width / 2 / QUANTILE) ** 2 * share_of_images)


_FORMULAS: Mapping[str, Callable[[Assumed, float], float]] = MappingProxyType(
    {
        "roc_auc": _of_area,
        "observed_to_expected": _of_ratio,
        "slope": _of_slope,
        "sensitivity": lambda of, width: _of_share(of.sensitivity, of.prevalence, width),
        "specificity": lambda of, width: _of_share(of.specificity, 1 - of.prevalence, width),
        "ppv": lambda of, width: _of_share(of.ppv, of.predicted_positive, width),
    }
)
