"""Decision curves, label shift, case mix and distances, worked out by hand."""

import math

import numpy as np
import pytest
from scipy.special import expit, logit

from catheters.evaluation.external.case_mix import column_shifts, feature_shift, spreads
from catheters.evaluation.external.decision_curve import THRESHOLDS, decision_curves
from tests.evaluation.conftest import make_predictions
from tests.evaluation.external.samples import draw, freeze


def test_net_benefit_by_hand() -> None:
    """Ten images, 4 positive. From 0.2 on, 3 of them and 2 negatives are acted on: (3 - 2 x 0.25) / 10."""
    targets = [1, 1, 1, 1, 0, 0, 0, 0, 0, 0]
    probabilities = [0.9, 0.6, 0.3, 0.1, 0.5, 0.25, 0.1, 0.1, 0.05, 0.02]
    curve = decision_curves(make_predictions(np.array(targets)[:, None], np.array(probabilities)[:, None]))["label 0"]
    at = THRESHOLDS.index(0.2)
    assert curve.net_benefit[at].value == pytest.approx(0.25)
    assert curve.treat_all[at].value == pytest.approx((4 - 6 * 0.25) / 10)
    assert curve.over_all[at].value == pytest.approx(0)
    # From 0.01 on everybody is acted on, from 0.95 on nobody; neither share is sure from ten images.
    assert curve.over_all[0].value == 0 and curve.over_all[0].low < 0 < curve.over_all[0].high
    assert curve.net_benefit[-1].value == 0 and curve.net_benefit[-1].low < 0 < curve.net_benefit[-1].high
    assert all(math.isfinite(end) for of in curve.net_benefit for end in (of.low, of.high))


def test_a_positive_that_happens_not_to_be_acted_on_is_no_proof_of_harm() -> None:
    """100 patients, 5 positive. From 0.3 on three negatives are acted on: the next positive may well be.

    The share of true positives, 0 of 100, is below 0.036 by the exact binomial.
    """
    targets, probabilities = np.zeros(100), np.full(100, 0.1)
    targets[:5] = 1
    probabilities[[50, 60, 70]] = 0.4
    curve = decision_curves(make_predictions(targets[:, None], probabilities[:, None]))["label 0"]
    found = curve.net_benefit[THRESHOLDS.index(0.3)]
    assert found.value == pytest.approx(-0.03 * 3 / 7)
    assert found.low < found.value < 0 < found.high < 0.036
    assert found.high == pytest.approx(found.value + 0.036, abs=0.003)


def test_a_good_model_is_useful_and_a_wrong_one_harmful(rng: np.random.Generator) -> None:
    good = draw(rng, 600)
    assert 0.3 in decision_curves(good)["some"].useful
    wrong = good.with_probabilities(1 - good.probabilities)
    curve = decision_curves(wrong)["rare"]
    assert 0.3 in curve.harmful and not curve.useful


def test_the_interval_of_net_benefit_holds_the_truth() -> None:
    """At 0.2, whose truth is that of 20,000 patients: in 25 samples of 150."""
    at = THRESHOLDS.index(0.2)
    truth = [curve.net_benefit[at].value for curve in decision_curves(draw(np.random.default_rng(1), 20_000)).values()]
    held = []
    for repeat in range(25):
        curves = decision_curves(draw(np.random.default_rng(repeat), 150)).values()
        held += [curve.net_benefit[at].low <= value <= curve.net_benefit[at].high
                 for curve, value in zip(curves, truth, strict=True)]  # fmt: skip
    assert np.mean(held) >= 0.9


def test_spread_of_the_logits(rng: np.random.Generator) -> None:
    own = draw(rng, 300)
    here = own.with_probabilities(expit(0.5 * logit(own.probabilities) + 1))
    for spread, k in zip(spreads(here, freeze(here).alike, own), range(3), strict=True):
        logits = logit(own.probabilities[:, k])
        assert spread.own_mean.value == pytest.approx(logits.mean())
        assert spread.own_deviation.value == pytest.approx(logits.std())
        assert spread.own_deviation.low < logits.std() < spread.own_deviation.high
        assert spread.deviation.value == pytest.approx(logits.std() / 2)
        assert spread.mean_difference.value == pytest.approx(1 - logits.mean() / 2)
        assert spread.deviation_difference.high < 0


def test_columns_that_both_tables_have() -> None:
    """Standardised differences: 0.6 against 0.2 of a group is 0.4 / sqrt((0.24 + 0.16) / 2)."""
    here = {
        "view": np.array(["AP"] * 6 + ["PA"] * 4),
        "age": np.array(["60", "70", "80", "90", ""] * 2),
        "name": np.array([f"n{number}" for number in range(10)] * 1),
        "only here": np.array(["x"] * 10),
        "machine": np.array(["new"] * 10),
        "PatientAge": np.array(["058Y", "060Y", "062Y", "", "060Y"] * 2),
        "sex": np.array(["m", "F", " m", "", "f"] * 2),
    }
    own = {
        "view": np.array(["AP"] * 2 + ["PA"] * 8),
        "age": np.array(["50", "60", "70", "80", "60"] * 2),
        "name": np.array([f"m{number}" for number in range(25)]),
        "machine": np.array(["old"] * 10),
        "PatientAge": np.array(["070Y", "072Y", "068Y", "070Y", "070Y"] * 2),
        "sex": np.array(["M", "F", "M", "F", "F"] * 2),
    }
    found, passed_over = column_shifts(here, own)
    shifts = {(shift.column, shift.value): shift for shift in found}
    assert passed_over == ["name"]
    assert shifts["view", "AP"].difference == pytest.approx(0.4 / math.sqrt(0.2))
    assert shifts["view", "PA"].difference == pytest.approx(-0.4 / math.sqrt(0.2))
    age = shifts["age", None]
    deviation = math.sqrt((np.var([60, 70, 80, 90]) + np.var([50, 60, 70, 80, 60])) / 2)
    assert (age.here, age.own) == (75, 64)
    assert age.difference == pytest.approx(11 / deviation)
    assert shifts["machine", "new"].difference == math.inf and shifts["machine", "new"].is_large
    assert (shifts["PatientAge", None].here, shifts["PatientAge", None].own) == (60, 70)
    assert (shifts["PatientAge", "not given"].here, shifts["PatientAge", "not given"].own) == (0.2, 0)
    assert {(name, of.here, of.own) for (column, name), of in shifts.items() if column == "sex"} == {
        ("m", 0.4, 0.4), ("f", 0.4, 0.6), ("not given", 0.2, 0)
    }  # fmt: skip
    assert {column for column, _ in shifts} == {"view", "age", "machine", "PatientAge", "sex"}


def test_images_that_moved() -> None:
    """Three models, of which one knows no features: the median root of the other two; more than 1 is far."""
    of_models = np.array([[0.25, 4.0, 9.0, 1.21], [0.25, 1.0, 16.0, 0.01], [np.nan] * 4])
    shift = feature_shift(of_models, np.array([0.04, 0.36, np.nan]), np.array(list("abcd")))
    assert shift is not None and shift.own is not None
    assert shift.distances.tolist() == pytest.approx([0.5, 1.5, 3.5, 0.6])
    assert shift.far.value == 0.5
    assert shift.farthest(2) == [2, 1]
    assert shift.own.tolist() == pytest.approx([0.2, 0.6])
    assert feature_shift(np.full((2, 3), np.nan), None, np.array(list("abc"))) is None
