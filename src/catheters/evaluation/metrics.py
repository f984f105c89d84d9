"""Metrics over whole sets of predictions, never a mean over batches."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.metrics import average_precision_score, roc_auc_score

from catheters.errors import counted

ONE_SIDED_95 = 1.645
"""Standard errors that a normally distributed score exceeds once in twenty times."""


@dataclass(frozen=True, kw_only=True)
class LabelMetrics:
    """How well one label is predicted.

    Attributes:
        label: its name.
        num_positives: images that have it.
        num_images: images evaluated, those of which it is known.
        roc_auc: area under the ROC curve; NaN where all images are of one class.
        average_precision: area under the precision-recall curve as its step-wise sum; NaN likewise.
    """

    label: str
    num_positives: int
    num_images: int
    roc_auc: float
    average_precision: float


def score_labels(
    targets: npt.NDArray[np.floating], probabilities: npt.NDArray[np.floating], labels: Sequence[str]
) -> list[LabelMetrics]:
    """Score every label by itself, on the images of which it is known, with scikit-learn.

    Args:
        targets: (N, K) 0, 1 or NaN where it is unknown.
        probabilities: (N, K), or anything that ranks alike.
        labels: (K,) names.
    """
    assert targets.shape == probabilities.shape == (len(targets), len(labels)), "one column per label"
    return [_score_label(label, targets[:, k], probabilities[:, k]) for k, label in enumerate(labels)]


def macro_mean(values: Sequence[float]) -> float:
    """The mean of what is defined; NaN where nothing is. Kaggle's score for RANZCR CLiP is this over the ROC AUCs."""
    defined = [value for value in values if not math.isnan(value)]
    return float(np.mean(defined)) if defined else math.nan


def chance_standard_error(num_positives: int, num_negatives: int) -> float:
    """Standard error of the ROC AUC of scores that have nothing to do with the label.

    The AUC is the Mann-Whitney statistic over m n, whose variance then is (m + n + 1) / (12 m n) for m positives and n
    negatives (Mann and Whitney 1947, "On a test of whether one of two random variables is stochastically larger than
    the other"); ties make it smaller.
    """
    return math.sqrt((num_positives + num_negatives + 1) / (12 * num_positives * num_negatives))


def chance_bound(metrics: Sequence[LabelMetrics]) -> float:
    """The macro ROC AUC that models without skill exceed about once in twenty times, in 0.5..1; NaN without AUCs.

    Labels of the same images depend on each other in unknown ways. The standard error of a mean is at most the mean of
    the standard errors, which is taken. Images are taken as independent of each other: where patients have several,
    chance exceeds it more often.
    """
    errors = [
        chance_standard_error(metric.num_positives, metric.num_images - metric.num_positives)
        for metric in metrics
        if not math.isnan(metric.roc_auc)
    ]
    return min(0.5 + ONE_SIDED_95 * float(np.mean(errors)), 1.0) if errors else math.nan


def one_class_warnings(metrics: Sequence[LabelMetrics]) -> list[str]:
    """A line for each label without a score, because its known images are all positive or all negative, or none."""
    return [
        f"'{metric.label}' has {counted(metric.num_positives, 'positive')} in {counted(metric.num_images, 'image')}: "
        "its AUC and average precision are undefined (NaN) and left out of the mean"
        for metric in metrics
        if math.isnan(metric.roc_auc)
    ]


def metrics_table(metrics: Sequence[LabelMetrics]) -> str:
    """A text table of the labels' scores, the macro means below them."""
    width = max(len("macro mean"), *(len(metric.label) for metric in metrics))
    lines = [f"{'label':<{width}}  positives    images       AUC        AP"]
    lines += [
        f"{metric.label:<{width}}{metric.num_positives:>11}{metric.num_images:>10}"
        f"{metric.roc_auc:>10.4f}{metric.average_precision:>10.4f}"
        for metric in metrics
    ]
    auc = macro_mean([metric.roc_auc for metric in metrics])
    precision = macro_mean([metric.average_precision for metric in metrics])
    lines.append(f"{'macro mean':<{width}}{'':>21}{auc:>10.4f}{precision:>10.4f}")
    return "\n".join(lines)


def _score_label(
    label: str, targets: npt.NDArray[np.floating], probabilities: npt.NDArray[np.floating]
) -> LabelMetrics:
    is_known = ~np.isnan(targets)
    targets, probabilities = targets[is_known], probabilities[is_known]
    num_positives = int(targets.sum())
    has_both_classes = 0 < num_positives < len(targets)
    return LabelMetrics(
        label=label,
        num_positives=num_positives,
        num_images=len(targets),
        roc_auc=float(roc_auc_score(targets, probabilities)) if has_both_classes else math.nan,
        average_precision=float(average_precision_score(targets, probabilities)) if has_both_classes else math.nan,
    )
