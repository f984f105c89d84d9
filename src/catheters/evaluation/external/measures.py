"""How well a frozen model does on images from elsewhere, label by label, beside its own out-of-fold numbers.

Nothing is fitted: probabilities are those of the stored calibration, predicted positive is what the stored threshold
says. The two samples share no patient, so their variances add: Zou and Donner, Construction of confidence limits about
effect measures, Statistics in Medicine 27 (2008).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from catheters.evaluation.intervals import NO_ESTIMATE, UNDEFINED, Contributions, Estimate, estimate, mean_estimate
from catheters.evaluation.paired_tests import SIGNIFICANT, adjust_by_holm
from catheters.evaluation.patients import Patients
from catheters.evaluation.prediction_set import PredictionSet
from catheters.evaluation.recalibration import measure as measure_calibration
from catheters.evaluation.subgroups import p_of_interval

Floats = npt.NDArray[np.float64]
Numbers = Mapping[str, Estimate]
"""Of one label: name of the measure -> it, with its interval."""

MEASURES: Mapping[str, str] = {
    "roc_auc": "ROC AUC",
    "average_precision": "average precision",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "ppv": "PPV",
    "npv": "NPV",
    "observed_to_expected": "observed / expected",
    "in_the_large": "calibration in the large",
    "slope": "calibration slope",
    "intercept": "calibration intercept",
    "brier": "Brier score",
    "prevalence": "prevalence",
    "mean_prediction": "mean prediction",
}
"""Name -> for people."""
CHECKED = ("roc_auc", "sensitivity", "specificity", "observed_to_expected", "slope")
"""Whose differences may raise an alarm: none of them need change with the prevalence alone but observed / expected."""
OF_ALL_TOGETHER = ("roc_auc", "observed_to_expected")
"""Those of them that can be told of several models together, of which out of fold each was alone: the mean of several
is less sure, so that its slope and its rates at a threshold are others even where the images are alike."""


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What a model says of n images.

    Attributes:
        probabilities: (n, K) calibrated.
        scores: (n, K) what ranks the images: the probabilities before calibration where they are known.
        predicted: (n, K) 1 where it is predicted positive, else 0, or the share of several thresholds by which it is;
            of no use where a label has none.
    """

    probabilities: Floats
    scores: Floats
    predicted: Floats


@dataclass(frozen=True, kw_only=True)
class FrozenPredictions:
    """Predictions of n images from elsewhere by a model of which nothing is fitted to them.

    Attributes:
        evaluated: the calibrated probabilities beside the truth; a label that is not told there is unknown everywhere.
        frozen: the model as it is shipped: all fold models together, by the stored thresholds.
        alike: one or more, judged as the run's own images were: each fold model alone, by the threshold of its fold.
            Their mean is held against the run's own numbers, so that neither the gain of several models together nor
            the chance in the choice of a threshold is taken for a difference of the images.
        has_threshold: (K,) whether a label has one.
    """

    evaluated: PredictionSet
    frozen: Judged
    alike: tuple[Judged, ...]
    has_threshold: npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class LabelResult:
    """One label, here and out of fold.

    Attributes:
        label: its name.
        num_known: images here of which it is known.
        num_positives: those that have it.
        num_positive_patients: patients who have it in an image.
        num_negative_patients: patients who have an image without it.
        here: name of the measure -> on these images, of the model as it is shipped.
        alike: name -> on these images, as the run's own were judged: the mean over its fold models.
        own: name -> the run's own, out of fold; NaN where that is not known.
        differences: name -> alike minus own.
        p_holm: name of a checked measure -> the p-value of its difference, adjusted over all that are checked; NaN
            where it could not be compared.
        checked: of `CHECKED`, those that the models, alone or together, allow to compare.
    """

    label: str
    num_known: int
    num_positives: int
    num_positive_patients: int
    num_negative_patients: int
    here: Numbers
    alike: Numbers
    own: Numbers
    differences: Numbers
    p_holm: Mapping[str, float]
    checked: tuple[str, ...] = CHECKED

    @property
    def is_told(self) -> bool:
        """Whether the label is known of any image here."""
        return self.num_known > 0

    @property
    def is_judged(self) -> bool:
        """Whether there are positives and negatives here."""
        return 0 < self.num_positives < self.num_known

    @property
    def not_compared(self) -> tuple[str, ...]:
        """Of `CHECKED`, those whose difference has no p-value."""
        return tuple(name for name, p in self.p_holm.items() if math.isnan(p))

    @property
    def is_compared(self) -> bool:
        """Whether any number is held against the run's own."""
        return self.is_judged and len(self.not_compared) < len(self.p_holm)

    @property
    def alarms(self) -> tuple[str, ...]:
        """The checked measures that differ by more than chance."""
        return tuple(name for name, p in self.p_holm.items() if p < SIGNIFICANT)  # never with NaN

    @property
    def miscalibrated(self) -> tuple[str, ...]:
        """Of observed / expected and slope those whose own interval leaves out 1, whatever they were out of fold."""
        names = ("observed_to_expected", "slope")
        return tuple(name for name in names if self.here[name].low > 1 or self.here[name].high < 1)


