"""Groups by value and by bands; what differs from the rest is named, case mix is not."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from catheters.errors import UserError
from catheters.evaluation.intervals import Estimate
from catheters.evaluation.report.tables import describe_apart
from catheters.evaluation.subgroups import (
    count_device_types,
    follows_from_labels,
    make_groups,
    p_of_interval,
    score_subgroups,
)
from tests.evaluation.conftest import make_predictions


def test_values_are_groups() -> None:
    groups = make_groups("view", np.array(["AP", "PA", "", " AP"]), None)
    assert groups == {"(empty)": [2], "AP": [0, 3], "PA": [1]}
    assert make_groups("n", np.array(["2", "10", "2"]), None) == {"2": [0, 2], "10": [1]}  # as numbers, not as text


def test_many_numbers_are_banded_at_their_quartiles() -> None:
    groups = make_groups("age", np.array([str(age) for age in range(12)] + [""]), None)
    # Quartiles of 0 to 11: 2.75, 5.5, 8.25.
    assert groups == {
        "below 2.75": [0, 1, 2],
        "2.75 to below 5.5": [3, 4, 5],
        "5.5 to below 8.25": [6, 7, 8],
        "8.25 and above": [9, 10, 11],
        "(empty)": [12],
    }


def test_bands_begin_at_the_edges() -> None:
    groups = make_groups("age", np.array(["039Y", "040Y", "59.5", "60", "100"]), [60, 40])
    assert groups == {"below 40": [0], "40 to below 60": [1, 2], "60 and above": [3, 4]}


def test_every_band_holds_something() -> None:
    numbers = np.array(["0"] * 90 + [str(number) for number in range(1, 11)])
    groups = make_groups("stays", numbers, None)
    assert list(groups) == ["below 1", "1 and above"]
    assert len(groups["below 1"]) == 90


def test_wrong_columns() -> None:
    with pytest.raises(UserError, match="--by age: bands are of numbers, 'old' is none"):
        make_groups("age", np.array(["40", "old"]), [50])
    with pytest.raises(UserError, match="--by name: has 21 different values, 20 groups at most"):
        make_groups("name", np.array([f"n{number}" for number in range(21)]), None)


def test_what_is_apart_is_named() -> None:
    """Label 0 is well predicted in one hospital and at random in the other; label 1 alike in both."""
    rng = np.random.default_rng(1)
    targets = (rng.random((2000, 2)) < 0.3).astype(np.uint8)
    hospital = rng.integers(0, 2, 2000)
    signal = 2.0 * targets
    signal[hospital == 1, 0] = 0
    probabilities = 1 / (1 + np.exp(-(signal + rng.normal(size=(2000, 2)))))
    evaluated = make_predictions(targets, probabilities)
    groups = {"hospital": make_groups("hospital", hospital.astype(str), None)}
    first, second = score_subgroups(evaluated, groups)
    assert (first.value, second.value) == ("0", "1")
    assert first.apart("roc_auc") == ["label 0", "macro mean"]
    is_first = hospital == 0
    expected = [roc_auc_score(targets[is_first, k], probabilities[is_first, k]) for k in range(2)]
    assert first.scores.values["roc_auc"] == pytest.approx(expected)
    assert second.rest is not None
    assert second.rest.values["roc_auc"] == pytest.approx(expected)
    assert first.differences is not None and not first.is_case_mix
    others = [roc_auc_score(targets[~is_first, k], probabilities[~is_first, k]) for k in range(2)]
    assert first.differences.values["roc_auc"] == pytest.approx(np.subtract(expected, others))
    gap, opposite = (group.macros("roc_auc")[2] for group in (first, second))
    assert (gap.low, gap.value, gap.high) == pytest.approx((-opposite.high, -opposite.value, -opposite.low))
    here, there, _ = first.macros("roc_auc")
    assert gap.low > 0 and gap.value == pytest.approx(here.value - there.value)


def test_patients_of_both_groups_are_paired(rng: np.random.Generator) -> None:
    """Every image twice, once in each group: the groups are alike in each patient, and so the difference is 0,
    as sure as 30 patients can be."""
    targets = np.repeat((rng.random((60, 1)) < 0.4).astype(np.uint8), 2, axis=0)
    probabilities = np.repeat(rng.random((60, 1)), 2, axis=0)
    evaluated = make_predictions(targets, probabilities, patients=np.repeat(range(30), 4).tolist())
    groups = {"view": {"AP": list(range(0, 120, 2)), "PA": list(range(1, 120, 2))}}
    (group, _) = score_subgroups(evaluated, groups)
    gap = group.macros("brier")[2]
    assert gap.value == 0 and gap.high == -gap.low == pytest.approx(1 - 0.025 ** (1 / 30))
    assert group.apart("brier") == group.apart("roc_auc") == []
    assert (group.scores.num_images, group.scores.num_patients) == (60, 30)


def test_groups_that_follow_from_the_labels_are_case_mix(rng: np.random.Generator) -> None:
    targets = (rng.random((300, 3)) < 0.5).astype(np.float64)
    targets[:5, 0] = np.nan
    evaluated = make_predictions(targets, rng.random((300, 3)))
    number = np.nansum(targets, axis=1).astype(int).astype(str)
    by_chance, constant = rng.choice(["a", "b"], 300), np.full(300, "a")
    groups = {name: make_groups(name, values, None) for name, values in (("number", number), ("view", by_chance))}
    assert follows_from_labels(evaluated, groups["number"]) and not follows_from_labels(evaluated, groups["view"])
    assert not follows_from_labels(evaluated, make_groups("all", constant, None))
    few = evaluated.take(np.arange(12))  # hardly one shares its labels with another: nothing can be seen
    assert not follows_from_labels(few, make_groups("number", number[:12], None))
    scored = score_subgroups(evaluated, groups)
    assert {(group.column, group.is_case_mix) for group in scored} == {("number", True), ("view", False)}
    assert all(group.apart(metric) == [] for group in scored if group.is_case_mix for metric in ("roc_auc", "brier"))
    assert describe_apart(scored[0]) == "case mix" and "case mix" not in describe_apart(scored[-1])


def test_p_of_an_interval_by_hand() -> None:
    """Two standard errors from 0: p = 0.0455; the side towards 0 counts."""
    bound = 1.959964
    two = Estimate(value=2.0, low=2 - bound, high=9.0)
    assert p_of_interval(two) == pytest.approx(0.0455, abs=1e-4)
    assert p_of_interval(Estimate(value=-2.0, low=-9.0, high=-2 + bound)) == pytest.approx(0.0455, abs=1e-4)
    assert p_of_interval(Estimate(value=1.0, low=0.0, high=2.0)) == pytest.approx(0.05)
    assert p_of_interval(Estimate(value=0.0, low=-1.0, high=1.0)) == 1
    assert np.isnan(p_of_interval(Estimate(value=1.0, low=np.nan, high=np.nan)))


def test_means_are_over_the_labels_of_both() -> None:
    """Label 1 has no positive in the group: the rest's mean, beside the group's, leaves it out too."""
    targets = [[1, 0], [0, 0], [1, 1], [0, 0]]
    evaluated = make_predictions(targets, [[0.9, 0.5], [0.1, 0.5], [0.3, 0.9], [0.6, 0.1]])
    (group, _) = score_subgroups(evaluated, {"c": {"in": [0, 1], "out": [2, 3]}})
    here, there, gap = group.macros("roc_auc")
    assert (here.value, there.value, gap.value) == (1.0, 0.0, 1.0)
    (whole,) = score_subgroups(evaluated, {"c": {"all": [0, 1, 2, 3]}})
    assert whole.rest is None
    assert whole.apart("roc_auc") == []


def test_devices_are_counted() -> None:
    evaluated = make_predictions([[1, 1, 0], [0, 0, 1], [1, 0, 1]], np.zeros((3, 3)), labels=["a", "b", "c"])
    assert count_device_types(evaluated, {"tube": ("a", "b"), "line": ("c",), "other": ("z",)}).tolist() == [
        "1",
        "1",
        "2",
    ]
