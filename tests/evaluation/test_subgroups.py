"""Groups by value and by bands; what does not overlap with the rest is named."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from catheters.errors import UserError
from catheters.evaluation.subgroups import count_device_types, make_groups, score_subgroups
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


def test_what_is_apart_is_named(rng: np.random.Generator) -> None:
    """Label 0 is well predicted in one hospital and at random in the other; label 1 alike in both."""
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


def test_means_are_over_the_labels_of_both() -> None:
    """Label 1 has no positive in the group: the rest's mean, beside the group's, leaves it out too."""
    targets = [[1, 0], [0, 0], [1, 1], [0, 0]]
    evaluated = make_predictions(targets, [[0.9, 0.5], [0.1, 0.5], [0.3, 0.9], [0.6, 0.1]])
    (group, _) = score_subgroups(evaluated, {"c": {"in": [0, 1], "out": [2, 3]}})
    here, there = group.macros("roc_auc")
    assert (here.value, there.value) == (1.0, 0.0)
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
