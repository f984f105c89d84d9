"""Which labels a table from elsewhere tells, in whatever form; images that are known again; verdicts in words."""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from catheters.config.settings import Settings
from catheters.data.image_hashes import perceptual_hash
from catheters.errors import UserError
from catheters.evaluation.external.measures import CHECKED, MEASURES, LabelResult
from catheters.evaluation.external.verdict import advise, judge
from catheters.evaluation.intervals import NO_ESTIMATE, Estimate
from catheters.runs.external.overlap import nearest_distances
from catheters.runs.external.theirs import choose_labels, read_config, spacing_columns

FILE = Path("labels.csv")


def test_labels_by_name() -> None:
    labels = ("Edema", "Mass", "Hernia")
    assert choose_labels(labels, ["id", "Mass", "Edema", "age"], [], FILE) == ["Edema", "Mass"]
    with pytest.raises(UserError, match=r"'edema' is none of the model's labels; is 'Edema' meant\?"):
        choose_labels(labels, ["id", "Mass", "edema"], [], FILE)
    with pytest.raises(UserError, match=r"tells none of the model's labels .*, but has id, Fibrosis"):
        choose_labels(labels, ["id", "Fibrosis"], [], FILE)


def test_findings_in_one_column_and_derived_labels(tmp_path: Path) -> None:
    frame = pd.DataFrame({
        "Image Index": ["a.png", "b.png", "c.png"],
        "Finding Labels": ["Mass|Edema", "No Finding", "Nodule"],
        "Patient ID": ["1", "2", "2"],
        "Sex": ["F", "M", "M"],
    })  # fmt: skip
    frame.to_csv(tmp_path / "nih.csv", index=False)
    theirs = Settings(
        dataset_folder=str(tmp_path), label_table="nih.csv", uid_column="Image Index", patient_column="Patient ID",
        label_columns=("Mass", "Nodule"), findings_column="Finding Labels", path_pattern="images/{uid}",
    )  # fmt: skip
    found = read_config(theirs, Path("theirs.py"), ("Edema", "Mass"))
    assert found.told == ("Mass",)
    assert found.targets[:, 1].tolist() == [1, 0, 0] and np.isnan(found.targets[:, 0]).all()
    assert set(found.columns) == {"Finding Labels", "Sex"}
    frame.assign(tube=["in place", "none", "in place"]).to_csv(tmp_path / "other.csv", index=False)
    derived = dataclasses.replace(
        theirs, label_table="other.csv", findings_column=None, label_columns=("ETT",),
        derived_labels={"ETT": ("tube", "in place")},
    )  # fmt: skip
    assert read_config(derived, Path("theirs.py"), ("ETT", "NGT")).targets[:, 0].tolist() == [1, 0, 1]


def test_no_table_is_said_with_the_config(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"theirs.py: names the label table .*train.csv, which is not here"):
        read_config(Settings(dataset_folder=str(tmp_path)), Path("theirs.py"), ("ETT - Normal",))


def test_spacing_is_a_column(tmp_path: Path) -> None:
    pd.DataFrame({"id": ["a", "b"], "spacing_x": [0.14, 0.2], "spacing_y": [0.14, 0.2]}).to_csv(
        tmp_path / "spacing.csv", index=False
    )
    settings = Settings(dataset_folder=str(tmp_path), uid_column="id", spacing_table="spacing.csv")
    assert spacing_columns(settings, ["b", "c"])["spacing_x (mm)"].tolist() == ["0.2", ""]
    assert spacing_columns(dataclasses.replace(settings, spacing_table=None), ["b"]) == {}


def test_the_nearest_of_many_images(rng: np.random.Generator) -> None:
    """100 hashes against a loop that counts bits; an image of one grey is near to none, not even to another."""
    hashes = [rng.bytes(32) for _ in range(80)]
    others = [rng.bytes(32) for _ in range(30)]
    changed = bytearray(hashes[7])
    changed[3] ^= 0b101
    others[11] = bytes(changed)
    grey = perceptual_hash(np.full((64, 64), 90, np.uint8))
    found = nearest_distances([*hashes, grey], [*others, grey])
    expected = [min((int.from_bytes(a) ^ int.from_bytes(b)).bit_count() for b in others) for a in hashes]
    assert found[:80].tolist() == expected and expected[7] == 2
    assert found[80] > 256
    assert (nearest_distances(hashes, []) > 256).all()


