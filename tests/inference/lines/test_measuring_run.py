"""A trained model that measures: what predict.py writes, what Python and the page say, with and without mm."""

import contextlib
import dataclasses
import io
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from starlette.testclient import TestClient

import catheters
from catheters.checkpoints.parts import build_preprocessing
from catheters.commands.predict import main
from catheters.data.cache.writer import build_cache
from catheters.data.landmarks import read_landmarks
from catheters.data.spacing import read_spacing_table
from catheters.data.tables.label_table import read_label_table
from catheters.errors import UserError
from catheters.inference import server
from catheters.inference.loading import read_models
from catheters.inference.predictor import Predictor
from catheters.runs.build import build_table_source
from catheters.runs.run import train_run
from tests.conftest import run_script, tiny_settings
from tests.data.decoding.test_dicom import make_dicom

pytestmark = pytest.mark.slow

NAME = "ETT tip above carina"
LABELS = ("ETT - Abnormal", "ETT - Normal")
EDGE = 35.0
"""mm; below it the rule says abnormal."""


@pytest.fixture(scope="module")
def measuring_run(sample_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a tiny model that measures on the images that it has seen; its file of rules is gone."""
    folder = tmp_path_factory.mktemp("measuring")
    rules = folder / "rules.toml"
    rules.write_text(
        f'["{NAME}"]\nunit = "mm"\nbands = [[-inf, {EDGE}, "{LABELS[0]}"], [{EDGE}, inf, "{LABELS[1]}"]]\n'
    )
    settings = dataclasses.replace(
        tiny_settings(sample_folder, folder),
        image_size=64,
        annotation_table="train_annotations.csv",
        landmark_table="landmarks.csv",
        measurements={NAME: ("ETT tip", "carina", "vertical")},
        rules=str(rules),
        lines="pooled",
        line_stride=2,
        all_data=True,
        train_transforms=(),
        init_lr=3e-3,
        cosine_epochs=30,
    )
    rules.unlink()
    build_cache(read_label_table(build_table_source(settings)), settings.cache_file, build_preprocessing(settings))
    train_run(settings, fresh=False)
    return settings.run_folder


@pytest.fixture(scope="module")
def measured(measuring_run: Path, sample_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all that predict.py writes of the training images, and the spacing of all but two of them."""
    folder = tmp_path_factory.mktemp("measured")
    table = pd.read_csv(sample_folder / "spacing.csv", dtype=str)
    in_train = table["StudyInstanceUID"].isin(pd.read_csv(sample_folder / "train.csv")["StudyInstanceUID"])
    table[in_train].iloc[2:].to_csv(folder / "spacing.csv", index=False)
    options = ["--lines", str(folder / "lines"), "--spacing", str(folder / "spacing.csv"), "--worklist"]
    paths = [str(sample_folder / "train"), "--out", str(folder / "p.csv"), "--workers", "1"]
    with contextlib.redirect_stderr(io.StringIO()) as said:
        assert main(["--model", str(measuring_run), *paths, *options]) == 0
    uid = min(table["StudyInstanceUID"][in_train].iloc[:2])  # files are predicted in the order of their names
    assert f"--spacing {folder / 'spacing.csv'}: no row for 2 of 40 images, {uid} for one, so no" in said.getvalue()
    return folder


def test_lengths_are_near_the_true_ones(measured: Path, sample_folder: Path) -> None:
    """The numbers agree with each other and with the table of spacings, and the carina with what was marked."""
    table = pd.read_csv(measured / "p_measurements.csv", keep_default_na=False, dtype={"mm": str})
    assert len(table) >= 8
    landmarks = read_landmarks(sample_folder / "landmarks.csv", "StudyInstanceUID")
    spacings = read_spacing_table(measured / "spacing.csv", "StudyInstanceUID")
    distances = []
    for row in table.to_dict("records"):
        uid = row["StudyInstanceUID"]
        assert row["measurement"] == NAME
        assert row["pixels"] == pytest.approx(row["end_y"] - row["start_y"], abs=0.011)
        with Image.open(sample_folder / "train" / f"{uid}.jpg") as xray:
            assert row["share_of_height"] == pytest.approx(row["pixels"] / xray.height, abs=2e-4)
        x, y = landmarks[uid]["carina"]
        distances.append(np.hypot(row["end_x"] - x, row["end_y"] - y))
        spacing = spacings.get(uid)
        if spacing is None or spacing.mm is None:
            assert (row["mm"], row["label_by_rule"]) == ("", "")
            assert row["doubt"] == (
                f"{measured / 'spacing.csv'} has no row for its id, so its pixel spacing is not known; the rule is in "
                "mm, so it gives no label"
            )
        else:
            assert float(row["mm"]) == pytest.approx(row["pixels"] * spacing.mm[1], abs=0.07)
            assert row["label_by_rule"] == LABELS[float(row["mm"]) >= EDGE]
    assert np.median(distances) < 2.5  # of 64 pixels


def test_python_says_the_same(measured: Path, measuring_run: Path, sample_folder: Path) -> None:
    """Of an image with a spacing in the table, given by hand; the worklist has its sentence."""
    table = pd.read_csv(measured / "p_measurements.csv")
    row = table[table["mm"].notna()].iloc[0]
    uid = row["StudyInstanceUID"]
    spacing = read_spacing_table(measured / "spacing.csv", "StudyInstanceUID")[uid].mm
    model = catheters.load(measuring_run, device="cpu")
    file = sample_folder / "train" / f"{uid}.jpg"
    result = model(file, spacing=spacing)
    taken = result.measurements[0]
    assert (taken.name, taken.label_by_rule) == (NAME, row["label_by_rule"])
    assert taken.measurement.mm == pytest.approx(row["mm"], abs=0.011)
    carina = result.landmarks["carina"]
    assert carina is not None and (carina.x, carina.y) == taken.measurement.end
    assert taken.measurement.start in result.tips["ETT"]
    sentences = pd.read_csv(measured / "p_worklist.csv", dtype=str).set_index("StudyInstanceUID")
    assert f"; {taken.measurement.describe()}" in sentences.loc[uid, "ETT"]
    positives = [label for label, is_positive in result.predicted_positive.items() if is_positive]
    agree = all(each.label_by_rule in positives for each in result.measurements)
    assert (result.disagreements == ()) == agree
    assert ("but the model says" in sentences.loc[uid, "ETT"]) != agree
    without = model(file)
    assert without.measurements[0].measurement.mm is None
    assert without.measurements[0].label_by_rule is None
    assert without.measurements[0].doubt == (
        "no DICOM file, or a damaged one, so its pixel spacing is not known; give spacing=(x, y), in mm per pixel; the "
        "rule is in mm, so it gives no label"
    )
    assert without.disagreements == ()
    assert result.draw_lines().height > model(file)._read()[0].shape[0]


def test_a_dicom_file_has_its_spacing_in_its_header(
    measured: Path, measuring_run: Path, sample_folder: Path, tmp_path: Path
) -> None:
    """In Python, on the page and by the script; a row of the script's table goes before it."""
    table = pd.read_csv(measured / "p_measurements.csv")
    uid = table["StudyInstanceUID"].iloc[0]
    with Image.open(sample_folder / "train" / f"{uid}.jpg") as xray:
        pixels = np.asarray(xray.convert("L"))
    file = tmp_path / "x.dcm"
    file.write_bytes(make_dicom(pixels, PixelSpacing=[2.0, 2.4], PixelSpacingCalibrationType="FIDUCIAL"))
    result = catheters.load(measuring_run, device="cpu")(file)
    (first, *_) = result.measurements
    assert first.measurement.mm == pytest.approx(2 * first.measurement.pixels)
    assert first.label_by_rule == LABELS[2 * first.measurement.pixels >= EDGE]
    predictor = Predictor(read_models([measuring_run]), torch.device("cpu"))
    client = TestClient(server.create_app(predictor, "run", ("testserver",), server.Uploads()))
    said = client.post("/predict", content=file.read_bytes()).json()["measurements"]
    assert said[: len(result.disagreements)] == list(result.disagreements)
    assert f"{first.measurement.describe()}, by rule {first.label_by_rule}" in said
    assert client.post("/lines", content=file.read_bytes()).headers["X-Num-Lines"] == str(len(result.lines))
    out = ["--out", str(tmp_path / "p.csv"), "--lines", str(tmp_path / "l"), "--workers", "1"]
    main(["--model", str(measuring_run), str(file), *out])
    written = pd.read_csv(tmp_path / "p_measurements.csv")
    assert written["mm"].iloc[0] == pytest.approx(first.measurement.mm, abs=0.006)
    name = written["StudyInstanceUID"].iloc[0]
    (tmp_path / "s.csv").write_text(f"StudyInstanceUID,spacing_x,spacing_y\n{name},1.8,1.5\n")
    main(["--model", str(measuring_run), str(file), *out, "--spacing", str(tmp_path / "s.csv")])
    written = pd.read_csv(tmp_path / "p_measurements.csv")
    assert written["mm"].iloc[0] == pytest.approx(1.5 * first.measurement.pixels, abs=0.006)


def test_mistakes(measuring_run: Path, lines_run: Path, sample_folder: Path, tmp_path: Path) -> None:
    xray = str(min((sample_folder / "train").iterdir()))
    table = tmp_path / "s.csv"
    table.write_text("StudyInstanceUID,spacing_x,spacing_y\nother,0.1,0\n")
    command = [xray, "--out", str(tmp_path / "p.csv"), "--lines", str(tmp_path / "l"), "--spacing", str(table)]
    with pytest.raises(UserError, match="column 'spacing_y': '0' is not above 0"):
        main(["--model", str(measuring_run), *command])
    table.write_text("StudyInstanceUID,spacing_x,spacing_y\nother,0.1,0.1\n")
    with pytest.raises(UserError, match="none of its 1 ids is that of an image; it has other"):
        main(["--model", str(measuring_run), *command])
    with pytest.raises(UserError, match="the model measures nothing; train it with the setting measurements"):
        main(["--model", str(lines_run), *command])
    shutil.copy(table, tmp_path / "p_measurements.csv")
    own = [xray, "--out", str(tmp_path / "p.csv"), "--lines", str(tmp_path / "l")]
    with pytest.raises(UserError, match="would be written over"):
        main(["--model", str(measuring_run), *own, "--spacing", str(tmp_path / "p_measurements.csv")])
    done = run_script("predict.py", "--model", measuring_run, xray, "--spacing", table)
    assert done.returncode == 2
    assert "--spacing goes with --lines" in done.stderr
