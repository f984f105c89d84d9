"""Summaries of a few images by hand, their intervals against a plain loop over resamples."""

import math

import numpy as np
import pytest

from catheters.evaluation.intervals import PatientBootstrap, percentile_estimate
from catheters.evaluation.lines.summary import summarise_lines
from catheters.evaluation.lines.tips import match_tips


def test_by_hand() -> None:
    """Patient a has images 0 and 1, b 2, c 3, d 4, of which nothing is known; c has no line, but a false one."""
    truth = [[(10, 10), (50, 50)], [(20, 20)], [(30, 30)], []]
    predicted = [[(10, 13), (50, 54)], [(26, 28)], [], [(5, 5), (6, 90)]]
    matches = [
        match_tips(np.array(p, dtype=float).reshape(-1, 2), np.array(t, dtype=float).reshape(-1, 2), tolerance=8)
        for p, t in zip(predicted, truth, strict=True)
    ]
    dice = np.array([0.8, 0.5, 0.2, math.nan, 0.9])
    bootstrap = PatientBootstrap(np.array(list("aabcd")), 400, seed=0)
    summary = summarise_lines("CVC", [*matches, None], dice, bootstrap)
    assert (summary.device_type, summary.num_images, summary.num_tips) == ("CVC", 4, 4)
    assert summary.found.value == 2 / 4  # errors of 3, 4, 10 and none
    assert summary.median_error.value == 7
    assert summary.error_90.value == math.inf
    assert summary.false_per_image.value == 3 / 4
    assert summary.dice.value == pytest.approx(0.5)  # that of the unknown image is left out

    rows = [np.repeat(np.arange(5), row) for row in bootstrap.sums(np.eye(5)).astype(int)]
    num_tips, num_found, num_false = np.array([2, 1, 1, 0, 0]), np.array([2, 0, 0, 0, 0]), np.array([0, 1, 0, 2, 0])
    found = [num_found[row].sum() / num_tips[row].sum() if num_tips[row].sum() else math.nan for row in rows]
    assert summary.found == percentile_estimate(0.5, np.array(found), 2)  # of a and b
    is_known = np.array([1, 1, 1, 1, 0])
    false = [num_false[row].sum() / is_known[row].sum() if is_known[row].sum() else math.nan for row in rows]
    assert summary.false_per_image == percentile_estimate(0.75, np.array(false), 3)
    tip_errors = {0: [3.0, 4.0], 1: [10.0], 2: [1e9], 3: [], 4: []}  # a very large one for infinity
    medians = [np.median(errors) if (errors := [e for i in row for e in tip_errors[i]]) else math.nan for row in rows]
    medians = np.array([math.inf if median > 1e6 else median for median in medians])
    assert summary.median_error == percentile_estimate(7.0, medians, 2)


def test_errors_in_other_units() -> None:
    """Millimetres where the spacing is known; the other image's tip counts as found all the same."""
    one = match_tips(np.array([[3.0, 4.0]]), np.array([[0.0, 0.0]]), tolerance=8)
    bootstrap = PatientBootstrap(np.array(["a", "b"]), 100, seed=0)
    summary = summarise_lines("ETT", [one, one], np.array([1.0, 1.0]), bootstrap, np.array([0.2, math.nan]))
    assert summary.median_error.value == pytest.approx(1.0)
    assert not summary.median_error.has_interval  # of one patient
    assert summary.found.value == 1


def test_nothing_known() -> None:
    bootstrap = PatientBootstrap(np.array(["a", "b"]), 100, seed=0)
    summary = summarise_lines("NGT", [None, None], np.full(2, math.nan), bootstrap)
    assert (summary.num_images, summary.num_tips) == (0, 0)
    for estimate in (summary.found, summary.median_error, summary.error_90, summary.false_per_image, summary.dice):
        assert not estimate.is_defined


def test_all_missed() -> None:
    """Nothing is predicted: no tip is found, each is infinitely far off, and there are no false ones."""
    missed = match_tips(np.empty((0, 2)), np.array([[1.0, 1.0]]), tolerance=5)
    bootstrap = PatientBootstrap(np.array(["a", "b", "c"]), 100, seed=0)
    summary = summarise_lines("NGT", [missed] * 3, np.zeros(3), bootstrap)
    assert (summary.found.value, summary.false_per_image.value) == (0, 0)
    assert (summary.median_error.low, summary.median_error.value) == (math.inf, math.inf)
