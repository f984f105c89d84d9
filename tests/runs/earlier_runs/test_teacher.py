"""`teacher`: a run learns another one's probabilities, of the model of its own fold alone."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from catheters.checkpoints.checkpoint import load_checkpoint
from catheters.checkpoints.finished import write_finished
from catheters.config.loading import settings_warnings
from catheters.config.settings import Settings
from catheters.errors import SettingsError, UserError
from catheters.runs.datasets import all_samples, load_data, split_samples
from catheters.runs.earlier_runs.teacher import find_teacher, with_teacher, write_probabilities
from catheters.runs.extra_tables import with_extra_tables
from catheters.runs.preproc import preproc
from catheters.runs.run import train_run
from catheters.runs.run_data import RunData
from catheters.synthetic import generate_sample

CPU = torch.device("cpu")
MARKS = {0: 0.25, 1: 0.625}
"""What the teacher's model of each fold answers every image with, once it is marked."""


@pytest.fixture(scope="module")
def unlabelled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """12 images of other patients of which nothing is known."""
    folder = tmp_path_factory.mktemp("unlabelled")
    generate_sample(folder, num_images=12, num_test_images=4, image_size=64, seed=9, num_workers=1)
    frame = pd.read_csv(folder / "train.csv", dtype=str)[["StudyInstanceUID", "PatientID"]]
    frame.assign(PatientID="B" + frame["PatientID"]).to_csv(folder / "ids.csv", index=False)
    return {"cache_name": "unlabelled", "dataset_folder": str(folder), "label_table": "ids.csv"}


@pytest.fixture
def student(trained: Settings, unlabelled: dict[str, Any]) -> Settings:
    """Settings of a run that `trained` teaches, with the caches of both of its tables."""
    settings = dataclasses.replace(
        trained, run_name="student", teacher=str(trained.run_folder), extra_tables=(unlabelled,), train_transforms=()
    )
    preproc(settings)
    return settings


def mark(run_folder: Path) -> None:
    """Let each fold's model answer every image and label with a probability of its own."""
    for fold, probability in MARKS.items():
        file = run_folder / f"fold{fold}/best.pt"
        content = torch.load(file, weights_only=True)
        content["model"]["head.linear.weight"].zero_()
        content["model"]["head.linear.bias"].fill_(float(np.log(probability / (1 - probability))))
        torch.save(content, file)
        write_finished(file.parent)


def taught(settings: Settings) -> RunData:
    """The data of a run with what its teacher says."""
    data = with_extra_tables(settings, load_data(settings))
    teacher = find_teacher(settings, data)
    write_probabilities(settings, data, teacher, CPU)
    return with_teacher(settings, data, teacher)


def targets_of(samples: Any) -> np.ndarray:
    return np.array([samples[0, position]["targets"].numpy() for position in range(len(samples))])


@pytest.mark.parametrize("soft_weight", [0.0, 0.5])
def test_no_fold_hears_of_a_model_that_saw_its_images(student: Settings, soft_weight: float) -> None:
    """A fold's training images, labelled and not, bear the mark of the model that saw none it validates on."""
    assert student.teacher is not None
    mark(Path(student.teacher))
    settings = dataclasses.replace(student, soft_weight=soft_weight)
    data = taught(settings)
    for fold, probability in MARKS.items():
        train, valid = split_samples(settings, data, fold)
        targets = targets_of(train)
        labels = data.labels[data.folds != fold]
        num_own = len(labels)
        assert len(targets) == num_own + 12
        np.testing.assert_allclose(targets[:num_own], (1 - soft_weight) * labels + soft_weight * probability, atol=1e-6)
        np.testing.assert_allclose(targets[num_own:], probability, atol=1e-6)
        np.testing.assert_array_equal(targets_of(valid), data.labels[data.folds == fold])
        assert "labels_known" not in train[0, 0]


def test_a_model_of_all_images_hears_of_none_that_saw_them(student: Settings) -> None:
    """Of each image what the model of its own fold says; of those in no fold the mean of all."""
    assert student.teacher is not None
    mark(Path(student.teacher))
    settings = dataclasses.replace(student, all_data=True, soft_weight=1.0)
    folds = load_data(dataclasses.replace(student, extra_tables=())).folds
    targets = targets_of(all_samples(settings, taught(settings)))
    expected = np.array([MARKS[fold] for fold in folds.tolist()] + 12 * [np.mean(list(MARKS.values()))])
    np.testing.assert_allclose(targets, np.tile(expected[:, None], 11), atol=1e-6)


def test_probabilities_are_those_of_the_model(student: Settings, tmp_path: Path) -> None:
    """Of every image, whatever labels the student learns and in which order: its folds come from the table."""
    assert student.teacher is not None
    folds = pd.read_csv(Path(student.teacher) / "predictions.csv", dtype=str).set_index("StudyInstanceUID")["fold"]
    table = pd.read_csv(Path(student.dataset_folder) / "train.csv", dtype=str)
    table["fold"] = folds.loc[table["StudyInstanceUID"]].to_numpy()
    table.to_csv(tmp_path / "folds.csv", index=False)
    settings = dataclasses.replace(
        student,
        label_table=str(tmp_path / "folds.csv"),
        fold_column="fold",
        label_columns=(student.label_columns[7], student.label_columns[2]),
        soft_weight=1.0,
    )
    data = taught(settings)
    train, _ = split_samples(settings, data, 1)
    model = load_checkpoint(Path(student.teacher) / "fold1/best.pt").model
    images = torch.stack([train[0, position]["images"] for position in range(len(train))])
    with torch.inference_mode():
        expected = model.probabilities(model(images)).numpy()[:, [7, 2]]
    np.testing.assert_allclose(targets_of(train), expected, atol=1e-6)


