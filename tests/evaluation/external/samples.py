"""Predictions whose truth is known: patients with several images that are alike."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from catheters.evaluation.evaluation import Choices, evaluate
from catheters.evaluation.external.measures import FrozenPredictions, Judged
from catheters.evaluation.external.own_numbers import read_fold_thresholds, read_own_macro_auc, read_own_numbers
from catheters.evaluation.intervals import Estimate
from catheters.evaluation.prediction_set import PredictionSet
from catheters.evaluation.results import write_metrics

Floats = npt.NDArray[np.float64]

LABELS = ("rare", "some", "often")
CENTRES = np.array([-2.8, -1.5, -0.3])


def draw(rng: np.random.Generator, num_patients: int, *, intercept: float = 0.0, slope: float = 1.0) -> PredictionSet:
    """Probabilities p, and labels that hold with sigmoid(intercept + slope logit(p)); five folds of patients."""
    counts = np.minimum(rng.geometric(0.4, num_patients), 8)
    patient_of = np.repeat(np.arange(num_patients), counts)
    num_images, num_labels = len(patient_of), len(CENTRES)
    of_patients = rng.normal(size=(num_patients, num_labels))[patient_of]
    logits = CENTRES + 1.3 * of_patients + rng.normal(size=(num_images, num_labels))
    # Images of a patient share their chance more often than not, so that they are alike beyond their probabilities.
    shared, single = rng.random((num_patients, num_labels))[patient_of], rng.random((num_images, num_labels))
    chance = np.where(rng.random((num_images, 1)) < 0.5, shared, single)
    number = int(rng.integers(1_000_000_000))
    return PredictionSet(
        name="drawn",
        labels=LABELS,
        uids=np.array([f"{number}-{image}" for image in range(num_images)]),
        patient_ids=np.array([f"{number}-p{patient}" for patient in patient_of]),
        folds=patient_of % 5,
        targets=(chance < expit(intercept + slope * logits)).astype(np.float64),
        probabilities=expit(logits),
    )


def freeze(
    evaluated: PredictionSet, thresholds: Floats | None = None, by_fold: Floats | None = None
) -> FrozenPredictions:
    """By the thresholds, (K,), 0.5 by default, and those of the folds, (J, K)."""
    probabilities = evaluated.probabilities
    thresholds = np.full(len(evaluated.labels), 0.5) if thresholds is None else thresholds
    of_folds = thresholds[None] if by_fold is None else by_fold

    def judge(of_all: Floats) -> Judged:
        predicted = np.mean([probabilities >= threshold for threshold in of_all], axis=0)
        return Judged(probabilities=probabilities, scores=probabilities, predicted=predicted)

    return FrozenPredictions(
        evaluated=evaluated,
        frozen=judge(thresholds[None]),
        alike=(judge(of_folds),),
        has_threshold=~np.isnan(thresholds),
    )


def own_numbers(own: PredictionSet, folder: Path) -> tuple[dict[str, dict[str, Estimate]], Floats, Floats]:
    """By the run's evaluation and its file; the thresholds, and (J, K) those of its folds."""
    evaluation = evaluate(own, {}, {}, Choices(calibration="none"))
    file = folder / "metrics.json"
    write_metrics(file, evaluation, Path("predictions.csv"), "a", "b", "labels.csv", len(own))
    assert read_own_macro_auc(file) == evaluation.scores.macro("roc_auc")
    of_folds = read_fold_thresholds(file)
    thresholds = np.array([point.threshold for point in evaluation.points])
    by_fold = np.array([[of_folds[label][fold] for label in own.labels] for fold in range(5)])
    return {label: dict(numbers) for label, numbers in read_own_numbers(file).items()}, thresholds, by_fold
