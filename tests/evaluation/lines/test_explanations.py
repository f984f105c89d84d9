"""Scores of heatmaps: shares by hand, intervals of the patients that are drawn, and what is undefined."""

import math

import numpy as np
import pytest

from catheters.evaluation.intervals import estimate, subtract
from catheters.evaluation.lines.explanations import OVERALL, Hits, PointingScore, score_explanations
from catheters.evaluation.patients import Patients

PATIENTS = np.array(list("aabbccd"))
TRAINED = np.array([1.0, 0.5, 1.0, 0.0, 1.0, 1.0, 0.0])
RANDOMISED = np.array([0.0, 0.5, 0.0, 0.0, 1.0, 0.0, 0.0])
TYPES = np.array([0, 1, 0, 1, 0, 0, 1])


def scores() -> dict[str, PointingScore]:
    hits = {"Grad-CAM": Hits(trained=TRAINED, randomised=RANDOMISED)}
    found = score_explanations(hits, ("ETT", "NGT", "CVC"), TYPES, PATIENTS)
    assert {score.method for score in found} == {"Grad-CAM"}
    return {score.device_type: score for score in found}


def test_shares_by_hand() -> None:
    of_type = scores()
    assert list(of_type) == ["ETT", "NGT", "CVC", OVERALL]
    expected = {"ETT": (4, 3, 1.0, 0.25), "NGT": (3, 3, 0.5 / 3, 0.5 / 3), OVERALL: (7, 4, 4.5 / 7, 1.5 / 7)}
    for name, (num_cases, num_patients, trained, randomised) in expected.items():
        score = of_type[name]
        assert (score.num_cases, score.num_patients, score.chance) == (num_cases, num_patients, 0.05)
        assert (score.hits.value, score.randomised.value) == pytest.approx((trained, randomised))
        assert score.difference.value == pytest.approx(trained - randomised)
    assert of_type["CVC"].num_cases == of_type["CVC"].num_patients == 0
    assert all(math.isnan(estimate.value) for estimate in of_type["CVC"].estimates.values())


def test_intervals_are_paired_and_of_patients() -> None:
    patients, is_ett = Patients(PATIENTS), np.where(TYPES == 0, 1.0, math.nan)
    trained, randomised = patients.mean(TRAINED * is_ett), patients.mean(RANDOMISED * is_ett)
    score = scores()["ETT"]
    assert (score.hits, score.randomised) == (estimate(trained), estimate(randomised))
    assert score.difference == estimate(subtract(randomised, trained))
    # Not those of two models apart: what both hit or miss together does not widen it.
    overall = scores()[OVERALL]
    apart = overall.hits.high - overall.hits.low + overall.randomised.high - overall.randomised.low
    assert overall.difference.high - overall.difference.low < apart


def test_of_one_patient_there_is_no_interval() -> None:
    hits = {"Grad-CAM": Hits(trained=TRAINED[:2], randomised=RANDOMISED[:2])}
    [score] = score_explanations(hits, (), TYPES[:2], PATIENTS[:2])
    assert (score.num_patients, score.hits.value) == (1, 0.75)
    assert not score.hits.has_interval and not score.difference.has_interval


def test_without_cases() -> None:
    """Whether no kind of heatmap was made, or kinds without a case."""
    none = np.empty(0)
    arguments = (("ETT",), none.astype(np.intp), none.astype(np.str_))
    assert score_explanations({}, *arguments) == ()
    found = score_explanations({"Grad-CAM": Hits(trained=none, randomised=none)}, *arguments)
    assert [(score.device_type, score.num_cases) for score in found] == [("ETT", 0), (OVERALL, 0)]
    assert all(math.isnan(score.hits.value) for score in found)
