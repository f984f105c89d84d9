"""How the images from elsewhere differ from the run's own: predictions, columns of the tables, features.

A model may do otherwise elsewhere since the cases are others or since it does not carry over. Debray et al., A new
framework to enhance the interpretation of external validation studies of clinical prediction models, Journal of
Clinical Epidemiology 68 (2015), tell the two apart by the mean and the spread of the linear predictor, here the logit
of the calibrated probability: a smaller spread makes an ROC AUC smaller though the model is as good.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.special import logit

from catheters.evaluation.calibration import SMALLEST
from catheters.evaluation.external.measures import Judged, LabelResult, mean_of_models, subtract_independent
from catheters.evaluation.intervals import ANY, COUNT, Estimate, estimate
from catheters.evaluation.patients import Patients
from catheters.evaluation.prediction_set import PredictionSet
from catheters.io.near_misses import number_or_age_in

Floats = npt.NDArray[np.float64]
Texts = npt.NDArray[np.str_]

MAX_VALUES = 20
"""Different texts up to which a column is one of groups; one of more is a name or free text, and is passed over."""
NOT_GIVEN = "not given"
"""The group of images of which a column is blank."""
LARGE = 0.1
"""Standardised difference from which on groups are taken to be out of balance (Austin, Balance diagnostics for
comparing the distribution of baseline covariates between treatment groups in propensity-score matched samples,
Statistics in Medicine 28 (2009))."""


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Of the logits of one label's calibrated probabilities.

    Attributes:
        label: its name.
        mean: here.
        own_mean: of the run's own images.
        mean_difference: here minus own.
        deviation: standard deviation here.
        own_deviation: of the run's own.
        deviation_difference: here minus own.
    """

    label: str
    mean: Estimate
    own_mean: Estimate
    mean_difference: Estimate
    deviation: Estimate
    own_deviation: Estimate
    deviation_difference: Estimate


@dataclass(frozen=True, kw_only=True)
class ColumnShift:
    """A column that both label tables have.

    Attributes:
        column: its name.
        value: a group, or None for a column of numbers.
        here: share of the group, or mean of the numbers, in per cent or as they are.
        own: of the run's own images.
        difference: standardised: over the standard deviation, the mean of both.
    """

    column: str
    value: str | None
    here: float
    own: float
    difference: float

    @property
    def is_large(self) -> bool:
        """Whether it is `LARGE`."""
        return abs(self.difference) >= LARGE


@dataclass(frozen=True, kw_only=True)
class FeatureShift:
    """How far the images lie from those that the model learnt beside, in the space of its features.

    Attributes:
        distances: (n,) Mahalanobis' distance over the one that 99% of ordinary images do not exceed, the median over
            the models; NaN where it is not known.
        own: (m,) of the run's own images, each by the model that had not seen it; None where they are not at hand.
        of_models: (C, n) of each model by itself, as `own` is.
        far: share of the images that are farther than that; 0.01 is expected.
    """

    distances: Floats
    own: Floats | None
    of_models: Floats
    far: Estimate

    def farthest(self, count: int) -> list[int]:
        """The rows that moved most, the farthest first."""
        known = np.flatnonzero(~np.isnan(self.distances))
        order = known[np.argsort(-self.distances[known], kind="stable")]
        return [int(row) for row in order[:count]]


def spreads(here: PredictionSet, alike: Sequence[Judged], own: PredictionSet) -> list[Spread]:
    """Of each label, mean and spread of the logits; no label has to be known for that.

    Args:
        here: the images from elsewhere.
        alike: what one or more models, each alone, say of them; the mean over the models is taken.
        own: calibrated predictions of the run's own images, out of fold; with the same labels in the same order.
    """
    found = []
    for k, label in enumerate(here.labels):
        mean, deviation = _spread([of.probabilities[:, k] for of in alike], Patients(here.patient_ids))
        own_mean, own_deviation = _spread([own.probabilities[:, k]], Patients(own.patient_ids))
        found.append(
            Spread(
                label=label,
                mean=mean,
                own_mean=own_mean,
                mean_difference=subtract_independent(mean, own_mean),
                deviation=deviation,
                own_deviation=own_deviation,
                deviation_difference=subtract_independent(deviation, own_deviation),
            )
        )
    return found


def intercept_by_prevalence(result: LabelResult) -> float:
    """The calibration in the large that the prevalence alone would give, if each class looked as it does in the run.

    By Bayes' theorem the logit of every right probability then moves by that of the prevalence. NaN where one of the
    two prevalences is not known, or is 0 or 1.
    """
    here, own = result.here["prevalence"].value, result.own["prevalence"].value
    if not (0 < here < 1 and 0 < own < 1):
        return math.nan
    return float(logit(here) - logit(own))


