"""Thresholds by hand and by brute force; what they give is judged where they were not chosen."""

import math

import numpy as np
import pytest

from catheters.errors import UserError
from catheters.evaluation.intervals import Estimate, estimate
from catheters.evaluation.operating_points import Rule, choose_threshold, judge, parse_rule, restate
from catheters.evaluation.patients import Patients
from tests.evaluation.conftest import make_predictions

TARGETS = np.array([1, 1, 0, 1, 0, 0, 0, 0], dtype=np.uint8)
SCORES = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.4, 0.1])


@pytest.mark.parametrize(
    ("rule", "threshold"),
    [
        ("youden", 0.6),  # 1 + 4/5 - 1, against 2/3 + 1 - 1 at .8
        ("f1", 0.6),  # 6 / 7, against 4 / 5 at .8
        ("sensitivity=0.6", 0.8),  # 2 of 3
        ("sensitivity=0.7", 0.6),  # 3 of 3
        ("specificity=0.8", 0.5 + 0.1),  # .6: 1 of 5 negatives called; .5: 2
        ("specificity=0.5", 0.5),  # 2 of 5 called; at .4 it would be 4
        ("specificity=1", 0.8),
    ],
)
def test_by_hand(rule: str, threshold: float) -> None:
    assert choose_threshold(parse_rule(rule), TARGETS, SCORES) == threshold


@pytest.mark.parametrize("name", ["youden", "f1", "sensitivity", "specificity"])
def test_by_brute_force(rng: np.random.Generator, name: str) -> None:
    for _ in range(30):
        targets = (rng.random(40) < 0.3).astype(np.uint8)
        scores = rng.integers(0, 20, 40) / 20
        best: tuple[float, float] | None = None
        for threshold in sorted({*scores.tolist(), 2.0}, reverse=True):
            called = scores >= threshold
            sensitivity = (called & (targets == 1)).sum() / targets.sum()
            specificity = (~called & (targets == 0)).sum() / (targets == 0).sum()
            precision = (called & (targets == 1)).sum() / max(called.sum(), 1)
            value = {
                "youden": sensitivity + specificity,
                "f1": 0.0 if sensitivity == 0 else 2 * precision * sensitivity / (precision + sensitivity),
                "sensitivity": specificity if sensitivity >= 0.8 else -1.0,
                "specificity": sensitivity if specificity >= 0.8 else -1.0,
            }[name]
            if best is None or value > best[0] + 1e-12 or (name == "specificity" and value >= best[0]):
                best = (value, threshold)
        chosen = choose_threshold(Rule(name=name, required=0.8 if name.endswith("ity") else None), targets, scores)
        assert best is not None
        assert min(chosen, 2.0) == best[1] or (best[1] == 2.0 and chosen > scores.max())


@pytest.mark.parametrize("num_called", range(1, 100))
def test_a_specificity_that_is_just_reached_counts(num_called: int) -> None:
    """100 negatives, one positive above all of them: so many false alarms are allowed, whatever the rounding."""
    targets = np.array([1] + [0] * 100, dtype=np.uint8)
    scores = np.append(1.0, np.arange(100, 0, -1) / 200)
    rule = Rule(name="specificity", required=(100 - num_called) / 100)
    assert (scores[1:] >= choose_threshold(rule, targets, scores)).sum() == num_called