def result(**changes: object) -> LabelResult:
    """Alike in all, but for what the test says."""
    number = Estimate(value=0.9, low=0.85, high=0.95)
    right = Estimate(value=1.0, low=0.9, high=1.1)
    numbers = dict.fromkeys(MEASURES, number) | dict.fromkeys(("observed_to_expected", "slope"), right)
    nothing = Estimate(value=0.0, low=-0.07, high=0.07)
    values = {
        "label": "a", "num_known": 300, "num_positives": 50, "num_positive_patients": 40, "num_negative_patients": 90,
        "here": numbers, "alike": numbers, "own": numbers, "differences": dict.fromkeys(MEASURES, nothing),
        "p_holm": dict.fromkeys(CHECKED, 1.0),
    } | changes  # fmt: skip
    return LabelResult(**values)  # type: ignore[arg-type]


def test_verdicts_in_words() -> None:
    assert judge(result()) == (
        "Holds: no checked number differs by more than chance. An AUC lower by 0.070 is not ruled out."
    )
    assert advise(result()) == "no step follows from these numbers"
    numbers = result().here
    high = Estimate(value=0.6, low=0.5, high=0.7)
    off = result(here={**numbers, "observed_to_expected": high})
    assert "Its probabilities are too high on average (observed / expected 0.60, 0.50 to 0.70)." in judge(off)
    assert advise(off) == "before any use: recalibrate on local patients, and validate that on others"
    lower = Estimate(value=-0.2, low=-0.3, high=-0.1)
    worse = result(
        alike={**numbers, "roc_auc": Estimate(value=0.7, low=0.6, high=0.8)},
        differences={**result().differences, "roc_auc": lower},
        p_holm={**result().p_holm, "roc_auc": 0.001},
    )
    assert judge(worse) == "Differs: tells positives from negatives worse (AUC 0.70, own 0.90)."
    assert advise(worse) == "before any use: find out why, and validate again"
    few = result(num_positive_patients=1)
    assert advise(few) == "before any use: validate it on more patients"
    assert judge(few).endswith("Only 1 patient with it: little can be said.")
    assert judge(result(num_known=0, num_positives=0)).startswith("Not validated")
    assert judge(result(num_positives=0)) == "Cannot be judged: none of 300 images has it."
    alone = result(own=dict.fromkeys(MEASURES, NO_ESTIMATE), p_holm=dict.fromkeys(CHECKED, float("nan")))
    assert judge(alone).startswith("Not compared: the run has no numbers of its own")
    assert advise(alone) == "before any use: compare it with numbers of the run's own"


def test_what_is_not_compared_does_not_hold() -> None:
    """Only a label of which all checked numbers have a p-value holds; the side that lacks an interval is named."""
    p_holm = result().p_holm
    unsure = Estimate(value=0.9, low=float("nan"), high=float("nan"))
    lacking = dict.fromkeys(("roc_auc", "slope"), float("nan"))
    here = result(
        alike={**result().alike, "roc_auc": unsure, "slope": unsure},
        differences={**result().differences, "roc_auc": unsure},
        p_holm={**p_holm, **lacking},
    )
    assert here.is_compared and here.not_compared == ("roc_auc", "slope")
    assert judge(here) == "Not shown to differ: not compared are AUC, calibration slope (there is no interval here)."
    assert advise(here) == "before any use: validate it on more patients"
    own = result(own={**result().own, "slope": NO_ESTIMATE}, p_holm={**p_holm, "slope": float("nan")})
    assert "calibration slope (the run has no numbers of its own for it)" in judge(own)
    nothing = result(alike=dict.fromkeys(MEASURES, unsure), p_holm=dict.fromkeys(CHECKED, float("nan")))
    assert not nothing.is_compared and judge(nothing).startswith("Not compared: there is no interval here.")
    together = result(checked=("roc_auc", "observed_to_expected"), p_holm={**p_holm, "slope": float("nan")})
    assert "calibration slope (the models' single predictions are not known)" in judge(together)
