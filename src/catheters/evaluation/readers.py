"""Several readers of the same images: how far they agree with each other, with the label table and with the model."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from catheters.evaluation.intervals import ANY, NO_ESTIMATE, UNDEFINED, Contributions, Estimate, estimate, kish
from catheters.evaluation.operating_points import OperatingPoint
from catheters.evaluation.patients import Patients
from catheters.evaluation.prediction_set import PredictionSet

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

LABEL_TABLE, MODEL = "label table", "model"
"""What readers are held against, beside each other."""


@dataclass(frozen=True, kw_only=True)
class Readings:
    """What readers said of n images.

    Attributes:
        readers: (R,) their names.
        values: (R, n, K) 0, 1, or NaN where a reader has not read an image for a label.
    """

    readers: tuple[str, ...]
    values: Floats


@dataclass(frozen=True, kw_only=True)
class PairAgreement:
    """Two who judged the same images for one label.

    Attributes:
        label: its name.
        judge: a reader, or `MODEL`.
        reference: another reader, or `LABEL_TABLE`.
        num_images: that both judged.
        num_patients: whose images they are.
        agreement: share of the images of which both say the same.
        kappa: Cohen's kappa.
        sensitivity: of the judge, where the reference says 1; undefined between two readers, of whom none is the truth.
        specificity: where it says 0.
    """

    label: str
    judge: str
    reference: str
    num_images: int
    num_patients: int
    agreement: Estimate
    kappa: Estimate
    sensitivity: Estimate
    specificity: Estimate


@dataclass(frozen=True, kw_only=True)
class JointAgreement:
    """Three readers or more of one label.

    Attributes:
        label: its name.
        num_readers: who have read images for it.
        num_images: that all of them have read.
        num_patients: whose images they are.
        kappa: Fleiss' kappa.
    """

    label: str
    num_readers: int
    num_images: int
    num_patients: int
    kappa: Estimate


@dataclass(frozen=True, kw_only=True)
class ReaderResults:
    """All of it.

    Attributes:
        readers: their names.
        pairs: each label's readers, two by two.
        joint: all readers of each label that has three or more.
        against_labels: each reader against the label table.
        model: the model, at its operating point, against each reader.
        model_against_labels: the model against the label table, on the images that the reader has read: what
            `against_labels` has to be compared with. In the same order.
    """

    readers: tuple[str, ...]
    pairs: list[PairAgreement]
    joint: list[JointAgreement]
    against_labels: list[PairAgreement]
    model: list[PairAgreement]
    model_against_labels: list[PairAgreement]


def compare_readers(
    evaluated: PredictionSet, readings: Readings, points: Sequence[OperatingPoint], folds: npt.NDArray[np.int64]
) -> ReaderResults:
    """Hold readers against each other, the label table and the model.

    Args:
        evaluated: n images.
        readings: of the same images.
        points: of the labels; each fold is predicted by the threshold that the others chose.
        folds: (n,) see `fitting_folds`.
    """
    patients = Patients(evaluated.patient_ids)
    results = ReaderResults(
        readers=readings.readers, pairs=[], joint=[], against_labels=[], model=[], model_against_labels=[]
    )
    for k, label in enumerate(evaluated.labels):
        read = {
            reader: values
            for reader, values in zip(readings.readers, readings.values[:, :, k], strict=True)
            if not np.isnan(values).all()
        }
        thresholds = points[k].fold_thresholds
        threshold = np.array([thresholds.get(int(fold), np.nan) for fold in folds])
        predicted = np.where(np.isnan(threshold), np.nan, evaluated.probabilities[:, k] >= threshold)
        truth = evaluated.targets[:, k]
        names = list(read)
        for number, reader in enumerate(names):
            for other in names[number + 1 :]:
                results.pairs.append(_agreement(label, reader, read[reader], other, read[other], patients))
            by_reader = read[reader]
            results.against_labels.append(_agreement(label, reader, by_reader, LABEL_TABLE, truth, patients))
            results.model.append(_agreement(label, MODEL, predicted, reader, by_reader, patients))
            of_reader = np.where(np.isnan(by_reader), np.nan, truth)
            results.model_against_labels.append(_agreement(label, MODEL, predicted, LABEL_TABLE, of_reader, patients))
        if len(names) > 2:
            results.joint.append(_joint(label, np.stack(list(read.values())), patients))
    return results


def _agreement(
    label: str, judge: str, judged: Floats, reference: str, truth: Floats, patients: Patients
) -> PairAgreement:
    rows = np.flatnonzero(~np.isnan(judged) & ~np.isnan(truth))
    of_rows, one, other = patients.take(rows), judged[rows] == 1, truth[rows] == 1
    is_truth = judge == MODEL or reference == LABEL_TABLE
    return PairAgreement(
        label=label,
        judge=judge,
        reference=reference,
        num_images=len(rows),
        num_patients=of_rows.num_patients_with(np.ones(len(rows), dtype=np.bool_)),
        agreement=estimate(of_rows.ratio(one == other, np.ones(len(rows)))),
        kappa=as_kappa(cohen_kappa(one, other, of_rows)),
        sensitivity=estimate(of_rows.ratio(one & other, other)) if is_truth else NO_ESTIMATE,
        specificity=estimate(of_rows.ratio(~one & ~other, ~other)) if is_truth else NO_ESTIMATE,
    )


def _joint(label: str, values: Floats, patients: Patients) -> JointAgreement:
    rows = np.flatnonzero(~np.isnan(values).any(axis=0))
    of_rows = patients.take(rows)
    return JointAgreement(
        label=label,
        num_readers=len(values),
        num_images=len(rows),
        num_patients=of_rows.num_patients_with(np.ones(len(rows), dtype=np.bool_)),
        kappa=as_kappa(fleiss_kappa(values[:, rows] == 1, of_rows)),
    )


def as_kappa(contributions: Contributions) -> Estimate:
    """With its interval, which ends at 1; without one where all patients say the same."""
    if np.isnan(contributions.value) or contributions.num_patients < 2 or contributions.is_constant:
        return Estimate(value=contributions.value, low=np.nan, high=np.nan)
    found = estimate(contributions)
    low, high = max(found.low, -1.0), min(found.high, 1.0)
    return Estimate(value=found.value, low=low, high=high, few_patients=found.few_patients)


def cohen_kappa(one: Bools, other: Bools, patients: Patients) -> Contributions:
    """Cohen's kappa of two raters: agreement beyond what their rates of 1 make by chance.

    Cohen, A coefficient of agreement for nominal scales, Educational and Psychological Measurement 20 (1960).
    Undefined where both say the same one thing of all images.

    Args:
        one: (n,) what the first says.
        other: (n,) what the second says.
        patients: of these images.
    """
    cells = np.stack([patients.sums(cell) for cell in (one & other, one & ~other, ~one & other, ~one & ~other)], axis=1)
    return _left_out(cells, _cohen, cells.sum(axis=1))


def _cohen(cells: Floats) -> Floats:
    """Of (m, 4) numbers of images: both 1, the first alone, the second alone, none."""
    both, first, second, none = cells.T
    num_images = cells.sum(axis=1)
    by_chance = ((both + first) * (both + second) + (none + first) * (none + second)) / num_images**2
    kappa: Floats = ((both + none) / num_images - by_chance) / (1 - by_chance)
    return kappa


def fleiss_kappa(ratings: Bools, patients: Patients) -> Contributions:
    """Fleiss' kappa of R raters of the same images.

    Fleiss, Measuring nominal scale agreement among many raters, Psychological Bulletin 76 (1971).

    Args:
        ratings: (R, n) what each says.
        patients: of these images.
    """
    num_raters = len(ratings)
    found = ratings.sum(axis=0)
    agreeing = (found**2 + (num_raters - found) ** 2 - num_raters) / (num_raters * (num_raters - 1))
    num_images = patients.sums(np.ones(ratings.shape[1]))
    sums = np.stack([num_images, patients.sums(agreeing), patients.sums(found / num_raters)], axis=1)
    return _left_out(sums, _fleiss, num_images)


def _fleiss(sums: Floats) -> Floats:
    """Of (m, 3): images, the sum of their shares of agreeing pairs of raters, that of their shares of raters of 1."""
    num_images, agreeing, found = sums.T
    share = found / num_images
    by_chance = share**2 + (1 - share) ** 2
    kappa: Floats = (agreeing / num_images - by_chance) / (1 - by_chance)
    return kappa


def _left_out(sums: Floats, statistic: Callable[[Floats], Floats], num_images: Floats) -> Contributions:
    """A statistic of sums over patients, with how much it is lower without each of them: the jackknife itself.

    Args:
        sums: (P, m) of each patient.
        statistic: (q, m) sums -> (q,).
        num_images: (P,) images of each patient.
    """
    total = sums.sum(axis=0)
    if not num_images.sum():
        return UNDEFINED
    with np.errstate(invalid="ignore", divide="ignore"):
        value = float(statistic(total[None])[0])
        of_patients = value - statistic(total - sums)
    has_images = num_images > 0
    # Undefined without a patient, who alone makes the raters differ: then nothing is known of how sure it is.
    is_whole = bool(np.isfinite(of_patients[has_images]).all())
    return Contributions(
        value=value,
        of_patients=np.where(has_images & is_whole, of_patients, 0.0),
        num_patients=int(has_images.sum()) if is_whole else 1,
        effective_patients=kish(num_images),
        bounds=ANY,
    )