def test_what_a_teacher_is_not_sure_of_stays_unknown(student: Settings) -> None:
    assert student.teacher is not None
    mark(Path(student.teacher))
    settings = dataclasses.replace(student, pseudo_labels="confident", pseudo_label_confidence=0.7)
    data = taught(settings)
    # .25 is 1 - .75, sure enough of "no"; .625 is not sure.
    for fold, known in ((0, 1), (1, 0)):
        train, _ = split_samples(settings, data, fold)
        first = int((data.folds != fold).sum())
        samples = [train[0, position] for position in range(first, len(train))]
        assert len(samples) == 12 and (targets_of(train)[first:] == 0).all()
        if known:
            assert all("labels_known" not in sample for sample in samples)
        else:
            assert all(not sample["labels_known"].any() for sample in samples)


@pytest.mark.slow
def test_a_student_is_trained_resumed_and_told_from_others(
    student: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    """A table without any label is learnt from; another teacher is other data; the same one is not asked twice."""
    settings = dataclasses.replace(student, folds=(0,), epochs=1)
    train_run(settings, fresh=False)
    said = capsys.readouterr().out
    assert "12 images of 4 patients more to learn from, of which no label is known" in said
    assert said.count(f"probabilities of {settings.teacher} -> ") == 1
    train_run(dataclasses.replace(settings, folds=None, epochs=2), fresh=False)
    again = capsys.readouterr().out
    assert again.count(f"probabilities of {settings.teacher} -> ") == 1  # of the other fold
    assert settings.teacher is not None
    mark(Path(settings.teacher))
    with pytest.raises(UserError, match="was trained on other images, labels, folds, weights, lines or teacher"):
        train_run(dataclasses.replace(settings, folds=None, epochs=2), fresh=False)


def test_what_a_teacher_adds_is_said(student: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    """12 images of which nothing is known have 132 labels; .25 is sure enough for 0.7, .625 is not."""
    assert student.teacher is not None
    mark(Path(student.teacher))
    sure = {"soft_weight": 0.0, "pseudo_labels": "confident", "pseudo_label_confidence": 0.7}
    taught(dataclasses.replace(student, **sure))
    said = "".join(capsys.readouterr())
    assert "labels, by the teacher of fold 0: 132 of 132 unknown ones learnt" in said
    assert "labels, by the teacher of fold 1: 0 of 132 unknown ones learnt" in said
    assert "teaches no label of fold 1, since soft_weight=0 and it is sure of none that is unknown" in said
    taught(dataclasses.replace(student, soft_weight=0.0, extra_tables=()))
    assert "since soft_weight=0 and no label is unknown" in "".join(capsys.readouterr())


def test_damaged_probabilities_are_found(student: Settings) -> None:
    taught(student)
    file = min(Path(student.cache_folder).glob("*_run_*.npy"))
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)
    with pytest.raises(UserError, match=f"{file.name}: damaged: .*; delete .*{file.stem}.json, and the same command"):
        taught(student)


def write_settings(folder: Path, **changes: Any) -> None:
    file = folder / "settings.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


@pytest.mark.parametrize(
    ("of_teacher", "changes", "message"),
    [
        ({"all_data": True}, {}, "its models have seen every image"),
        ({"label_columns": ["ETT - Abnormal", "CVC - Normal"]}, {}, "does not predict 'ETT - Borderline'"),
        ({"image_size": 64}, {}, r"have image_size=\[64, 64\], here image_size=\[32, 32\]"),
        ({}, {"fold_seed": 99}, "its folds are others: .* is in fold . there, in . here"),
        ({}, {"exclusive": {"ETT": ("ETT - Abnormal", "ETT - Normal")}}, "has other groups of exclusive labels"),
        ({}, {"run_name": "run"}, "is this very run"),
        ({}, {"teacher": "nowhere"}, "teacher=nowhere: no run folder; a finished run of the same images and folds"),
    ],
)
def test_what_is_no_teacher(
    student: Settings, tmp_path: Path, of_teacher: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    assert student.teacher is not None
    write_settings(Path(student.teacher), **of_teacher)
    settings = dataclasses.replace(student, **changes)
    with pytest.raises(UserError, match=message):
        find_teacher(settings, load_data(dataclasses.replace(settings, extra_tables=())))


def test_a_teacher_that_is_not_finished(student: Settings) -> None:
    assert student.teacher is not None
    shutil.rmtree(Path(student.teacher) / "fold1")
    with pytest.raises(UserError, match=r"fold 1 is not finished; run train\.py for it until it is"):
        find_teacher(student, load_data(dataclasses.replace(student, extra_tables=())))


def test_a_table_without_labels_needs_a_teacher(student: Settings) -> None:
    with pytest.raises(UserError, match="tells no label of any image, so there is nothing to learn from it without"):
        preproc(dataclasses.replace(student, teacher=None))


def test_settings_of_a_teacher(settings: Settings) -> None:
    for changes, name in (
        ({"soft_weight": 0.2}, "soft_weight=0.2 has no effect: teacher=None"),
        ({"pseudo_labels": "hard"}, "pseudo_labels='hard' has no effect: teacher=None"),
        ({"teacher": "x", "pseudo_label_confidence": 0.8}, "pseudo_label_confidence=0.8 has no effect: pseudo_labels="),
    ):
        warnings = settings_warnings(dataclasses.replace(settings, **changes))
        assert any(warning.startswith(name) for warning in warnings)
    with pytest.raises(SettingsError, match=r"soft_weight: 1\.5 came"):
        dataclasses.replace(settings, teacher="x", soft_weight=1.5)
    with pytest.raises(SettingsError, match="pseudo_labels: 'sharp' came"):
        dataclasses.replace(settings, teacher="x", pseudo_labels="sharp")
