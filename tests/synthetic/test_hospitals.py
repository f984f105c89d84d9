"""A second synthetic hospital: other patients, catheters, tones and noise, and the first one as it was."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from catheters.data.decoding.radiograph import read_radiograph
from catheters.errors import UserError
from catheters.labels import RANZCR_LABELS
from catheters.synthetic import generate_sample, plan_sample
from catheters.synthetic.hospitals import HOSPITALS, SECOND
from catheters.synthetic.render import render_image
from tests import script_server


@pytest.mark.parametrize("name", HOSPITALS)
def test_shares_of_the_images_add_up(name: str) -> None:
    for shares in HOSPITALS[name].states.values():
        assert sum(shares.values()) == pytest.approx(1)


def test_the_hospitals_share_no_patient_and_no_image() -> None:
    first, second = plan_sample(60, seed=3), plan_sample(60, seed=3, hospital=SECOND)
    assert not {plan.uid for plan in first} & {plan.uid for plan in second}
    assert not {plan.patient_id for plan in first} & {plan.patient_id for plan in second}


def test_the_second_has_each_label_as_often_as_it_says() -> None:
    labels = np.array([plan.labels for plan in plan_sample(900, hospital=SECOND)])
    found = dict(zip(RANZCR_LABELS, labels.mean(axis=0).tolist(), strict=True))
    assert found["Swan Ganz Catheter Present"] == pytest.approx(0.20, abs=0.05)
    assert found["ETT - Normal"] == pytest.approx(0.15, abs=0.05)
    assert found["NGT - Normal"] == pytest.approx(0.38, abs=0.06)  # 0.36, and 0.02 with an abnormal one


def test_the_second_is_darker_and_noisier() -> None:
    """A higher gamma darkens the middle greys; grain is what neighbours do not share."""

    def looks(hospital: str) -> tuple[float, float]:
        images = [render_image(plan) for plan in plan_sample(12, image_size=128, hospital=HOSPITALS[hospital])]
        inner = [image[20:-20, 20:-20].astype(float) for image in images]
        return float(np.mean([image.mean() for image in inner])), float(
            np.median([np.abs(np.diff(image, axis=1)).mean() for image in inner])
        )

    (grey, grain), (other_grey, other_grain) = looks("first"), looks("second")
    assert other_grey < grey - 5
    assert other_grain > 1.3 * grain


@pytest.mark.slow
def test_the_script_writes_it(tmp_path: Path) -> None:
    """With the ids of the plan, in the layout of the first."""
    sizes = ["--num-images", "6", "--num-test-images", "0", "--image-size", "64"]
    command = ["-m", "catheters.synthetic", str(tmp_path / "b"), "--hospital", "second", *sizes]
    assert script_server.run(command, tmp_path).returncode == 0
    table = pd.read_csv(tmp_path / "b" / "train.csv")
    assert set(table["StudyInstanceUID"]) == {plan.uid for plan in plan_sample(6, image_size=64, hospital=SECOND)}
    assert max(read_radiograph(tmp_path / "b" / "train" / f"{table['StudyInstanceUID'][0]}.jpg").image.shape) == 64


def test_what_is_no_hospital_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="hospital: 'secnd' is not known; did you mean 'second'"):
        generate_sample(tmp_path / "new", num_images=3, hospital="secnd")