def column_shifts(here: Mapping[str, Texts], own: Mapping[str, Texts]) -> tuple[list[ColumnShift], list[str]]:
    """The standardised differences of the columns that both have, the largest of a column's groups first.

    Texts that differ in case alone are one group, and so are blanks: `NOT_GIVEN`.

    Args:
        here: column -> (n,) values as text.
        own: column -> (m,) values as text.

    Returns:
        The differences; the columns that are passed over, since they have more than 20 different texts.
    """
    shifts: list[ColumnShift] = []
    passed_over = []
    for column in (column for column in here if column in own):
        values, others = (np.char.strip(of[column]) for of in (here, own))
        numbers, other_numbers = (_numbers(of) for of in (values, others))
        if numbers is not None and other_numbers is not None and len(np.unique([*numbers, *other_numbers])) > 2:
            shifts.append(_of_numbers(column, numbers, other_numbers))
            if (values == "").any() or (others == "").any():
                shifts.append(_of_group(column, NOT_GIVEN, values == "", others == ""))
            continue
        groups, other_groups = ([value.casefold() for value in of.tolist()] for of in (values, others))
        written_as = dict(zip([*other_groups, *groups], [*others.tolist(), *values.tolist()], strict=True))
        if len(written_as) > MAX_VALUES:
            passed_over.append(column)
        elif len(written_as) > 1:
            of_groups = [
                _of_group(
                    column,
                    written_as[group] or NOT_GIVEN,
                    [value == group for value in groups],
                    [value == group for value in other_groups],
                )
                for group in sorted(written_as)
            ]
            shifts += sorted(of_groups, key=lambda shift: -abs(shift.difference))
    return shifts, passed_over


def feature_shift(of_models: Floats, own: Floats | None, patient_ids: Texts) -> FeatureShift | None:
    """How far the images lie; None where no model knows its features.

    Args:
        of_models: (C, n) squared distance of each image by each model over the model's limit; NaN where not known.
        own: (m,) the same of the run's own images.
        patient_ids: (n,).
    """
    if not np.isfinite(of_models).any():
        return None
    knows = np.isfinite(of_models).any(axis=1)
    roots = np.sqrt(of_models[knows])
    distances: Floats = np.median(roots, axis=0)
    is_known = np.isfinite(distances)
    patients = Patients(patient_ids).take(np.flatnonzero(is_known))
    far = patients.ratio(distances[is_known] > 1, np.ones(int(is_known.sum())))
    return FeatureShift(
        distances=distances,
        own=None if own is None else np.sqrt(own[np.isfinite(own)]),
        of_models=roots,
        far=estimate(far),
    )


def _spread(of_models: Sequence[Floats], patients: Patients) -> tuple[Estimate, Estimate]:
    """Mean and standard deviation of the logits of each model's (n,) probabilities, the mean over the models."""
    logits = [logit(np.clip(probabilities, SMALLEST, 1 - SMALLEST)) for probabilities in of_models]
    squares = estimate(mean_of_models([patients.mean((of - of.mean()) ** 2, COUNT) for of in logits]))
    deviation = replace(
        squares,
        value=math.sqrt(squares.value),
        low=math.sqrt(squares.low) if squares.has_interval else math.nan,
        high=math.sqrt(squares.high) if squares.has_interval else math.nan,
    )
    return estimate(mean_of_models([patients.mean(of, ANY) for of in logits])), deviation


def _numbers(values: Texts) -> Floats | None:
    """(n,) texts as numbers, blanks left out; None where one is none."""
    found = [number_or_age_in(value) for value in values.tolist() if value]
    if not found or any(number is None for number in found):
        return None
    return np.array(found, dtype=np.float64)


def _of_numbers(column: str, numbers: Floats, others: Floats) -> ColumnShift:
    deviation = math.sqrt((numbers.var() + others.var()) / 2)
    gap = float(numbers.mean() - others.mean())
    return ColumnShift(
        column=column,
        value=None,
        here=float(numbers.mean()),
        own=float(others.mean()),
        difference=_over(gap, deviation),
    )


def _of_group(column: str, value: str, is_in: Sequence[bool], others_in: Sequence[bool]) -> ColumnShift:
    here, own = float(np.mean(is_in)), float(np.mean(others_in))
    deviation = math.sqrt((here * (1 - here) + own * (1 - own)) / 2)
    return ColumnShift(column=column, value=value, here=here, own=own, difference=_over(here - own, deviation))


def _over(gap: float, deviation: float) -> float:
    if deviation:
        return gap / deviation
    return 0.0 if gap == 0 else math.copysign(math.inf, gap)
