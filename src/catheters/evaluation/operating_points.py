"""Thresholds, and what a reader gets who follows them: sensitivity, specificity, predictive values, likelihood ratios.

A threshold that is chosen and judged on the same images promises too much. Here each fold is judged by the threshold
that the other folds chose; the one to use on new images is chosen on all.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from catheters.errors import UserError, unknown_name
from catheters.evaluation.intervals import NO_ESTIMATE, Estimate, estimate
from catheters.evaluation.likelihood_ratios import likelihood_ratios
from catheters.evaluation.patients import Patients
from catheters.evaluation.prediction_set import PredictionSet

Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Rule:
    """How a threshold is chosen.

    Attributes:
        name: a key of `RULES` or of `REQUIREMENTS`.
        required: what is required at least, in 0..1; None for a rule of `RULES`.
    """

    name: str
    required: float | None = None

    def __str__(self) -> str:
        return self.name if self.required is None else f"{self.name}={self.required:g}"

    @property
    def words(self) -> str:
        """What it looks for, for people."""
        if self.required is None:
            return RULE_WORDS[self.name]
        return f"a {self.name} of {self.required:g} or more"


@dataclass(frozen=True, kw_only=True)
class OperatingPoint:
    """A label's threshold, and what it gives; all NaN where the label cannot be judged.

    Attributes:
        label: its name.
        threshold: chosen on all images, for new ones: at it and above it the label is predicted positive.
        fold_thresholds: fold -> the threshold it is judged by, chosen on the others.
        confusion: images that are true positive, false positive, false negative, true negative.
        sensitivity: positives predicted positive.
        specificity: negatives not predicted positive.
        ppv: share of positives among what is predicted positive.
        npv: share of negatives among what is not.
        positive_likelihood_ratio: the positive likelihood ratio, sensitivity / (1 - specificity).
        negative_likelihood_ratio: the negative likelihood ratio, (1 - sensitivity) / specificity.
        prevalence: for which the two predictive values hold.
        is_restated: the prevalence is one that was asked for, not that of the images.
    """

    label: str
    threshold: float
    fold_thresholds: Mapping[int, float]
    confusion: tuple[int, int, int, int]
    sensitivity: Estimate
    specificity: Estimate
    ppv: Estimate
    npv: Estimate
    positive_likelihood_ratio: Estimate
    negative_likelihood_ratio: Estimate
    prevalence: float
    is_restated: bool


def _youden(found: Counts, false: Counts, num_positives: int, num_negatives: int) -> Floats:
    """Youden, Index for rating diagnostic tests, Cancer 3 (1950), times both numbers: whole, so that ties are ties."""
    return (found * num_negatives - false * num_positives).astype(np.float64)


def _f1(found: Counts, false: Counts, num_positives: int, num_negatives: int) -> Floats:
    """2 TP / (2 TP + FP + FN)."""
    score: Floats = 2 * found / (found + false + num_positives)
    return score


RULES: Mapping[str, Callable[[Counts, Counts, int, int], Floats]] = MappingProxyType({"youden": _youden, "f1": _f1})
"""Name -> what is to be largest, of true and false positives at each threshold."""
RULE_WORDS: Mapping[str, str] = MappingProxyType({"youden": "the highest Youden's index", "f1": "the highest F1 score"})
"""The same in words, for people."""

REQUIREMENTS = ("sensitivity", "specificity")
"""What may be required; the other one is then as large as it can be."""


def parse_rule(text: str) -> Rule:
    """`youden`, `f1`, `sensitivity=0.9` or `specificity=0.95`.

    Raises:
        UserError: something else.
    """
    name, equals, number = text.partition("=")
    if name in RULES and not equals:
        return Rule(name=name)
    if name in REQUIREMENTS:
        try:
            required = float(number)
        except ValueError:
            required = math.nan
        if not 0 < required <= 1:
            raise UserError(f"operating point '{text}': a number above 0 and up to 1 is expected, as in {name}=0.9")
        return Rule(name=name, required=required)
    known = [*RULES, *REQUIREMENTS]
    raise UserError(f"operating point {unknown_name(name, 'a rule', known)}; write for example youden, sensitivity=0.9")


def choose_threshold(rule: Rule, targets: npt.NDArray[np.uint8], scores: Floats) -> float:
    """The score at which and above which a label is predicted positive.

    Of equally good ones the highest; for a required sensitivity the highest that reaches it, for a required
    specificity the lowest. NaN where the images are of one class alone.

    Args:
        rule: how.
        targets: (n,) 0/1.
        scores: (n,).
    """
    num_positives = int(targets.sum())
    num_negatives = len(targets) - num_positives
    if num_positives == 0 or num_negatives == 0:
        return math.nan
    order = np.argsort(-scores, kind="stable")
    descending = scores[order]
    is_last_of_equals = np.append(np.diff(descending) != 0, True)
    candidates = np.append(np.nextafter(descending[0], np.inf), descending[is_last_of_equals])  # the first calls none
    found = np.append(0, np.cumsum(targets[order].astype(np.int64))[is_last_of_equals])
    false = np.append(0, np.flatnonzero(is_last_of_equals) + 1) - found
    if rule.required is None:
        chosen = int(np.argmax(RULES[rule.name](found, false, num_positives, num_negatives)))
    elif rule.name == "sensitivity":
        chosen = int(np.argmax(found / num_positives >= rule.required))
    else:
        chosen = int(np.flatnonzero((num_negatives - false) / num_negatives >= rule.required)[-1])
    return float(candidates[chosen])


def judge(
    evaluated: PredictionSet,
    folds: npt.NDArray[np.int64],
    rule: Rule,
    patients: Patients,
    prevalences: Mapping[str, float],
) -> list[OperatingPoint]:
    """The operating point of every label.

    The intervals are those of the images that are judged, under the thresholds as they were chosen.

    Args:
        evaluated: predictions and truth.
        folds: (n,) see `fitting_folds`.
        rule: how thresholds are chosen.
        patients: of these images.
        prevalences: label -> prevalence for which its predictive values are restated; others keep the images' own.
    """
    return [_judge(evaluated, k, folds, rule, patients, prevalences) for k in range(len(evaluated.labels))]


def _judge(
    evaluated: PredictionSet,
    k: int,
    folds: npt.NDArray[np.int64],
    rule: Rule,
    patients: Patients,
    prevalences: Mapping[str, float],
) -> OperatingPoint:
    label, of_label = evaluated.labels[k], evaluated.of_label(k)
    targets, scores = of_label.targets, of_label.probabilities
    numbers = np.unique(folds)  # those without a known image too: their images' heatmaps are judged by a threshold
    folds, patients = folds[of_label.rows], patients.take(of_label.rows)
    thresholds = {int(fold): choose_threshold(rule, targets[folds != fold], scores[folds != fold]) for fold in numbers}
    restated = prevalences.get(label)
    of_images = float(targets.mean()) if len(targets) else math.nan
    prevalence = of_images if restated is None else restated
    if any(math.isnan(threshold) for threshold in thresholds.values()):
        return OperatingPoint(
            label=label,
            threshold=math.nan,
            fold_thresholds=thresholds,
            confusion=(0, 0, 0, 0),
            sensitivity=NO_ESTIMATE,
            specificity=NO_ESTIMATE,
            ppv=NO_ESTIMATE,
            npv=NO_ESTIMATE,
            positive_likelihood_ratio=NO_ESTIMATE,
            negative_likelihood_ratio=NO_ESTIMATE,
            prevalence=prevalence,
            is_restated=restated is not None,
        )
    is_predicted = scores >= np.array([thresholds[int(fold)] for fold in folds])
    is_positive = targets == 1
    of_positives = patients.ratio(is_positive & is_predicted, is_positive)
    of_negatives = patients.ratio(~is_positive & ~is_predicted, ~is_positive)
    sensitivity, specificity = estimate(of_positives), estimate(of_negatives)
    positive_likelihood_ratio, negative_likelihood_ratio = likelihood_ratios(of_positives, of_negatives)
    if restated is None:
        ppv = estimate(patients.ratio(is_positive & is_predicted, is_predicted))
        npv = estimate(patients.ratio(~is_positive & ~is_predicted, ~is_predicted))
    else:
        ppv = restate(sensitivity, specificity, restated)
        npv = restate(specificity, sensitivity, 1 - restated)
    confusion = [
        int((is_of & is_called).sum())
        for is_called, is_of in (
            (is_predicted, is_positive),
            (is_predicted, ~is_positive),
            (~is_predicted, is_positive),
            (~is_predicted, ~is_positive),
        )
    ]
    true_positive, false_positive, false_negative, true_negative = confusion
    return OperatingPoint(
        label=label,
        threshold=choose_threshold(rule, targets, scores),
        fold_thresholds=thresholds,
        confusion=(true_positive, false_positive, false_negative, true_negative),
        sensitivity=sensitivity,
        specificity=specificity,
        ppv=ppv,
        npv=npv,
        positive_likelihood_ratio=positive_likelihood_ratio,
        negative_likelihood_ratio=negative_likelihood_ratio,
        prevalence=prevalence,
        is_restated=restated is not None,
    )


def restate(hit: Estimate, reject: Estimate, prevalence: float) -> Estimate:
    """The predictive value for a prevalence, by Bayes' theorem, of the rate of the class that it speaks of and the
    other's.

    Its ends are those for both rates' ends, so that it is on the safe side. The negative predictive value is that of
    specificity, sensitivity and 1 - prevalence.
    """

    def predictive_value(hit: float, reject: float) -> float:
        right, wrong = hit * prevalence, (1 - reject) * (1 - prevalence)
        return right / (right + wrong) if right + wrong else math.nan

    value = predictive_value(hit.value, reject.value)
    if math.isnan(value):
        return NO_ESTIMATE
    return Estimate(
        value=value,
        low=predictive_value(hit.low, reject.low),
        high=predictive_value(hit.high, reject.high),
        few_patients=hit.few_patients or reject.few_patients,
    )
