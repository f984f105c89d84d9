"""The files of a sample: layout, labels, annotations that lie on the drawn lines, determinism, and what is refused."""

import cmath
import json
import math
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from catheters.errors import UserError
from catheters.labels import RANZCR_LABELS
from catheters.synthetic import generate_sample, plan_sample
from catheters.synthetic.render import MARKER_TEXT, render_image

IMAGE_SIZE = 256
SMALL = {"num_images": 6, "num_test_images": 2, "image_size": 64}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sample") / "ranzcr"
    generate_sample(path, num_images=40, num_test_images=5, image_size=IMAGE_SIZE, seed=3)
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_tables_have_ranzcrs_columns_and_images(folder: Path) -> None:
    train = pd.read_csv(folder / "train.csv")
    assert list(train.columns) == ["StudyInstanceUID", *RANZCR_LABELS, "PatientID"]
    assert len(train) == train["StudyInstanceUID"].nunique() == 40
    assert train[list(RANZCR_LABELS)].isin([0, 1]).all(axis=None)
    assert train["PatientID"].str.fullmatch(r"syn\d{6}").all()
    assert {path.stem for path in (folder / "train").iterdir()} == set(train["StudyInstanceUID"])

    submission = pd.read_csv(folder / "sample_submission.csv")
    assert list(submission.columns) == ["StudyInstanceUID", *RANZCR_LABELS]
    assert (submission[list(RANZCR_LABELS)] == 0).all(axis=None)
    assert {path.stem for path in (folder / "test").iterdir()} == set(submission["StudyInstanceUID"])
    assert len(submission) == 5
    assert not set(submission["StudyInstanceUID"]) & set(train["StudyInstanceUID"])
    assert "SYNTHETIC" in (folder / "README.txt").read_text()


def test_uids_are_valid_and_no_hospitals(folder: Path) -> None:
    uids = pd.read_csv(folder / "train.csv")["StudyInstanceUID"]
    assert uids.str.fullmatch(r"2\.25\.(0|[1-9]\d*)").all()
    assert uids.str.len().max() <= 64


