"""ROC AUC, average precision and Brier score of every label and their means, with intervals."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from catheters.evaluation.intervals import Contributions, Estimate, estimate, mean_estimate, subtract
from catheters.evaluation.metrics import score_labels
from catheters.evaluation.patients import Patients
from catheters.evaluation.prediction_set import PredictionSet, mean_of_known

Floats = npt.NDArray[np.float64]

METRICS: Mapping[str, str] = {"roc_auc": "ROC AUC", "average_precision": "average precision", "brier": "Brier score"}
"""Metric -> its name for people. Of the Brier score, less is better."""


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
        contributions: metric -> (K,) the same and what of them each patient makes up.
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
    contributions: Mapping[str, Sequence[Contributions]]

    def estimate(self, metric: str, label: str) -> Estimate:
        """One label's score with its interval."""
        return estimate(self.contributions[metric][self.labels.index(label)])

    def macro(self, metric: str, is_in: npt.NDArray[np.bool_] | None = None) -> Estimate:
        """The mean over the labels that are defined, with its interval; NaN where none is.

        The mean of the ROC AUCs is Kaggle's score for RANZCR CLiP.

        Args:
            metric: a key of `METRICS`.
            is_in: (K,) labels to take; None: all.
        """
        is_defined = ~np.isnan(self.values[metric])
        if is_in is not None:
            is_defined &= is_in
        return mean_estimate([self.contributions[metric][k] for k in np.flatnonzero(is_defined).tolist()])


def score(evaluated: PredictionSet, patients: Patients) -> Scores:
    """Score every label, by scikit-learn; the contributions of the patients are computed beside it.

    Args:
        evaluated: n images.
        patients: of these images.
    """
    targets, probabilities, is_known = evaluated.targets, evaluated.probabilities, evaluated.is_known
    labels = score_labels(targets, probabilities, evaluated.labels)
    of_labels = [evaluated.of_label(k) for k in range(len(labels))]
    ranked = [patients.take(of.rows).ranking(of.targets, of.probabilities) for of in of_labels]
    squared_errors = np.where(is_known, (probabilities - targets) ** 2, 0)
    return Scores(
        name=evaluated.name,
        labels=evaluated.labels,
        num_images=len(evaluated),
        num_known=[label.num_images for label in labels],
        num_patients=patients.num_patients,
        num_positives=[label.num_positives for label in labels],
        num_positive_patients=[patients.num_patients_with(column == 1) for column in targets.T],
        num_negative_patients=[patients.num_patients_with(column == 0) for column in targets.T],
        values={
            "roc_auc": np.array([label.roc_auc for label in labels]),
            "average_precision": np.array([label.average_precision for label in labels]),
            "brier": mean_of_known(squared_errors, is_known),
        },
        contributions={
            "roc_auc": [areas for areas, _ in ranked],
            "average_precision": [precisions for _, precisions in ranked],
            "brier": [patients.ratio(squared_errors[:, k], is_known[:, k]) for k in range(len(labels))],
        },
    )


def difference(first: Scores, second: Scores) -> Scores:
    """The second's scores minus the first's, of the same images: the patients' contributions are paired."""
    assert first.labels == second.labels, "the same labels"
    return dataclasses.replace(
        first,
        name=f"{second.name} - {first.name}",
        values={metric: second.values[metric] - values for metric, values in first.values.items()},
        contributions={
            metric: [subtract(*pair) for pair in zip(of_first, second.contributions[metric], strict=True)]
            for metric, of_first in first.contributions.items()
        },
    )
