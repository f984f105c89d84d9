"""Lengths measured on predicted lines beside those on drawn ones, and labels by rule beside labels by model."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

from catheters.evaluation.intervals import NO_ESTIMATE, Estimate, estimate, subtract
from catheters.evaluation.lines.agreement import Agreement, measure_agreement
from catheters.evaluation.patients import Patients
from catheters.evaluation.prediction_set import PredictionSet

Floats = npt.NDArray[np.float64]

MM, PER_CENT = "mm", "% of the image's height"
"""Units of lengths."""


@dataclass(frozen=True, kw_only=True)
class Length:
    """A measurement of an image, between two of its points.

    Attributes:
        start: x and y of the first point in pixels of the original image.
        end: x and y of the second one.
        mm: the length in mm; NaN where the pixel spacing is not known.
        share_of_height: the length as a share of the image's height.
        label_by_rule: the label that its rule gives it; empty where none does.
    """

    start: tuple[float, float]
    end: tuple[float, float]
    mm: float
    share_of_height: float
    label_by_rule: str = ""


@dataclass(frozen=True, kw_only=True)
class LengthSet:
    """One measurement of n images.

    Attributes:
        name: what is measured.
        predicted: (n,) of each image, between predicted points.
        true: (n,) between true ones; none where one of the points is not known, or is not there.
    """

    name: str
    predicted: Sequence[Sequence[Length]]
    true: Sequence[Sequence[Length]]


@dataclass(frozen=True, kw_only=True)
class MeasuredLengths:
    """How well one measurement is taken.

    Attributes:
        name: what is measured.
        unit: `MM` if the pixel spacing of an image is known, and then of such images alone; else `PER_CENT`.
        predicted: (m,) the length that each true one is paired with, in that unit; NaN where none was measured.
        truth: (m,) the true ones.
        measured: share of the true ones that have a pair.
        agreement: of the pairs.
    """

    name: str
    unit: str
    predicted: Floats
    truth: Floats
    measured: Estimate
    agreement: Agreement


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A rate by rule and by model, on the same images.

    Attributes:
        rule: by rule.
        model: by model.
        difference: rule minus model; the patients are paired.
    """

    rule: Estimate
    model: Estimate
    difference: Estimate


@dataclass(frozen=True, kw_only=True)
class RuleLabel:
    """A label that a rule gives.

    Attributes:
        label: its name.
        num_positives: images that have it.
        num_negatives: images that do not.
        sensitivity: share of these that get it.
        specificity: share of the others that do not.
    """

    label: str
    num_positives: int
    num_negatives: int
    sensitivity: Pair
    specificity: Pair


@dataclass(frozen=True, kw_only=True)
class RuleEvaluation:
    """Labels by the rule of one measurement, beside the likeliest label of the same device type by model.

    Attributes:
        name: what is measured.
        num_images: images with a label by rule; all that follows is of these.
        num_several: of these, images with several labels by rule, of as many tubes.
        num_without_label: of these, images that have no label of the device type, so that every one is wrong there.
        accuracy: share of the images that have the label that they get. An image with several labels by rule counts as
            the share of them that it has. So this is no mean of the sensitivities, where each such label counts.
        disagreement: share of the images whose label by model is none of those by rule.
        labels: those of the device type that the rule gives.
    """

    name: str
    num_images: int
    num_several: int
    num_without_label: int
    accuracy: Pair
    disagreement: Estimate
    labels: Sequence[RuleLabel]


NOTHING_MEASURED = Agreement(
    num_pairs=0,
    mean_difference=NO_ESTIMATE,
    lower_limit=NO_ESTIMATE,
    upper_limit=NO_ESTIMATE,
    median_absolute_error=NO_ESTIMATE,
)


