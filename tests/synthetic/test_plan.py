"""The plan of a sample: prevalences, patients, and catheters that lie where their labels say."""

from collections import Counter, defaultdict
from itertools import combinations

import numpy as np
import pytest

from catheters.labels import RANZCR_LABELS
from catheters.polylines import lengths_along
from catheters.synthetic import ImagePlan, plan_sample
from catheters.synthetic.anatomy import Patient, View, smooth_curve
from catheters.synthetic.lines_and_tubes import cut, place_catheter

AVERAGE_PATIENT = Patient(
    width=1.0, upper_height=1.0, lower_height=1.0, bend_mm=0.0, heart_size=1.0, tissue=1.0, texture_seed=0
)
FRONTAL_VIEW = View(height_px=400, width_px=400, zoom=1.0, rotation_rad=0.0, shift_mm=(0.0, 0.0))
CARINA_PX = (199.5, 159.5)  # the image's middle is 40 mm below it, and 1 px is 1 mm


@pytest.fixture(scope="module")
def plans() -> list[ImagePlan]:
    return plan_sample(600)


def place(device_type: str, state: str, entry: str, seed: int) -> tuple[str, float, float]:
    """Label and tip of a catheter, the tip in mm to the right of and below the carina."""
    habit, rng = np.random.default_rng([seed, 0]), np.random.default_rng([seed, 1])
    catheter = place_catheter(
        device_type, state, entry, patient=AVERAGE_PATIENT, view=FRONTAL_VIEW, habit=habit, rng=rng
    )
    x, y = catheter.course_px[-1] - CARINA_PX
    return catheter.label, float(x), float(y)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_no_label_is_rare_and_the_order_is_ranzcrs(seed: int) -> None:
    labels = np.array([plan.labels for plan in plan_sample(600, seed=seed)])
    share = dict(zip(RANZCR_LABELS, labels.mean(axis=0), strict=True))
    assert min(share.values()) > 0.055
    assert share["ETT - Abnormal"] < share["ETT - Borderline"] < share["ETT - Normal"]
    assert share["NGT - Borderline"] < share["NGT - Incompletely Imaged"] < share["NGT - Normal"]
    assert share["CVC - Abnormal"] < share["CVC - Borderline"] < share["CVC - Normal"]
    assert 0.5 < share["CVC - Normal"] < 0.65
    assert 0.23 < share["ETT - Normal"] < 0.33
    assert 0.01 < (labels.sum(axis=1) == 0).mean() < 0.08


def test_each_label_occurs_in_many_patients(plans: list[ImagePlan]) -> None:
    for column, label in enumerate(RANZCR_LABELS):
        patients = {plan.patient_id for plan in plans if plan.labels[column]}
        assert len(patients) >= 20, label


def test_patients_bring_one_to_twelve_images(plans: list[ImagePlan]) -> None:
    counts = Counter(plan.patient_id for plan in plans)
    assert 150 <= len(counts) <= 250
    assert set(counts.values()) <= set(range(1, 13))
    assert max(counts.values()) >= 6
    assert sum(counts.values()) == len({plan.uid for plan in plans}) == 600


def test_images_of_a_patient_are_more_alike_than_those_of_two(plans: list[ImagePlan]) -> None:
    of_patient = defaultdict(list)
    for plan in plans:
        of_patient[plan.patient_id].append(plan)
    within = [np.mean(np.equal(a.labels, b.labels)) for group in of_patient.values() for a, b in combinations(group, 2)]
    firsts = [group[0] for group in of_patient.values()]
    between = [np.mean(np.equal(a.labels, b.labels)) for a, b in combinations(firsts, 2)]
    assert np.mean(within) > np.mean(between) + 0.08
    assert np.mean(within) < 0.97  # catheters come, go and move
    assert all(plan.patient == group[0].patient for group in of_patient.values() for plan in group)


def test_an_image_has_one_ett_label_at_most_and_the_others_as_ranzcr(plans: list[ImagePlan]) -> None:
    ett = [sum(plan.labels[:3]) for plan in plans]
    ngt = [sum(plan.labels[3:7]) for plan in plans]
    cvc = [sum(plan.labels[7:10]) for plan in plans]
    assert max(ett) == 1
    assert max(ngt) == 2
    assert max(cvc) == 3


def test_labels_are_those_of_the_devices(plans: list[ImagePlan]) -> None:
    for plan in plans:
        present = {label for label, value in zip(RANZCR_LABELS, plan.labels, strict=True) if value}
        assert present == {catheter.label for catheter in plan.catheters}


def test_only_the_tips_of_incompletely_imaged_tubes_are_out_of_the_image(plans: list[ImagePlan]) -> None:
    for plan in plans:
        for catheter in plan.catheters:
            is_out = not plan.view.contains(catheter.course_px[-1])
            assert is_out == (catheter.label == "NGT - Incompletely Imaged"), (plan.uid, catheter.label)


@pytest.mark.parametrize("seed", range(8))
def test_tips_lie_where_the_labels_say(seed: int) -> None:
    label, x, y = place("ETT", "Normal", "", seed)
    assert label == "ETT - Normal"
    assert abs(x) < 5
    assert -71 < y < -29

    label, _, y = place("NGT", "Normal", "", seed)
    assert label == "NGT - Normal"
    assert y > 170  # well below the diaphragm, which lies some 135 mm below the carina

    label, x, y = place("NGT", "Borderline", "", seed)
    assert label == "NGT - Borderline"
    assert 136 < y < 175

    label, x, y = place("CVC", "Normal", "left subclavian", seed)
    assert label == "CVC - Normal"
    assert -40 < x < -20  # the superior vena cava is right of the midline, left in the image
    assert -6 < y < 46

    label, x, y = place("CVC", "Borderline", "right jugular", seed)
    assert label == "CVC - Borderline"
    assert -40 < x < -20
    assert -61 < y < -4 or 44 < y < 71


def test_a_seed_repeats_the_plan_and_another_does_not() -> None:
    first, again, other = plan_sample(30, seed=1), plan_sample(30, seed=1), plan_sample(30, seed=2)
    assert [plan.uid for plan in first] == [plan.uid for plan in again]
    assert [plan.labels for plan in first] == [plan.labels for plan in again]
    assert not {plan.uid for plan in first} & {plan.uid for plan in other}


def test_the_image_size_moves_no_label(plans: list[ImagePlan]) -> None:
    small = plan_sample(600, image_size=128)
    differing = [a.uid for a, b in zip(plans, small, strict=True) if a.labels != b.labels]
    assert not differing


def test_two_plans_of_other_patients_share_nobody() -> None:
    train, test = plan_sample(30), plan_sample(30, first_patient=1000)
    assert not {plan.patient_id for plan in train} & {plan.patient_id for plan in test}
    assert not {plan.uid for plan in train} & {plan.uid for plan in test}


def test_cut_keeps_the_asked_length() -> None:
    corner = np.array([[0.0, 0.0], [3.0, 0.0], [3.0, 4.0]])
    assert lengths_along(corner).tolist() == [0, 3, 7]
    assert cut(corner, 5.0).tolist() == [[0, 0], [3, 0], [3, 2]]


def test_smooth_curve_passes_through_its_control_points() -> None:
    control = [(0, 0), (10, 5), (20, -5), (30, 0)]
    curve = smooth_curve(control, steps=7)
    assert curve[::7].tolist() == [list(map(float, point)) for point in control]