def measure(evaluated: PredictionSet, judged: Sequence[Judged], has_threshold: npt.NDArray[np.bool_]) -> list[Numbers]:
    """(K,) the `MEASURES` of each label, NaN where they are undefined; the mean over several models.

    Args:
        evaluated: the truth of n images.
        judged: what one or more models say of them.
        has_threshold: (K,) whether a label has one.
    """
    patients = Patients(evaluated.patient_ids)
    nothing = dict.fromkeys(MEASURES, NO_ESTIMATE)
    found: list[Numbers] = []
    for k in range(len(evaluated.labels)):
        parts = [_measure_label(evaluated, of_model, k, patients, has_threshold[k]) for of_model in judged]
        found.append(nothing | {name: estimate(mean_of_models([part[name] for part in parts])) for name in parts[0]})
    return found


def macro_auc(evaluated: PredictionSet, judged: Sequence[Judged], is_in: npt.NDArray[np.bool_]) -> Estimate:
    """The mean ROC AUC over some labels, of several models the mean.

    Args:
        evaluated: the truth of n images.
        judged: what one or more models say of them.
        is_in: (K,) labels to take, each with both classes.
    """
    patients = Patients(evaluated.patient_ids)
    areas = []
    for k in np.flatnonzero(is_in).tolist():
        of_label = evaluated.of_label(k)
        known = patients.take(of_label.rows)
        of_models = [known.ranking(of_label.targets, of.scores[of_label.rows, k])[0] for of in judged]
        areas.append(mean_of_models(of_models))
    return mean_estimate(areas)


def compare(
    predictions: FrozenPredictions, own: Mapping[str, Numbers], checked: tuple[str, ...] = CHECKED
) -> list[LabelResult]:
    """Measure every label and hold it against the run's own numbers.

    Args:
        predictions: of n images from elsewhere.
        own: label -> name of the measure -> the run's own number; what is not known may be left out.
        checked: measures that may raise an alarm.
    """
    evaluated = predictions.evaluated
    patients = Patients(evaluated.patient_ids)
    here = measure(evaluated, [predictions.frozen], predictions.has_threshold)
    alike = measure(evaluated, predictions.alike, predictions.has_threshold)
    results = []
    for k, label in enumerate(evaluated.labels):
        targets = evaluated.targets[:, k]
        of_run = {name: own.get(label, {}).get(name, NO_ESTIMATE) for name in MEASURES}
        results.append(
            LabelResult(
                label=label,
                num_known=int((~np.isnan(targets)).sum()),
                num_positives=int((targets == 1).sum()),
                num_positive_patients=patients.num_patients_with(targets == 1),
                num_negative_patients=patients.num_patients_with(targets == 0),
                here=here[k],
                alike=alike[k],
                own=of_run,
                differences={name: subtract_independent(alike[k][name], of_run[name]) for name in MEASURES},
                p_holm={},
                checked=checked,
            )
        )
    return _adjust(results)


def subtract_independent(here: Estimate, own: Estimate) -> Estimate:
    """The first minus the second, of samples that share no patient; without an interval where one has none."""
    value = here.value - own.value
    below = math.hypot(here.value - here.low, own.high - own.value)
    above = math.hypot(here.high - here.value, own.value - own.low)
    is_any_few = here.few_patients or own.few_patients
    return Estimate(value=value, low=value - below, high=value + above, few_patients=is_any_few)


def _adjust(results: Sequence[LabelResult]) -> list[LabelResult]:
    """With Holm's p-values over all labels and all that is checked, so that of equal samples few raise any alarm."""
    p = np.array(
        [
            [p_of_interval(result.differences[name]) if name in result.checked else math.nan for name in CHECKED]
            for result in results
        ]
    )
    adjusted = adjust_by_holm(p.ravel()).reshape(p.shape)
    return [
        replace(result, p_holm=dict(zip(CHECKED, of_label.tolist(), strict=True)))
        for result, of_label in zip(results, adjusted, strict=True)
    ]


def _measure_label(
    evaluated: PredictionSet, judged: Judged, k: int, patients: Patients, has_threshold: bool
) -> dict[str, Contributions]:
    of_label = evaluated.of_label(k)
    targets, rows = of_label.targets, of_label.rows
    if not len(rows):
        return {}
    of_known, probabilities = patients.take(rows), judged.probabilities[rows, k]
    everything, is_positive = np.ones(len(rows)), targets == 1
    found = {
        "brier": of_known.ratio((probabilities - targets) ** 2, everything),
        "prevalence": of_known.ratio(is_positive, everything),
        "mean_prediction": of_known.ratio(probabilities, everything),
    }
    if has_threshold:
        positive, predicted = is_positive.astype(np.float64), judged.predicted[rows, k]
        found["sensitivity"] = of_known.ratio(positive * predicted, positive)
        found["specificity"] = of_known.ratio((1 - positive) * (1 - predicted), 1 - positive)
        found["ppv"] = of_known.ratio(positive * predicted, predicted)
        found["npv"] = of_known.ratio((1 - positive) * (1 - predicted), 1 - predicted)
    if of_label.has_both:
        area, precision = of_known.ranking(targets, judged.scores[rows, k])
        found |= {"roc_auc": area, "average_precision": precision}
        found |= measure_calibration(targets, probabilities, of_known)
    return found


def mean_of_models(parts: Sequence[Contributions]) -> Contributions:
    """The mean of several models' numbers of the same images; undefined where one is."""
    first = parts[0]
    if len(parts) == 1 or any(math.isnan(part.value) for part in parts):
        return first if len(parts) == 1 else UNDEFINED
    return replace(
        first,
        value=float(np.mean([part.value for part in parts])),
        of_patients=np.mean([part.of_patients for part in parts], axis=0),
        num_patients=min(part.num_patients for part in parts),
        effective_patients=min(part.effective_patients for part in parts),
    )