def compare_lengths(lengths: LengthSet, patient_ids: npt.NDArray[np.str_]) -> MeasuredLengths:
    """Compare predicted with true lengths.

    Of several tubes in an image those are paired whose points are nearest, at the least total distance.

    Args:
        lengths: of n images.
        patient_ids: (n,) whose image each one is.
    """
    unit = MM if any(not math.isnan(length.mm) for of_image in lengths.true for length in of_image) else PER_CENT
    predicted: list[float] = []
    truth: list[float] = []
    rows: list[int] = []
    for row, (of_models, of_people) in enumerate(zip(lengths.predicted, lengths.true, strict=True)):
        for partner, true in zip(_partners(of_models, of_people), of_people, strict=True):
            if not math.isnan(_number(true, unit)):
                truth.append(_number(true, unit))
                predicted.append(math.nan if partner is None else _number(partner, unit))
                rows.append(row)
    pair = np.array(predicted), np.array(truth)
    if not rows:
        return MeasuredLengths(
            name=lengths.name, unit=unit, predicted=pair[0], truth=pair[1], measured=NO_ESTIMATE,
            agreement=NOTHING_MEASURED,
        )  # fmt: skip
    patients = Patients(patient_ids[rows])  # of the patients who have one
    return MeasuredLengths(
        name=lengths.name,
        unit=unit,
        predicted=pair[0],
        truth=pair[1],
        measured=estimate(patients.ratio(~np.isnan(pair[0]), np.ones(len(rows)))),
        agreement=measure_agreement(*pair, patients),
    )


def _number(length: Length, unit: str) -> float:
    return length.mm if unit == MM else 100 * length.share_of_height


def _partners(predicted: Sequence[Length], true: Sequence[Length]) -> list[Length | None]:
    """Of each true length the predicted one that it is paired with."""
    partners: list[Length | None] = [None] * len(true)
    if predicted and true:
        ends = [np.array([(*length.start, *length.end) for length in lengths]) for lengths in (true, predicted)]
        offsets = (ends[0][:, None] - ends[1][None]).reshape(len(true), len(predicted), 2, 2)
        for row, column in zip(*linear_sum_assignment(np.hypot(*np.moveaxis(offsets, 3, 0)).sum(axis=2)), strict=True):
            partners[row] = predicted[column]
    return partners


def judge_rule(
    lengths: LengthSet, evaluated: PredictionSet, heads: Mapping[str, tuple[str, ...]], patients: Patients
) -> RuleEvaluation | None:
    """Hold labels by rule and by model against the true ones; None where no image of
    which the labels are known has one by rule.

    Args:
        lengths: of n images.
        evaluated: their labels and predictions.
        heads: device type -> its labels.
        patients: of these images.
    """
    by_rule = [{length.label_by_rule for length in of_image} - {""} for of_image in lengths.predicted]
    given = set().union(*by_rule)
    labels = next((of_type for of_type in heads.values() if given & set(of_type)), ())
    columns = [evaluated.labels.index(label) for label in labels]
    is_known = np.asarray(evaluated.is_known[:, columns].all(axis=1), dtype=np.float64)
    is_given = np.array([[label in of_image for label in labels] for of_image in by_rule], dtype=np.float64)
    is_given *= is_known[:, None]
    if not columns or not is_given.any():
        return None
    has_label = np.asarray(is_given.any(axis=1), dtype=np.float64)  # (n,)
    targets: Floats = np.nan_to_num(evaluated.targets[:, columns])  # (n, L)
    is_likeliest = np.eye(len(labels))[evaluated.probabilities[:, columns].argmax(axis=1)]

    def compare(by_rule: Floats, by_model: Floats, wholes: Floats) -> Pair:
        rule, model = (patients.ratio(part * wholes, wholes) for part in (by_rule, by_model))
        return Pair(rule=estimate(rule), model=estimate(model), difference=estimate(subtract(model, rule)))

    right_by_rule: Floats = np.asarray((is_given * targets).sum(axis=1) / np.maximum(is_given.sum(axis=1), 1))
    right_by_model: Floats = np.asarray((is_likeliest * targets).sum(axis=1))
    is_other: Floats = np.asarray(1 - (is_given * is_likeliest).sum(axis=1))
    return RuleEvaluation(
        name=lengths.name,
        num_images=int(has_label.sum()),
        num_several=int((is_given.sum(axis=1) > 1).sum()),
        num_without_label=int((has_label * (targets.sum(axis=1) == 0)).sum()),
        accuracy=compare(right_by_rule, right_by_model, has_label),
        disagreement=estimate(patients.ratio(is_other * has_label, has_label)),
        labels=[
            RuleLabel(
                label=label,
                num_positives=int((targets[:, k] * has_label).sum()),
                num_negatives=int(((1 - targets[:, k]) * has_label).sum()),
                sensitivity=compare(is_given[:, k], is_likeliest[:, k], targets[:, k] * has_label),
                specificity=compare(1 - is_given[:, k], 1 - is_likeliest[:, k], (1 - targets[:, k]) * has_label),
            )
            for k, label in enumerate(labels)
            if label in given
        ],
    )
