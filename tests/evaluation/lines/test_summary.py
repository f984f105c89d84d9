"""Summaries of a few images by hand, and their intervals."""

import math

import numpy as np
import pytest

from catheters.evaluation.intervals import COUNT, estimate
from catheters.evaluation.lines.summary import summarise_lines
from catheters.evaluation.lines.tips import match_tips
from catheters.evaluation.patients import Patients


def test_by_hand() -> None:
    """Patient a has images 0 and 1, b 2, c 3, d 4, of which nothing is known; c has no line, but a false one."""
    truth = [[(10, 10), (50, 50)], [(20, 20)], [(30, 30)], []]
    predicted = [[(10, 13), (50, 54)], [(26, 28)], [], [(5, 5), (6, 90)]]
    matches = [
        match_tips(np.array(p, dtype=float).reshape(-1, 2), np.array(t, dtype=float).reshape(-1, 2), tolerance=8)
        for p, t in zip(predicted, truth, strict=True)
    ]
    dice = np.array([0.8, 0.5, 0.2, math.nan, 0.9])
    patients = Patients(np.array(list("aabcd")))
    summary = summarise_lines("CVC", [*matches, None], dice, patients)
    assert (summary.device_type, summary.num_images, summary.num_tips) == ("CVC", 4, 4)
    assert summary.found.value == 2 / 4  # errors of 3, 4, 10 and none
    assert summary.median_error.value == 7
    assert summary.error_90.value == math.inf
    assert summary.false_per_image.value == 3 / 4
    assert summary.dice.value == pytest.approx(0.5)  # that of the unknown image is left out

    of_images = Patients(np.array(list("aabcd")))
    num_tips, num_found, num_false = np.array([2, 1, 1, 0, 0]), np.array([2, 0, 0, 0, 0]), np.array([0, 1, 0, 2, 0])
    assert summary.found == estimate(of_images.ratio(num_found, num_tips))
    assert summary.false_per_image == estimate(of_images.ratio(num_false, np.array([1, 1, 1, 1, 0]), COUNT))
    assert (
        summary.median_error
        == of_images.quantiles(np.array([3.0, 4.0, 10.0, math.inf]), np.array([0, 0, 1, 2]), [0.5])[0]
    )
    assert all(found.few_patients for found in (summary.found, summary.false_per_image, summary.median_error))


def test_errors_in_other_units() -> None:
    """Millimetres where the spacing is known; the other image's tip counts as found all the same."""
    one = match_tips(np.array([[3.0, 4.0]]), np.array([[0.0, 0.0]]), tolerance=8)
    patients = Patients(np.array(["a", "b"]))
    summary = summarise_lines("ETT", [one, one], np.array([1.0, 1.0]), patients, np.array([0.2, math.nan]))
    assert summary.median_error.value == pytest.approx(1.0)
    assert not summary.median_error.has_interval  # of one patient
    assert summary.found.value == 1


def test_nothing_known() -> None:
    patients = Patients(np.array(["a", "b"]))
    summary = summarise_lines("NGT", [None, None], np.full(2, math.nan), patients)
    assert (summary.num_images, summary.num_tips) == (0, 0)
    for of_nothing in (summary.found, summary.median_error, summary.error_90, summary.false_per_image, summary.dice):
        assert not of_nothing.is_defined


def test_all_missed() -> None:
    """Nothing is predicted: no tip is found, each is infinitely far off, and there are no false ones."""
    missed = match_tips(np.empty((0, 2)), np.array([[1.0, 1.0]]), tolerance=5)
    patients = Patients(np.array(["a", "b", "c"]))
    summary = summarise_lines("NGT", [missed] * 3, np.zeros(3), patients)
    assert (summary.found.value, summary.false_per_image.value) == (0, 0)
    assert (summary.median_error.low, summary.median_error.value) == (math.inf, math.inf)