def test_images_are_grey_radiographs(folder: Path) -> None:
    for path in (folder / "train").iterdir():
        image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        assert image.ndim == 2
        assert max(image.shape) == IMAGE_SIZE
        assert min(image.shape) > 0.9 * IMAGE_SIZE
        assert image.std() > 25
        assert 60 < image.mean() < 180
        middle_row = image[image.shape[0] // 2].astype(float)
        lung, spine = (slice(round(a * IMAGE_SIZE), round(b * IMAGE_SIZE)) for a, b in ((0.25, 0.32), (0.47, 0.53)))
        assert middle_row[lung].mean() < middle_row[spine].mean() - 15


def test_annotations_have_the_labels_and_lie_in_the_image(folder: Path) -> None:
    train = pd.read_csv(folder / "train.csv").set_index("StudyInstanceUID")
    annotations = pd.read_csv(folder / "train_annotations.csv")
    assert list(annotations.columns) == ["StudyInstanceUID", "label", "data"]
    for uid, rows in annotations.groupby("StudyInstanceUID"):
        positive = {label for label in RANZCR_LABELS if train.loc[uid, label] == 1}
        assert set(rows["label"]) == positive
        height, width = cv2.imread(str(folder / "train" / f"{uid}.jpg"), cv2.IMREAD_GRAYSCALE).shape
        for text in rows["data"]:
            points = np.array(json.loads(text))
            assert points.dtype.kind == "i"
            assert points.ndim == 2
            assert points.shape[1] == 2
            assert len(points) >= 3
            assert (points >= 0).all()
            assert (points < [width, height]).all()
    without = train.drop(index=annotations["StudyInstanceUID"].unique())
    assert (without[list(RANZCR_LABELS)] == 0).all(axis=None)


def test_annotated_lines_are_radio_opaque(folder: Path) -> None:
    annotations = pd.read_csv(folder / "train_annotations.csv")
    line_is_brighter, tip_is_brighter = [], []
    for row in annotations.itertuples():
        image = cv2.imread(str(folder / "train" / f"{row.StudyInstanceUID}.jpg"), cv2.IMREAD_GRAYSCALE).astype(float)
        points = np.array(json.loads(row.data), dtype=float)
        tangent = np.gradient(points, axis=0)
        normal = np.stack([-tangent[:, 1], tangent[:, 0]], axis=1) / (np.hypot(*tangent.T)[:, None] + 1e-9)
        # brightest within 3 px of the line against the mean 8 px to both sides: ETT walls lie beside their middle
        on = np.max([grey(image, points + offset * normal) for offset in range(-3, 4)], axis=0)
        beside = np.mean([grey(image, points + offset * normal) for offset in (-8, 8)], axis=0)
        line_is_brighter.append(on.mean() > beside.mean() + 5)
        tip_is_brighter.append(on[-1] > beside[-1] + 5)
    assert all(line_is_brighter)
    assert np.mean(tip_is_brighter) > 0.9  # a tip may come to lie beside another catheter


def grey(image: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Grey values at points (N, 2), those outside moved to the nearest pixel."""
    x = np.clip(np.round(points[:, 0]).astype(int), 0, image.shape[1] - 1)
    y = np.clip(np.round(points[:, 1]).astype(int), 0, image.shape[0] - 1)
    return image[y, x]


def test_landmarks_are_where_the_patients_anatomy_lies(folder: Path) -> None:
    landmarks = pd.read_csv(folder / "landmarks.csv")
    assert list(landmarks.columns) == ["StudyInstanceUID", "name", "x", "y"]
    assert not landmarks.duplicated(["StudyInstanceUID", "name"]).any()
    of_image = {key: row for key, *row in landmarks.set_index(["StudyInstanceUID", "name"]).itertuples()}
    for plan in plan_sample(40, image_size=IMAGE_SIZE, seed=3):
        view, patient = plan.view, plan.patient
        places = {
            "carina": (0, 0),
            "right diaphragm dome": (-80, 119),
            "left diaphragm dome": (85, 131),
            "gastro-oesophageal junction": (20, 136),
        }
        for name, (x_mm, y_mm) in places.items():
            # complex numbers for matrices: of the deformed chest around the image's middle, turned and scaled
            bow = patient.bend_mm * (math.cos(y_mm / 140) - 1)
            point = complex(x_mm * patient.width + bow, y_mm * patient.lower_height)
            turned = (point - complex(0, 40) - complex(*view.shift_mm)) * cmath.exp(1j * view.rotation_rad)
            pixel = turned * view.zoom * IMAGE_SIZE / 400 + complex(view.width_px - 1, view.height_px - 1) / 2
            found = of_image.pop((plan.uid, name))
            assert found == pytest.approx([pixel.real, pixel.imag], abs=0.051)
    assert not of_image


def test_right_dome_of_the_diaphragm_lies_between_lung_and_abdomen(folder: Path) -> None:
    landmarks = pd.read_csv(folder / "landmarks.csv")
    is_darker = []
    for row in landmarks[landmarks["name"] == "right diaphragm dome"].itertuples():
        image = cv2.imread(str(folder / "train" / f"{row.StudyInstanceUID}.jpg"), cv2.IMREAD_GRAYSCALE).astype(float)
        lung, abdomen = grey(image, np.array([[row.x, row.y - 10], [row.x, row.y + 10]]))
        is_darker.append(lung < abdomen)
    assert np.mean(is_darker) > 0.9  # a rib or a line may cross the lung there


def test_spacing_of_every_image(folder: Path) -> None:
    spacing = pd.read_csv(folder / "spacing.csv")
    assert list(spacing.columns) == ["StudyInstanceUID", "spacing_x", "spacing_y"]
    of_image = {uid: values for uid, *values in spacing.itertuples(index=False)}
    plans = plan_sample(40, image_size=IMAGE_SIZE, seed=3)
    assert {path.stem for path in folder.glob("t*/*.jpg")} == set(of_image)
    assert len(of_image) == len(spacing) == 45
    for plan in plans:
        mm = 400 / (plan.view.zoom * IMAGE_SIZE)  # of the longer side
        assert of_image[plan.uid] == pytest.approx([mm, mm], abs=1e-6)


def test_catheters_only_brighten_where_they_run() -> None:
    plan = next(
        plan for plan in plan_sample(60, image_size=IMAGE_SIZE) if plan.labels[RANZCR_LABELS.index("ETT - Normal")]
    )
    bare = type(plan)(plan.uid, plan.patient_id, plan.patient, plan.view, (), plan.drawing_seed)
    difference = render_image(plan).astype(int) - render_image(bare)
    course = np.concatenate([catheter.course_px for catheter in plan.catheters])
    rows, columns = np.nonzero(difference > 12)
    distance = np.hypot(columns[:, None] - course[:, 0], rows[:, None] - course[:, 1]).min(axis=1)
    assert len(rows) > 100
    assert distance.max() < 10


def test_every_corner_says_synthetic(folder: Path) -> None:
    font_height = cv2.getTextSize(MARKER_TEXT, cv2.FONT_HERSHEY_SIMPLEX, 0.16, 1)[0][1]
    path = next((folder / "train").iterdir())
    image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    height, width = image.shape
    band = font_height + 6
    for rows in (slice(0, band), slice(height - band, height)):
        for columns in (slice(0, width // 6), slice(width - width // 6, width)):
            assert image[rows, columns].max() > 120
            assert image[rows, columns].min() < 50


def test_same_arguments_same_bytes_with_any_number_of_workers(tmp_path: Path) -> None:
    generate_sample(tmp_path / "one", **SMALL, num_workers=1)
    generate_sample(tmp_path / "two", **SMALL, num_workers=2)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    generate_sample(tmp_path / "other", **SMALL, seed=1)
    assert not set(contents(tmp_path / "one")) & {
        name for name in contents(tmp_path / "other") if name.endswith(".jpg")
    }


def test_finished_sample_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    generate_sample(tmp_path, **SMALL)
    table = tmp_path / "train.csv"
    written = table.stat().st_mtime_ns
    capsys.readouterr()
    generate_sample(tmp_path, **SMALL)
    assert "already there" in capsys.readouterr().out
    assert table.stat().st_mtime_ns == written


def test_unfinished_sample_is_finished(tmp_path: Path) -> None:
    generate_sample(tmp_path, **SMALL)
    complete = contents(tmp_path)
    (tmp_path / "train.csv").unlink()
    next((tmp_path / "train").iterdir()).write_bytes(b"half an image")
    generate_sample(tmp_path, **SMALL)
    assert contents(tmp_path) == complete


def test_sample_of_an_earlier_version_gets_the_tables_that_it_lacks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    generate_sample(tmp_path, **SMALL)
    complete = contents(tmp_path)
    (tmp_path / "landmarks.csv").unlink()
    (tmp_path / "spacing.csv").unlink()
    image = next((tmp_path / "train").iterdir())
    written = image.stat().st_mtime_ns
    capsys.readouterr()
    generate_sample(tmp_path, **SMALL)
    assert "added landmarks.csv and spacing.csv" in capsys.readouterr().out
    assert contents(tmp_path) == complete
    assert image.stat().st_mtime_ns == written


@pytest.mark.parametrize(("edited", "missing"), [("landmarks.csv", "spacing.csv"), ("spacing.csv", "landmarks.csv")])
def test_an_edited_table_stays_when_the_other_is_added(tmp_path: Path, edited: str, missing: str) -> None:
    generate_sample(tmp_path, **SMALL)
    complete = contents(tmp_path)
    (tmp_path / missing).unlink()
    (tmp_path / edited).write_text("mine")
    generate_sample(tmp_path, **SMALL)
    assert contents(tmp_path) == {**complete, edited: b"mine"}


def test_sample_of_other_arguments_is_refused(tmp_path: Path) -> None:
    generate_sample(tmp_path, **SMALL)
    before = contents(tmp_path)
    with pytest.raises(UserError, match=r"other arguments.*seed"):
        generate_sample(tmp_path, **SMALL, seed=5)
    assert contents(tmp_path) == before


def test_folder_of_somebody_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("StudyInstanceUID\nreal\n")
    with pytest.raises(UserError, match=r"train\.csv"):
        generate_sample(tmp_path, **SMALL)
    assert contents(tmp_path) == {"train.csv": b"StudyInstanceUID\nreal\n"}


@pytest.mark.parametrize(
    ("name", "value"),
    [("num_images", 0), ("num_test_images", -1), ("image_size", 32), ("seed", -1), ("num_workers", 0)],
)
def test_impossible_arguments_are_refused_before_anything_is_written(tmp_path: Path, name: str, value: int) -> None:
    with pytest.raises(UserError, match=name):
        generate_sample(tmp_path / "new", **{**SMALL, name: value})
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
def test_command_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "catheters.synthetic", str(tmp_path / "new"), "--num-images", "3"]
    command += ["--num-test-images", "1", "--image-size", "64", "--seed", "7"]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    folder = tmp_path / "new"
    assert finished.stdout.splitlines() == [
        f"{folder}: drawing 4 synthetic radiographs",
        f"{folder}: 3 training images with labels, drawn lines and landmarks, 1 test image, and the pixel spacing of "
        "all",
    ]
    assert len(pd.read_csv(tmp_path / "new" / "train.csv")) == 3

    (tmp_path / "new" / "sample.json").unlink()
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert len(refused.stderr.strip().splitlines()) == 1
    assert "not a synthetic sample" in refused.stderr
