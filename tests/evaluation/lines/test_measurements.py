"""Lengths and labels by rule of a few images, worked out by hand."""

import math

import numpy as np
import pytest

from catheters.evaluation.intervals import estimate, subtract
from catheters.evaluation.lines.measurements import MM, PER_CENT, Length, LengthSet, compare_lengths, judge_rule
from catheters.evaluation.patients import Patients
from tests.evaluation.conftest import make_predictions

NAME = "ETT tip above carina"
LABELS = ["ETT - Abnormal", "ETT - Normal", "CVC - Normal"]
HEADS = {"ETT": ("ETT - Abnormal", "ETT - Normal"), "CVC": ("CVC - Normal",)}


def length(mm: float, tip: tuple[float, float] = (0, 0), share: float = 0.1, label: str = "") -> Length:
    return Length(start=tip, end=(0, 100), mm=mm, share_of_height=share, label_by_rule=label)


def lengths(predicted: list[list[Length]], true: list[list[Length]]) -> LengthSet:
    return LengthSet(name=NAME, predicted=predicted, true=true)


def test_pairs_of_images() -> None:
    """11, 23 and 35 mm for 10, 20 and 30: a bias of 3, a deviation of 2; one not measured, one without a true one."""
    measured = compare_lengths(
        lengths(
            [[length(11)], [length(23)], [length(35)], [], [length(99)]],
            [[length(10)], [length(20)], [length(30)], [length(40)], []],
        ),
        np.array(list("aabcd")),
    )
    assert (measured.name, measured.unit, len(measured.truth)) == (NAME, MM, 4)
    np.testing.assert_array_equal(measured.predicted, [11, 23, 35, math.nan])
    assert measured.measured.value == 3 / 4
    assert measured.measured.low < 3 / 4 < measured.measured.high < 1  # of three patients
    agreement = measured.agreement
    assert agreement.num_pairs == 3
    assert agreement.mean_difference.value == pytest.approx(3)
    assert agreement.lower_limit.value == pytest.approx(3 - 1.96 * 2)
    assert agreement.upper_limit.value == pytest.approx(3 + 1.96 * 2)
    assert agreement.median_absolute_error.value == pytest.approx(3)
    assert agreement.mean_difference.has_interval  # of patients a and b


def test_several_tubes_are_paired_by_their_points() -> None:
    """The first predicted one is the nearer to the second true one, however alike the lengths are."""
    predicted = [length(10, tip=(90, 0)), length(50, tip=(3, 4))]
    true = [length(10, tip=(0, 0)), length(50, tip=(90, 1)), length(7, tip=(500, 500))]
    measured = compare_lengths(lengths([predicted], [true]), np.array(["a"]))
    np.testing.assert_array_equal(measured.predicted, [50, 10, math.nan])
    np.testing.assert_array_equal(measured.truth, [10, 50, 7])


def test_without_spacing_lengths_are_parts_of_the_height() -> None:
    nan = math.nan
    measured = compare_lengths(lengths([[length(nan, share=0.12)]], [[length(nan, share=0.1)]]), np.array(["a"]))
    assert measured.unit == PER_CENT
    assert measured.agreement.mean_difference.value == pytest.approx(2)
    assert not measured.agreement.lower_limit.is_defined  # of one pair


def test_where_some_have_a_spacing_lengths_are_those_in_mm() -> None:
    measured = compare_lengths(
        lengths([[length(9)], [length(math.nan)]], [[length(10)], [length(math.nan)]]),
        np.array(["a", "b"]),
    )
    np.testing.assert_array_equal(measured.truth, [10])


def test_no_true_length() -> None:
    measured = compare_lengths(lengths([[length(9)]], [[]]), np.array(["a"]))
    assert (len(measured.truth), measured.agreement.num_pairs) == (0, 0)
    assert not measured.measured.is_defined and not measured.agreement.mean_difference.is_defined


def test_labels_by_rule_and_by_model() -> None:
    """Five images with a label by rule, in truth A, N, N, A and none of both.

    By rule A, N, A, N, N; by model A, A, N, N, A. Both are right twice, and they disagree three times.
    """
    targets = [[1, 0, 0], [0, 1, 1], [0, 1, 0], [1, 0, 0], [0, 0, 0], [1, 0, 0]]
    by_rule = ["Abnormal", "Normal", "Abnormal", "Normal", "Normal", ""]
    by_model = [[0.6, 0.1, 0.9], [0.4, 0.3, 0], [0.1, 0.2, 0], [0.3, 0.4, 1], [0.5, 0.4, 0], [0.9, 0, 0]]
    evaluated = make_predictions(targets, by_model, patients=list("aabcde"), labels=LABELS)
    patients = Patients(evaluated.patient_ids)
    of_images = [[length(1, label=f"ETT - {label}" if label else "")] for label in by_rule]
    rule = judge_rule(lengths(of_images, [[]] * 6), evaluated, HEADS, patients)
    assert rule is not None
    assert (rule.name, rule.num_images, rule.num_several, rule.num_without_label) == (NAME, 5, 0, 1)
    assert (rule.accuracy.rule.value, rule.accuracy.model.value, rule.accuracy.difference.value) == (0.4, 0.4, 0)
    assert rule.disagreement.value == 0.6
    abnormal, normal = rule.labels
    assert (abnormal.label, abnormal.num_positives, abnormal.num_negatives) == ("ETT - Abnormal", 2, 3)
    assert (abnormal.sensitivity.rule.value, abnormal.sensitivity.model.value) == (0.5, 0.5)
    assert abnormal.specificity.rule.value == pytest.approx(2 / 3)
    assert abnormal.specificity.model.value == pytest.approx(1 / 3)
    assert abnormal.specificity.difference.value == pytest.approx(1 / 3)
    assert (normal.label, normal.num_positives) == ("ETT - Normal", 2)
    assert normal.specificity.rule.value == pytest.approx(1 / 3)
    # The difference is that of both rates, of the same patients.
    negative, images = np.array([0, 1, 1, 0, 1, 0]), Patients(evaluated.patient_ids)
    right = np.array([0, 0, 1, 0, 0, 0]), np.array([0, 1, 0, 0, 1, 0])  # by model, by rule
    rates = [images.ratio(negative * of_one, negative) for of_one in right]
    assert abnormal.specificity.difference == estimate(subtract(*rates))


def test_two_labels_by_rule_in_an_image() -> None:
    """One of them is the image's: half right. The model's is one of them, so they do not disagree."""
    evaluated = make_predictions([[1, 0, 0]], [[0.2, 0.6, 0]], labels=LABELS)
    both = [[length(1, label="ETT - Abnormal"), length(50, label="ETT - Normal")]]
    rule = judge_rule(lengths(both, [[]]), evaluated, HEADS, Patients(evaluated.patient_ids))
    assert rule is not None
    assert (rule.accuracy.rule.value, rule.accuracy.model.value, rule.disagreement.value) == (0.5, 0, 0)
    assert (rule.num_images, rule.num_several, rule.num_without_label) == (1, 1, 0)


def test_no_label_by_rule() -> None:
    evaluated = make_predictions([[1, 0, 0]], [[0.2, 0.6, 0]], labels=LABELS)
    patients = Patients(evaluated.patient_ids)
    assert judge_rule(lengths([[length(1)]], [[]]), evaluated, HEADS, patients) is None
    assert judge_rule(lengths([[]], [[]]), evaluated, HEADS, patients) is None
