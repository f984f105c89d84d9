"""What some local patients would give: the frozen model, recalibrated or with another threshold, judged on the others.

Nested: patients are drawn at random, the fit knows them alone, and all others judge it; again and again, so that the
spread shows how much hangs on who they are. A new threshold is chosen by the rule of the run's own evaluation.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit

from catheters.evaluation.calibration import SMALLEST
from catheters.evaluation.external.measures import FrozenPredictions
from catheters.evaluation.operating_points import Rule, choose_threshold
from catheters.evaluation.recalibration import fit_intercept, fit_slope
from catheters.runtime.progress import track

Floats = npt.NDArray[np.float64]

NUM_LOCAL_PATIENTS = (25, 50, 100, 200, 400)
"""That are drawn, as far as so many others are left."""
NUM_DRAWS = 50
SPREAD = (5, 95)
"""Percentiles of the draws."""
AS_IT_IS, INTERCEPT, LOGISTIC, THRESHOLD = "as it is", "intercept", "intercept and slope", "threshold"
METHODS: Mapping[str, str] = {
    AS_IT_IS: "nothing is fitted",
    INTERCEPT: "an intercept is added to the logits",
    LOGISTIC: "intercept and slope of the logits are fitted",
    THRESHOLD: "another threshold is chosen",
}
"""Name -> what is done."""
JUDGED = ("log_loss", "brier", "observed_to_expected", "slope")
"""Of the first three."""
JUDGED_THRESHOLD = ("sensitivity", "specificity")
"""Of the threshold, and of the frozen one."""


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """A number over the draws.

    Attributes:
        mean: of them.
        low: 5th percentile.
        high: 95th percentile.
    """

    mean: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class LocalFit:
    """What a method gives, fitted on so many patients and judged on the others.

    Attributes:
        label: of which label.
        num_patients: that it was fitted on.
        method: a key of `METHODS`.
        num_draws: of patients with whom it could be fitted; without positives or negatives among them it cannot.
        numbers: of `JUDGED` or `JUDGED_THRESHOLD`, on the others; those of `AS_IT_IS` are of both.
    """

    label: str
    num_patients: int
    method: str
    num_draws: int
    numbers: Mapping[str, Drawn]


def fit_locally(predictions: FrozenPredictions, rule: Rule, seed: int) -> list[LocalFit]:
    """Try every number of patients that leaves as many others, for every label that has both classes.

    Args:
        predictions: of n images from elsewhere.
        rule: how thresholds are chosen.
        seed: of the draws.
    """
    evaluated = predictions.evaluated
    names, patient_of = np.unique(evaluated.patient_ids, return_inverse=True)
    sizes = [size for size in NUM_LOCAL_PATIENTS if 2 * size <= len(names)]
    rng = np.random.default_rng(seed)
    draws = [(size, rng.permutation(len(names))[:size]) for size in sizes for _ in range(NUM_DRAWS)]
    judged = [k for k in range(len(evaluated.labels)) if evaluated.of_label(k).has_both]
    found: dict[tuple[int, int, str], list[dict[str, float]]] = {
        (k, size, method): [] for k in judged for size in sizes for method in METHODS
    }
    for size, chosen in track(draws, "drawing local patients", len(draws), unit="draw", leave=False):
        is_local = np.isin(patient_of, chosen)
        for k in judged:
            for method, numbers in _try(predictions, k, is_local, rule).items():
                found[k, size, method].append(numbers)
    return [
        LocalFit(
            label=evaluated.labels[k],
            num_patients=size,
            method=method,
            num_draws=len(numbers),
            numbers=_summarise(numbers),
        )
        for (k, size, method), numbers in found.items()
    ]


def _try(
    predictions: FrozenPredictions, k: int, is_local: npt.NDArray[np.bool_], rule: Rule
) -> dict[str, dict[str, float]]:
    """Method -> what it gives; nothing where one of both parts has one class alone."""
    of_label = predictions.evaluated.of_label(k)
    local = is_local[of_label.rows]
    fitted_on, judged_on = of_label.targets[local], of_label.targets[~local]
    if any(not 0 < part.sum() < len(part) for part in (fitted_on, judged_on)):
        return {}
    logits = logit(np.clip(of_label.probabilities, SMALLEST, 1 - SMALLEST))
    moved = fit_intercept(fitted_on, logits[local])
    intercept, slope = fit_slope(fitted_on, logits[local])
    if math.isnan(slope):
        intercept, slope = moved, 1.0  # a threshold keeps the classes apart: no slope is the likeliest
    scores = predictions.frozen.scores[of_label.rows, k]
    found = {
        AS_IT_IS: _judge(judged_on, logits[~local]),
        INTERCEPT: _judge(judged_on, logits[~local] + moved),
        LOGISTIC: _judge(judged_on, intercept + slope * logits[~local]),
    }
    if predictions.has_threshold[k]:
        found[AS_IT_IS] |= _judge_threshold(judged_on, predictions.frozen.predicted[of_label.rows, k][~local] == 1)
    threshold = choose_threshold(rule, fitted_on, scores[local])
    found[THRESHOLD] = _judge_threshold(judged_on, scores[~local] >= threshold)
    return found


def _judge(targets: npt.NDArray[np.uint8], logits: Floats) -> dict[str, float]:
    probabilities = expit(logits)
    return {
        "log_loss": float(np.logaddexp(0, np.where(targets == 1, -logits, logits)).mean()),
        "brier": float(((probabilities - targets) ** 2).mean()),
        "observed_to_expected": float(targets.sum() / probabilities.sum()),
        "slope": fit_slope(targets, logits)[1],
    }


def _judge_threshold(targets: npt.NDArray[np.uint8], is_predicted: npt.NDArray[np.bool_]) -> dict[str, float]:
    return {
        "sensitivity": float(is_predicted[targets == 1].mean()),
        "specificity": float((~is_predicted[targets == 0]).mean()),
    }


def _summarise(numbers: Sequence[Mapping[str, float]]) -> dict[str, Drawn]:
    if not numbers:
        return {}
    names = numbers[0].keys()
    columns = {name: np.array([of_draw[name] for of_draw in numbers]) for name in names}
    return {
        name: Drawn(
            mean=float(np.nanmean(values)) if np.isfinite(values).any() else math.nan,
            low=float(np.nanpercentile(values, SPREAD[0])) if np.isfinite(values).any() else math.nan,
            high=float(np.nanpercentile(values, SPREAD[1])) if np.isfinite(values).any() else math.nan,
        )
        for name, values in columns.items()
    }
