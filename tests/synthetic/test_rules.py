"""The labelling rules against cases worked out by hand from the table in `rules`."""

import pytest

from catheters.labels import RANZCR_LABELS
from catheters.synthetic.rules import SWAN_LABEL, cvc_label, ett_label, ngt_label


@pytest.mark.parametrize(
    ("height_mm", "position"),
    [
        (-30, "Abnormal"),  # in a main bronchus
        (0, "Abnormal"),  # on the carina
        (14.9, "Abnormal"),
        (15, "Borderline"),
        (29.9, "Borderline"),
        (30, "Normal"),
        (50, "Normal"),
        (70, "Normal"),
        (70.1, "Borderline"),
        (90, "Borderline"),
        (90.1, "Abnormal"),  # at the larynx
    ],
)
def test_endotracheal_tube(height_mm: float, position: str) -> None:
    assert ett_label(height_mm) == f"ETT - {position}"


@pytest.mark.parametrize(
    ("depth_mm", "position"),
    [(-100, "Abnormal"), (-0.1, "Abnormal"), (0, "Borderline"), (59.9, "Borderline"), (60, "Normal"), (120, "Normal")],
)
def test_nasogastric_tube_in_the_image(depth_mm: float, position: str) -> None:
    assert ngt_label(depth_mm, tip_in_image=True) == f"NGT - {position}"


@pytest.mark.parametrize("depth_mm", [-10, 30, 200])
def test_nasogastric_tube_that_leaves_the_image(depth_mm: float) -> None:
    assert ngt_label(depth_mm, tip_in_image=False) == "NGT - Incompletely Imaged"


@pytest.mark.parametrize("tip_in_image", [True, False])
def test_nasogastric_tube_in_the_airway_or_coiled_is_abnormal_wherever_it_ends(tip_in_image: bool) -> None:
    assert ngt_label(100, tip_in_image=tip_in_image, in_airway=True) == "NGT - Abnormal"
    assert ngt_label(100, tip_in_image=tip_in_image, is_coiled=True) == "NGT - Abnormal"


@pytest.mark.parametrize(
    ("depth_mm", "position"),
    [
        (-60.1, "Abnormal"),  # not yet in a brachiocephalic vein
        (-60, "Borderline"),
        (-5.1, "Borderline"),  # upper superior vena cava
        (-5, "Normal"),
        (40, "Normal"),  # cavo-atrial junction
        (45, "Normal"),
        (45.1, "Borderline"),  # high right atrium
        (70, "Borderline"),
        (70.1, "Abnormal"),
        (120, "Abnormal"),  # right ventricle
    ],
)
def test_central_venous_catheter(depth_mm: float, position: str) -> None:
    assert cvc_label(depth_mm) == f"CVC - {position}"


def test_central_venous_catheter_in_a_wrong_vein_is_abnormal_at_any_depth() -> None:
    assert {cvc_label(depth, in_wrong_vein=True) for depth in (-80, -30, 0, 20, 60, 100)} == {"CVC - Abnormal"}


def test_every_label_of_ranzcr_can_be_given() -> None:
    given = {ett_label(height) for height in range(-40, 130)} | {cvc_label(depth) for depth in range(-120, 140)}
    given |= {ngt_label(depth, tip_in_image=seen) for depth in range(-100, 140) for seen in (True, False)}
    assert given | {SWAN_LABEL} == set(RANZCR_LABELS)
