"""ROC AUC, average precision and Brier score of every label and their means, with intervals."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from catheters.evaluation.intervals import NO_ESTIMATE, Estimate, PatientBootstrap, percentile_estimate
from catheters.evaluation.metrics import score_labels
from catheters.evaluation.prediction_set import PredictionSet, mean_of_known

Floats = npt.NDArray[np.float64]

METRICS: Mapping[str, str] = {"roc_auc": "ROC AUC", "average_precision": "average precision", "brier": "Brier score"}
"""Metric -> its name for people. Of the Brier score, less is better."""
RANKING_METRICS = ("roc_auc", "average_precision")
"""They are as sure as the label's rarer class."""

NO_MACRO_INTERVAL: Mapping[str, str] = {
    "average_precision": (
        "resamples repeat positives, which raises the average precision of every label; their mean keeps this shift, "
        "while its own scatter is small, so that its interval misses the truth too often"
    )
}
"""Metric -> why the mean over labels has no interval. In a difference of two means the shifts cancel: it has one."""


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Scores of K labels, or differences of scores.

    Attributes:
        name: what predicted.
        labels: (K,) names.
        num_images: images scored.
        num_patients: their patients.
        num_known: (K,) images of which the label is known.
        num_positives: (K,) images that have the label.
        num_positive_patients: (K,) patients who have it in an image.
        num_negative_patients: (K,) patients who have an image without it.
        values: metric -> (K,); NaN where the images are of one class alone.
        replicates: metric -> (R, K), the same of R resamples of the patients.
        are_differences: whether these are differences of two models' scores.
    """

    name: str
    labels: tuple[str, ...]
    num_images: int
    num_patients: int
    num_known: Sequence[int]
    num_positives: Sequence[int]
    num_positive_patients: Sequence[int]
    num_negative_patients: Sequence[int]
    values: Mapping[str, Floats]
    replicates: Mapping[str, Floats]
    are_differences: bool = False

    def estimate(self, metric: str, label: str) -> Estimate:
        """One label's score with its interval."""
        k = self.labels.index(label)
        num_patients = self.num_patients
        if metric in RANKING_METRICS:
            num_patients = min(self.num_positive_patients[k], self.num_negative_patients[k])
        return percentile_estimate(float(self.values[metric][k]), self.replicates[metric][:, k], num_patients)

    def macro(self, metric: str, is_in: npt.NDArray[np.bool_] | None = None) -> Estimate:
        """The mean over the labels that are defined, with its interval; NaN where none is, or see `NO_MACRO_INTERVAL`.

        Args:
            metric: a key of `METRICS`.
            is_in: (K,) labels to take; None: all.

        The mean of the ROC AUCs is Kaggle's score for RANZCR CLiP. Resamples in which one of these labels has no
        positive or no negative are left out: a mean over other labels is another quantity.
        """
        is_defined = ~np.isnan(self.values[metric])
        if is_in is not None:
            is_defined &= is_in
        if not is_defined.any():
            return NO_ESTIMATE
        value = float(self.values[metric][is_defined].mean())
        if metric in NO_MACRO_INTERVAL and not self.are_differences:
            return Estimate(value=value, low=math.nan, high=math.nan)
        return percentile_estimate(value, self.replicates[metric][:, is_defined].mean(axis=1), self.num_patients)


def score(evaluated: PredictionSet, bootstrap: PatientBootstrap) -> Scores:
    """Score every label, by scikit-learn, and in every resample."""
    targets, probabilities, is_known = evaluated.targets, evaluated.probabilities, evaluated.is_known
    labels = score_labels(targets, probabilities, evaluated.labels)
    of_labels = [evaluated.of_label(k) for k in range(len(labels))]
    ranked = [bootstrap.take(of.rows).ranking_scores(of.targets, of.probabilities) for of in of_labels]
    squared_errors = np.where(is_known, (probabilities - targets) ** 2, 0)
    shape = (bootstrap.num_resamples, len(labels))
    return Scores(
        name=evaluated.name,
        labels=evaluated.labels,
        num_images=len(evaluated),
        num_known=[label.num_images for label in labels],
        num_patients=bootstrap.num_patients,
        num_positives=[label.num_positives for label in labels],
        num_positive_patients=[len(np.unique(evaluated.patient_ids[column == 1])) for column in targets.T],
        num_negative_patients=[len(np.unique(evaluated.patient_ids[column == 0])) for column in targets.T],
        values={
            "roc_auc": np.array([label.roc_auc for label in labels]),
            "average_precision": np.array([label.average_precision for label in labels]),
            "brier": mean_of_known(squared_errors, is_known),
        },
        replicates={
            "roc_auc": np.array([areas for areas, _ in ranked]).T.reshape(shape),
            "average_precision": np.array([precisions for _, precisions in ranked]).T.reshape(shape),
            "brier": _ratio(bootstrap.sums(squared_errors), bootstrap.sums(is_known)).reshape(shape),
        },
    )


def _ratio(parts: npt.NDArray[np.float64], wholes: npt.NDArray[np.generic]) -> npt.NDArray[np.float64]:
    """Element by element; NaN for 0 of 0."""
    with np.errstate(invalid="ignore"):
        return parts / np.asarray(wholes, np.float64)


def difference(first: Scores, second: Scores) -> Scores:
    """The second's scores minus the first's, in the same resamples of the same images."""
    assert first.labels == second.labels, "the same labels"
    return Scores(
        name=f"{second.name} - {first.name}",
        labels=first.labels,
        num_images=first.num_images,
        num_patients=first.num_patients,
        num_known=first.num_known,
        num_positives=first.num_positives,
        num_positive_patients=first.num_positive_patients,
        num_negative_patients=first.num_negative_patients,
        values={metric: second.values[metric] - values for metric, values in first.values.items()},
        replicates={metric: second.replicates[metric] - values for metric, values in first.replicates.items()},
        are_differences=True,
    )
