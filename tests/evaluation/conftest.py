"""Predictions to evaluate."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from catheters.evaluation.prediction_set import PredictionSet


def make_predictions(
    targets: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    patients: Sequence[object] | None = None,
    folds: Sequence[int] | None = None,
    labels: Sequence[str] | None = None,
    name: str = "model",
) -> PredictionSet:
    """Predictions of images 0, 1, 2..., NaN targets unknown; each of a patient of its own where none are given."""
    targets = np.asarray(targets, dtype=np.float64)
    return PredictionSet(
        name=name,
        labels=tuple(labels or [f"label {k}" for k in range(targets.shape[1])]),
        uids=np.arange(len(targets)).astype(np.str_),
        patient_ids=np.array(range(len(targets)) if patients is None else patients).astype(np.str_),
        folds=None if folds is None else np.array(folds, dtype=np.int64),
        targets=targets,
        probabilities=np.asarray(probabilities, dtype=np.float64),
    )


def correlated(
    rng: np.random.Generator, num_patients: int, num_images: int, distance: float
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float64], npt.NDArray[np.str_]]:
    """Targets, scores and patients of images that are alike within a patient, in both.

    Scores are normal around 0 or `distance`, half of their variance the patient's: the ROC AUC between patients is
    the normal distribution function of distance / 2.
    """
    patients = np.repeat(np.arange(num_patients), num_images)
    shares = 1 / (1 + np.exp(-rng.normal(-1, 1, num_patients)))
    targets = (rng.random(len(patients)) < shares[patients]).astype(np.uint8)
    scores = distance * targets + rng.normal(size=num_patients)[patients] + rng.normal(size=len(patients))
    return targets, scores, patients.astype(np.str_)
