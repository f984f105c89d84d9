"""What is refused as a first stage."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from catheters.checkpoints.finished import write_finished
from catheters.config.settings import Settings
from catheters.errors import SettingsError, UserError
from catheters.runs.datasets import load_data
from catheters.runs.earlier_runs.first_stage import find_first_stage
from tests.runs.earlier_runs.first_stage.finders import copy_of_finder


def write_first(folder: Path, **changes: Any) -> None:
    file = folder / "settings.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def change_predictions(folder: Path, change: Any) -> None:
    file = folder / "predictions.csv"
    frame = change(pd.read_csv(file, dtype=str))
    frame.to_csv(file, index=False)
    write_finished(folder, ("predictions.csv",))


def swap_two_patients(frame: pd.DataFrame) -> pd.DataFrame:
    """Two patients change their folds, as another seed of the folds has it."""
    first, second = (frame.loc[frame["fold"] == fold, "patient"].iloc[0] for fold in ("0", "1"))
    frame.loc[frame["patient"] == first, "fold"] = "1"
    frame.loc[frame["patient"] == second, "fold"] = "0"
    return frame


def move_an_image(frame: pd.DataFrame) -> pd.DataFrame:
    """One of a patient's several images is in another fold than the rest."""
    patient = frame["patient"].value_counts().index[0]
    row = frame.index[frame["patient"] == patient][0]
    frame.loc[row, "fold"] = str(1 - int(frame.loc[row, "fold"]))
    return frame


def rename_patient(frame: pd.DataFrame) -> pd.DataFrame:
    frame.loc[3, "patient"] = "somebody else"
    return frame


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: change_predictions(folder, swap_two_patients), "its folds are others: .* set label_table, num"),
        (lambda folder: change_predictions(folder, move_an_image), "its folds leak"),
        (lambda folder: change_predictions(folder, rename_patient), "another patient for .*somebody else in place of"),
        (lambda folder: change_predictions(folder, lambda frame: frame[3:]), "no prediction of 3 images of this run"),
        (lambda folder: write_first(folder, image_size=64), r"image_size=\[64, 64\], here image_size=\[32, 32\]"),
        (lambda folder: write_first(folder, resize="pad"), "resize='pad', here resize='stretch'"),
        (lambda folder: write_first(folder, lines=None), r"finds no lines \(lines=None\)"),
        (lambda folder: write_first(folder, all_data=True), "have seen every image"),
        (lambda folder: (folder / "settings.json").unlink(), "no run folder"),
        (lambda folder: (folder / "predictions.csv").unlink(), "no predictions.csv"),
        (lambda folder: (folder / "fold1/finished.json").unlink(), "fold 1 is not finished"),
        (lambda folder: (folder / "fold1/best.pt").write_bytes(b"x"), "best.pt: damaged or changed"),
    ],
)
def test_what_is_no_first_stage(second: Settings, change: Any, message: str, tmp_path: Path) -> None:
    settings, folder = copy_of_finder(second, tmp_path)
    change(folder)
    with pytest.raises(UserError, match=message):
        find_first_stage(settings, load_data(settings))


def test_a_patient_whose_other_images_are_left_out(second: Settings, tmp_path: Path) -> None:
    """A first stage of leaking folds has seen the patient, in an image that this run has not."""
    settings, folder = copy_of_finder(second, tmp_path)
    change_predictions(folder, move_an_image)
    predicted = pd.read_csv(folder / "predictions.csv", dtype=str)
    by_patient = predicted.groupby("patient")["fold"].nunique()
    (patient,) = by_patient[by_patient > 1].index
    of_patient = predicted[predicted["patient"] == patient]
    moved = of_patient["fold"].value_counts().index[-1]
    left_out = tmp_path / "left_out.txt"
    left_out.write_text("\n".join(of_patient.loc[of_patient["fold"] == moved, settings.uid_column]) + "\n")
    settings = dataclasses.replace(settings, exclude_ids=str(left_out))
    data = load_data(settings)
    assert patient in data.patient_ids.tolist()
    with pytest.raises(UserError, match=f"its folds leak: the images of {patient} are in several"):
        find_first_stage(settings, data)


@pytest.mark.parametrize(
    ("of_first", "changes", "remedy"),
    [
        ({"use_amp": False}, {}, "set use_amp=False as there"),
        ({}, {"use_amp": False}, "set use_amp=True, amp_dtype='float16' as there"),
        ({"amp_dtype": "bfloat16"}, {}, "set use_amp=True, amp_dtype='bfloat16' as there"),
        ({"use_amp": False, "amp_dtype": "bfloat16"}, {"use_amp": False}, None),
    ],
)
def test_another_mixed_precision(
    second: Settings, of_first: dict[str, Any], changes: dict[str, Any], remedy: str | None, tmp_path: Path
) -> None:
    """A checkpoint finds its maps as it predicts: they would be others than those that it was trained with."""
    settings, folder = copy_of_finder(second, tmp_path)
    write_first(folder, **of_first)
    settings = dataclasses.replace(settings, **changes)
    if remedy is None:
        assert find_first_stage(settings, load_data(settings)).folder == folder
        return
    with pytest.raises(UserError, match=f"was trained with another mixed precision, .*; {remedy}$"):
        find_first_stage(settings, load_data(settings))


@pytest.mark.parametrize(
    ("named", "hint"),
    [
        ("first/fold0/best.pt", "; name the run's folder, {}/first, not a checkpoint or a folder in it"),
        ("first/fold0", "; name the run's folder, {}/first, not a checkpoint or a folder in it"),
        ("elsewhere/best.pt", "; name the run's folder, not a checkpoint"),
        ("elsewhere", ""),
    ],
)
def test_a_checkpoint_in_place_of_a_run(cached: Settings, tmp_path: Path, named: str, hint: str) -> None:
    (tmp_path / "first" / "fold0").mkdir(parents=True)
    for name in ("settings.json", "fold0/best.pt"):
        (tmp_path / "first" / name).touch()
    settings = dataclasses.replace(cached, lines="input", first_stage=str(tmp_path / named))
    with pytest.raises(UserError) as error:
        find_first_stage(settings, load_data(settings))
    assert str(error.value) == (
        f"first_stage={tmp_path / named}: no run folder; a finished run with lines='auxiliary' or 'pooled' is expected"
        + hint.format(tmp_path)
    )


def test_other_device_types(second: Settings) -> None:
    labels = second.label_columns
    settings = dataclasses.replace(second, heads={"ETT": labels[:3], "others": labels[3:]})
    with pytest.raises(UserError, match=r"finds lines of ETT, NGT, CVC, Swan Ganz, the settings have ETT, others"):
        find_first_stage(settings, load_data(settings))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lines": "input"}, "lines='input' needs first_stage"),
        ({"lines": "pooled", "first_stage": "x"}, "first_stage='x' is for lines='input'"),
        ({"lines": "input", "first_stage": "x", "loss_weights": {"tips": 1.0}}, "'tips' is not a term of the loss"),
    ],
)
def test_settings_that_do_not_fit(settings: Settings, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        dataclasses.replace(settings, annotation_table="train_annotations.csv", **changes)
