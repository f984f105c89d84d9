"""Metrics by hand, and what is undefined stays undefined."""

import math

import numpy as np
import pytest
from scipy.stats import mannwhitneyu, norm

from catheters.evaluation.metrics import (
    LabelMetrics,
    chance_bound,
    chance_standard_error,
    macro_mean,
    metrics_table,
    one_class_warnings,
    score_labels,
)

TARGETS = np.array([[1, 0, 1], [0, 0, 1], [1, 0, 1], [0, 0, 1]], dtype=np.uint8)
PROBABILITIES = np.array([[0.9, 0.1, 0.5], [0.8, 0.2, 0.5], [0.3, 0.3, 0.5], [0.3, 0.4, 0.5]])


def test_auc_and_average_precision_by_hand() -> None:
    """Pairs (positive, negative): .9>.8, .9>.3, .3<.8, .3=.3 -> 2.5 of 4. Precision: 1 at recall 1/2, 1/2 at 1."""
    metric = score_labels(TARGETS, PROBABILITIES, ["a", "b", "c"])[0]
    assert metric.roc_auc == pytest.approx(2.5 / 4)
    assert metric.average_precision == pytest.approx(0.5 * 1 + 0.5 * 0.5)
    assert (metric.num_positives, metric.num_images) == (2, 4)


def test_auc_equals_all_pairs(rng: np.random.Generator) -> None:
    targets = (rng.random((60, 2)) < 0.3).astype(np.uint8)
    probabilities = rng.integers(0, 10, (60, 2)) / 10  # with ties
    for k, metric in enumerate(score_labels(targets, probabilities, ["a", "b"])):
        positives = probabilities[targets[:, k] == 1, k]
        negatives = probabilities[targets[:, k] == 0, k]
        pairs = [(p > n) + 0.5 * (p == n) for p in positives for n in negatives]
        assert metric.roc_auc == pytest.approx(np.mean(pairs))


def test_one_class_is_nan_named_and_left_out() -> None:
    metrics = score_labels(TARGETS, PROBABILITIES, ["a", "b", "c"])
    assert math.isnan(metrics[1].roc_auc)
    assert math.isnan(metrics[1].average_precision)
    assert math.isnan(metrics[2].roc_auc)
    assert macro_mean([metric.roc_auc for metric in metrics]) == pytest.approx(0.625)
    warnings = one_class_warnings(metrics)
    assert len(warnings) == 2
    assert warnings[0].startswith("'b' has 0 positives in 4 images")
    assert warnings[1].startswith("'c' has 4 positives in 4 images")


def test_nothing_defined() -> None:
    assert math.isnan(macro_mean([math.nan]))


def test_table() -> None:
    lines = metrics_table(score_labels(TARGETS, PROBABILITIES, ["a", "b", "c"])).splitlines()
    assert lines[1].split() == ["a", "2", "4", "0.6250", "0.7500"]
    assert lines[2].split() == ["b", "0", "4", "nan", "nan"]
    assert lines[-1].split() == ["macro", "mean", "0.6250", "0.7500"]


@pytest.mark.parametrize(("m", "n"), [(3, 4), (8, 57), (200, 9)])
def test_chance_has_the_variance_of_mann_and_whitney(m: int, n: int, rng: np.random.Generator) -> None:
    """scipy's p-value without continuity correction is that of U in this many standard errors from its mean."""
    scores = rng.random(m + n)
    found = mannwhitneyu(scores[:m], scores[m:], alternative="greater", method="asymptotic", use_continuity=False)
    auc = found.statistic / (m * n)
    assert found.pvalue == pytest.approx(norm.sf((auc - 0.5) / chance_standard_error(m, n)), rel=1e-9)


def test_the_bound_of_chance_by_hand() -> None:
    """Of (m, n) = (1, 2) and (2, 2): variances 4/24 and 5/48; a label of one class has no AUC and no part in it."""

    def metric(num_positives: int, num_images: int) -> LabelMetrics:
        auc = 0.5 if 0 < num_positives < num_images else math.nan
        return LabelMetrics(
            label="x", num_positives=num_positives, num_images=num_images, roc_auc=auc, average_precision=auc
        )

    assert chance_bound([metric(1, 3), metric(0, 9), metric(2, 4)]) == 1.0  # 0.5 + 1.645 * 0.365 is beyond any AUC
    large = [metric(100, 300), metric(200, 400)]
    error = (math.sqrt(301 / (12 * 100 * 200)) + math.sqrt(401 / (12 * 200 * 200))) / 2
    assert chance_bound([*large, metric(0, 9)]) == pytest.approx(0.5 + 1.645 * error)
    assert math.isnan(chance_bound([metric(0, 9)]))