def test_a_specificity_that_no_score_reaches_calls_none() -> None:
    chosen = choose_threshold(parse_rule("specificity=0.9"), np.array([0, 1], dtype=np.uint8), np.array([1.0, 0.5]))
    assert 1.0 < chosen < 1.0001


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("yuden", "'yuden' is not a rule; did you mean 'youden'"),
        ("sensitivity", "a number above 0 and up to 1 is expected, as in sensitivity=0.9"),
        ("sensitivity=1.2", "a number above 0 and up to 1"),
        ("specificity=high", "a number above 0 and up to 1"),
        ("youden=0.5", "write for example youden"),
    ],
)
def test_wrong_rules(text: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        parse_rule(text)
    assert message in str(error.value)


def test_each_fold_is_judged_by_the_others_threshold() -> None:
    """Fold 1's scores are higher by .4: the threshold of each is wrong for the other."""
    targets = [[0], [1], [0], [1]]
    evaluated = make_predictions(targets, [[0.1], [0.2], [0.5], [0.6]], folds=[0, 0, 1, 1])
    patients = Patients(evaluated.patient_ids)
    assert evaluated.folds is not None
    (point,) = judge(evaluated, evaluated.folds, parse_rule("youden"), patients, {})
    assert point.fold_thresholds == {0: 0.6, 1: 0.2}
    assert point.confusion == (1, 1, 1, 1)  # fold 1 predicted positive as a whole, fold 0 not at all
    assert (point.sensitivity.value, point.specificity.value) == (0.5, 0.5)
    assert point.threshold == 0.6  # on all: 1/2 + 1 as at .2, which is lower
    assert point.prevalence == 0.5


def test_rates_have_the_intervals_of_their_patients(rng: np.random.Generator) -> None:
    targets = (rng.random((120, 1)) < 0.4).astype(np.uint8)
    evaluated = make_predictions(
        targets, np.clip(0.3 * targets + 0.7 * rng.random((120, 1)), 0, 1), np.repeat(range(40), 3).tolist()
    )
    folds = np.repeat(np.arange(40) % 4, 3)
    patients = Patients(evaluated.patient_ids)
    (point,) = judge(evaluated, folds, parse_rule("f1"), patients, {})
    called = evaluated.probabilities[:, 0] >= np.array([point.fold_thresholds[fold] for fold in folds.tolist()])
    positive = targets[:, 0] == 1
    assert point.sensitivity.value == pytest.approx(called[positive].mean())
    assert point.specificity.value == pytest.approx(1 - called[~positive].mean())
    assert point.ppv.value == pytest.approx(positive[called].mean())
    assert point.npv.value == pytest.approx(1 - positive[~called].mean())
    for found, of_whom, what in (
        (point.sensitivity, positive, called),
        (point.specificity, ~positive, ~called),
        (point.ppv, called, positive),
        (point.npv, ~called, ~positive),
    ):
        assert found == estimate(patients.ratio(of_whom & what, of_whom))
        assert found.low < found.value < found.high


def test_predictive_values_for_another_prevalence() -> None:
    """Of 1,000 with 2% ill, sensitivity .75, specificity .8: 15 of 20 found, 196 of 980 called, 784 not."""
    targets = [[1]] * 4 + [[0]] * 5
    evaluated = make_predictions(targets, [[0.9]] * 3 + [[0.1]] + [[0.9]] + [[0.1]] * 4, folds=[0] * 9)
    twice = make_predictions(targets * 2, evaluated.probabilities.tolist() * 2, folds=[0] * 9 + [1] * 9)
    assert twice.folds is not None
    patients = Patients(twice.patient_ids)
    (own,) = judge(twice, twice.folds, parse_rule("youden"), patients, {})
    (other,) = judge(twice, twice.folds, parse_rule("youden"), patients, {"label 0": 0.02})
    assert (own.sensitivity.value, own.specificity.value, own.ppv.value) == (0.75, 0.8, 0.75)
    assert other.ppv.value == pytest.approx(15 / (15 + 196))
    assert other.npv.value == pytest.approx(784 / (784 + 5))
    assert other.prevalence == 0.02


def test_restated_values_take_the_ends_of_both_rates() -> None:
    """2% ill: sensitivity .6 to .9, specificity .7 to .85; where nothing is called positive there is no PPV."""
    sensitivity, specificity = Estimate(value=0.8, low=0.6, high=0.9), Estimate(value=0.8, low=0.7, high=0.85)
    ppv = restate(sensitivity, specificity, 0.02)
    assert (ppv.value, ppv.low, ppv.high) == pytest.approx((16 / 212, 12 / 306, 18 / 165))
    npv = restate(specificity, sensitivity, 0.98)
    assert (npv.low, npv.high) == pytest.approx((686 / 694, 833 / 835))
    nothing = Estimate(value=0.0, low=0.0, high=0.3)
    assert math.isnan(restate(nothing, Estimate(value=1.0, low=0.9, high=1.0), 0.02).value)


def test_what_cannot_be_judged_is_nan() -> None:
    """The only positive is in fold 0: what the others chose there is no threshold."""
    evaluated = make_predictions([[1], [0], [0]], [[0.9], [0.5], [0.1]], folds=[0, 0, 1])
    assert evaluated.folds is not None
    patients = Patients(evaluated.patient_ids)
    (point,) = judge(evaluated, evaluated.folds, parse_rule("youden"), patients, {})
    assert math.isnan(point.threshold) and math.isnan(point.sensitivity.value)
