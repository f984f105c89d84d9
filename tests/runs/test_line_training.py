"""Training with lines: real runs on the tiny sample, in the ways that a run can go."""

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from catheters.checkpoints.checkpoint import load_checkpoint, save_checkpoint
from catheters.checkpoints.finished import is_joined
from catheters.checkpoints.parts import build_classifier, build_preprocessing
from catheters.config.settings import Settings
from catheters.data.cache.writer import build_cache
from catheters.data.preprocessing import preprocess
from catheters.data.spacing import read_spacing_table
from catheters.data.tables.label_table import read_label_table
from catheters.errors import SettingsError, UserError
from catheters.inference.figures import read_xray
from catheters.inference.lines.finding import find_all
from catheters.inference.lines.prediction import predict_lines
from catheters.inference.loading import read_models
from catheters.inference.predictor import Predictor
from catheters.io.csv_files import read_csv
from catheters.labels import RANZCR_HEADS
from catheters.runs.build import build_table_source
from catheters.runs.datasets import create_valid_loader, load_data, plain_samples, split_samples
from catheters.runs.out_of_fold_lines import write_fold_lines
from catheters.runs.run import train_run
from tests.conftest import REPOSITORY, assert_user_error, run_script
from tests.processes import Training, num_snapshots, outcome, wait_until

LINES = {"annotation_table": "train_annotations.csv", "lines": "pooled", "line_stride": 2, "folds": (0,)}


MEASUREMENTS = {"ETT tip above carina": ("ETT tip", "carina", "vertical")}


def weights_of(settings: Settings, name: str = "fold0/best.pt") -> dict[str, torch.Tensor]:
    return torch.load(settings.run_folder / name, weights_only=True)["model"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"lines": "auxiliary"},
        {"lines": "pooled"},
        {"lines": "pooled", "classifier": "attention", "heads": dict(RANZCR_HEADS), "mixup_alpha": 0.4},
        {"lines": "auxiliary", "ema_decay": 0.9, "accumulation_steps": 2, "batch_size": 4, "augment_on": "device"},
        {"lines": "auxiliary", "landmark_table": "landmarks.csv", "measurements": MEASUREMENTS, "mixup_alpha": 0.2},
        {"lines": "pooled", "exclusive": {"ETT": RANZCR_HEADS["ETT"]}, "weight_column": "weight"},
    ],
    ids=["auxiliary", "pooled", "attention, mixup", "EMA, accumulation, device", "landmarks", "exclusive, weights"],
)
def test_a_run_with_lines(cached: Settings, changes: dict[str, object], tmp_path: Path) -> None:
    """It trains, logs each term, and its checkpoint predicts what the run's validation did."""
    if "weight_column" in changes:
        weighted = tmp_path / "weighted.csv"
        pd.read_csv(Path(cached.dataset_folder) / "train.csv").assign(weight=1.0).to_csv(weighted, index=False)
        changes = {**changes, "label_table": str(weighted)}
    settings = dataclasses.replace(cached, **{**LINES, **changes})
    train_run(settings, fresh=False)
    lines = [json.loads(line) for line in (settings.run_folder / "fold0/log.jsonl").read_text().splitlines()]
    terms = {name for line in lines for name in line if name.startswith("train/loss/")}
    assert {"train/loss/lines", "train/loss/tips"} <= terms
    assert ("train/loss/positions" in terms) == (settings.lines == "pooled")
    assert ("train/loss/landmarks" in terms) == bool(settings.landmarks)
    data = load_data(settings)
    _, valid = split_samples(settings, data, 0)
    model = load_checkpoint(settings.run_folder / "fold0/best.pt").model
    images = torch.stack([valid[0, position]["images"] for position in range(len(valid))])
    with torch.inference_mode():
        expected = model.probabilities(model(images)).numpy()
    written = pd.read_csv(settings.run_folder / "fold0/predictions.csv")
    assert np.abs(written[list(settings.label_columns)].to_numpy() - expected).max() < 1e-4


@pytest.mark.slow
def test_lines_are_predicted_out_of_fold(settings: Settings) -> None:
    """Of a fold's own images by its own model, as prediction finds them; the run has those of all finished folds."""
    settings = dataclasses.replace(
        settings,
        **LINES,
        image_size=64,
        train_transforms=(),
        batch_size=4,
        backbone_model="test_efficientnet",
        optimizer="AdamW",
        init_lr=1.5e-3,
        cosine_epochs=59,
        early_stop=0,
        loss_weights={"tips": 1 / 12},  # or the landmark would need more epochs
        landmark_table="landmarks.csv",
        spacing_table="spacing.csv",
        measurements=MEASUREMENTS,
        rules={
            "ETT tip above carina": {
                "unit": "mm",
                "bands": [[None, 35, "ETT - Abnormal"], [35, None, "ETT - Normal"]],
            }
        },
    )
    build_cache(read_label_table(build_table_source(settings)), settings.cache_file, build_preprocessing(settings))
    train_run(settings, fresh=False)
    data = load_data(settings)
    found = read_csv(settings.run_folder / "fold0/predictions_lines.csv")
    assert len(found) >= 10
    assert read_csv(settings.run_folder / "predictions_lines.csv").to_dict("list") == found.to_dict("list")
    assert is_joined(settings.run_folder)
    predictor = Predictor(read_models([settings.run_folder / "fold0/best.pt"]), torch.device("cpu"))
    written = {str(uid): of_image for uid, of_image in found.groupby(settings.uid_column)}
    assert set(written) <= set(data.uids[data.folds == 0].tolist())
    for uid in data.uids[data.folds == 0].tolist():
        xray = (Path(settings.dataset_folder) / f"train/{uid}.jpg").read_bytes()
        (preprocessing,) = predictor.preprocessings
        lines = predict_lines(predictor, [preprocess(xray, preprocessing)], dict.fromkeys(settings.label_columns, 0.0))
        assert len(lines) == len(written.get(uid, ()))
        for line, row in zip(lines, written[uid].to_dict("records") if lines else [], strict=True):
            assert line.device_type == row["device_type"]
            np.testing.assert_allclose(json.loads(row["data"]), line.points, atol=0.06)
    check_measurements(settings, predictor)


def check_measurements(settings: Settings, predictor: Predictor) -> None:
    """A fold's are those of prediction with the same spacing, and the run has them."""
    file = settings.run_folder / "fold0/predictions_measurements.csv"
    assert (settings.run_folder / "predictions_measurements.csv").read_text() == file.read_text()
    written = pd.read_csv(file, keep_default_na=False)
    assert len(written) >= 3
    spacings = read_spacing_table(Path(settings.dataset_folder) / "spacing.csv", settings.uid_column)
    for uid, rows in written.groupby(settings.uid_column, sort=False):
        data = (Path(settings.dataset_folder) / f"train/{uid}.jpg").read_bytes()
        xray, made = read_xray(data, predictor.preprocessings)
        no_labels = dict.fromkeys(settings.label_columns, 0.0)
        height, width = xray.shape
        found = find_all(predictor, made, no_labels, spacings[str(uid)], (height, width)).measurements
        assert rows["mm"].tolist() == pytest.approx([taken.measurement.mm for taken in found], abs=0.006)
        assert rows["label_by_rule"].tolist() == [taken.label_by_rule for taken in found]
        ends = [[*taken.measurement.start, *taken.measurement.end] for taken in found]
        columns = ["start_x", "start_y", "end_x", "end_y"]
        np.testing.assert_allclose(rows[columns].to_numpy(), ends, atol=0.006)


def test_an_image_without_finite_maps_has_no_lines(cached: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    """A fold that is trained is not lost to maps that overflow; how many images have such is said."""
    changes = {"landmark_table": "landmarks.csv", "measurements": MEASUREMENTS}
    settings = dataclasses.replace(cached, **LINES, **changes)
    data = load_data(settings)
    model = build_classifier(settings, data.mean, data.std)
    assert model.decoder is not None
    torch.nn.init.constant_(model.decoder.lines.bias, math.nan)
    folder = settings.run_folder / "fold0"
    folder.mkdir(parents=True)
    save_checkpoint(folder / "best.pt", model, settings, {}, {"epoch": 1, "fold": 0, "macro_auc": 0.5})
    is_chosen = data.folds == 0
    loader = create_valid_loader(settings, plain_samples(settings, data, is_chosen), torch.device("cpu"))
    write_fold_lines(settings, data, 0, loader, torch.device("cpu"))
    assert pd.read_csv(folder / "predictions_lines.csv").empty
    assert pd.read_csv(folder / "predictions_measurements.csv").empty
    uids = data.uids[is_chosen]
    assert f"NaN or infinity in the maps of {len(uids)} images, {uids[0]} for one" in capsys.readouterr().err


@pytest.mark.slow
def test_a_killed_run_with_lines_ends_bit_for_bit_the_same(cached: Settings, tmp_path: Path) -> None:
    settings = dataclasses.replace(
        cached, **LINES, batch_size=4, mixup_alpha=0.4, ema_decay=0.9, snapshot_iterations=1, cosine_epochs=2
    )
    whole = dataclasses.replace(settings, run_name="whole")
    train_run(whole, fresh=False)
    training = Training(dataclasses.replace(settings, num_workers=1), tmp_path / "out")
    wait_until(lambda: num_snapshots(settings.run_folder / "fold0") >= 3, training)
    training.kill()
    train_run(settings, fresh=False)
    assert outcome(settings.run_folder) == outcome(whole.run_folder)


@pytest.mark.slow
def test_all_data_with_lines(cached: Settings) -> None:
    settings = dataclasses.replace(cached, **{**LINES, "folds": None}, all_data=True)
    train_run(settings, fresh=False)
    assert any(name.startswith("decoder.") for name in weights_of(settings, "seed0/final.pt"))


def test_lines_are_part_of_the_data(cached: Settings) -> None:
    """Other annotations are other data; of a run without lines they are not."""
    plain = load_data(dataclasses.replace(cached, annotation_table="train_annotations.csv"))
    assert plain.lines is None and plain.fingerprint == load_data(cached).fingerprint
    settings = dataclasses.replace(cached, **LINES)
    data = load_data(settings)
    assert data.lines is not None and data.fingerprint != plain.fingerprint
    train, valid = split_samples(settings, data, 0)
    assert {"line_masks", "tips", "lines_known"} <= train[0, 0].keys()
    assert "line_masks" not in valid[0, 0]


def test_how_many_are_drawn_is_said(cached: Settings, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Half of the drawings are gone: their images' device types are unknown, unless the labels say absent."""
    annotations = pd.read_csv(Path(cached.dataset_folder) / "train_annotations.csv")
    table = pd.read_csv(Path(cached.dataset_folder) / "train.csv").set_index("StudyInstanceUID")
    kept = set(table.index[:20])
    file = tmp_path / "half.csv"
    annotations[annotations.StudyInstanceUID.isin(kept)].to_csv(file, index=False)
    load_data(dataclasses.replace(cached, **{**LINES, "annotation_table": str(file)}))
    said = capsys.readouterr()
    for name, labels in RANZCR_HEADS.items():
        present = table[list(labels)].any(axis=1)
        drawn, unknown = int(present[:20].sum()), int(present[20:].sum())
        images = "1 image" if drawn == 1 else f"{drawn} images"
        expected = f"lines of {name}: drawn in {images}, absent in {40 - drawn - unknown}, unknown in {unknown}"
        assert expected in said.out + said.err


def test_landmarks_that_are_not_there(cached: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = dataclasses.replace(
        cached,
        **LINES,
        landmark_table="landmarks.csv",
        measurements={"x": ("ETT tip", "carena", "vertical")},
    )
    said = (
        r"landmark_table=landmarks\.csv: 'carena' is not a tip \(ETT tip, .*\), nor a landmark in it; did you mean 'car"
    )
    with pytest.raises(UserError, match=said):
        load_data(settings)
    settings = dataclasses.replace(settings, measurements=MEASUREMENTS)
    load_data(settings)
    assert capsys.readouterr().err == ""  # the sample's other landmarks are no fault
    table = pd.read_csv(Path(cached.dataset_folder) / "landmarks.csv", dtype=str)
    file = tmp_path / "other.csv"
    table.assign(StudyInstanceUID="x" + table.StudyInstanceUID).to_csv(file, index=False)
    other = dataclasses.replace(settings, landmark_table=str(file))
    with pytest.raises(UserError, match=rf"landmark_table={file}: none of its ids, such as x.*, is in the label table"):
        load_data(other)
    load_data(dataclasses.replace(other, measurements={}))  # learns none
    assert "none of its ids" in capsys.readouterr().err


def test_drawings_that_contradict_the_labels(
    cached: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    load_data(dataclasses.replace(cached, **LINES))
    assert "is 0 in the label table" not in capsys.readouterr().err
    annotations = pd.read_csv(Path(cached.dataset_folder) / "train_annotations.csv")
    is_changed = annotations.label == "ETT - Normal"
    annotations.loc[is_changed, "label"] = "ETT - Abnormal"
    file = tmp_path / "changed.csv"
    annotations.to_csv(file, index=False)
    load_data(dataclasses.replace(cached, **{**LINES, "annotation_table": str(file)}))
    said = capsys.readouterr().err
    uids = set(annotations.StudyInstanceUID[is_changed])
    assert len(uids) > 1
    assert f": {is_changed.sum()} rows of {len(uids)} images with a label that is 0 in the label table" in said


def test_nothing_to_learn_from(cached: Settings, tmp_path: Path) -> None:
    file = tmp_path / "others.csv"
    file.write_text('StudyInstanceUID,label,data\nother,ETT - Normal,"[[1, 2], [3, 4]]"\n')
    with pytest.raises(UserError, match=r"others\.csv: none of its ids, such as other, is in the label table"):
        load_data(dataclasses.replace(cached, **{**LINES, "annotation_table": str(file)}))
    uid = load_data(cached).uids[0]
    file.write_text(f'StudyInstanceUID,label,data\n{uid},Drain,"[[1, 2], [3, 4]]"\n')
    with pytest.raises(UserError, match=r"others\.csv: has no line of any image and device type of this run"):
        load_data(dataclasses.replace(cached, **{**LINES, "annotation_table": str(file)}))


def test_a_transform_that_loses_points_is_refused(cached: Settings) -> None:
    settings = dataclasses.replace(cached, **LINES, train_transforms=(("ThinPlateSpline", {}),))
    with pytest.raises(SettingsError, match=r"ThinPlateSpline: where it moves the points of a line"):
        train_run(settings, fresh=False)


def test_settings_of_lines(cached: Settings) -> None:
    for changes, message in (
        ({"annotation_table": None}, "lines='pooled' needs annotation_table, a CSV of drawn lines"),
        ({"label_columns": ("Effusion",)}, "lines='pooled' needs heads={device type: its labels}, one map for each"),
        ({"loss_weights": {"tip": 1.0}}, "loss_weights: 'tip' is not a term of the loss; did you mean 'tips'"),
        ({"lines": "auxiliary", "loss_weights": {"positions": 1.0}}, "'positions' is not a term of the loss"),
        (
            {"measurements": MEASUREMENTS},
            "'carina' is not a tip; there are: CVC tip, ETT tip, NGT tip, Swan Ganz tip; a landmark needs",
        ),
        ({"lines": None, "measurements": MEASUREMENTS}, "measurements: tips and landmarks are found by a line decoder"),
        ({"measurements": {"x": ("ETT tip", "ETT tip", "distance")}}, "measurements['x']: from 'ETT tip' to itself"),
        ({"measurements": {"x": ("ETT tip", "NGT tip", "up")}}, "measurements"),
        ({"exclusive": {"lines": RANZCR_HEADS["ETT"]}}, "exclusive: 'lines' is no name for a group"),
    ):
        with pytest.raises(SettingsError) as error:
            dataclasses.replace(cached, **{**LINES, **changes})
        assert message in str(error.value)


@pytest.mark.slow
def test_a_wrong_annotation_table_is_one_line(cached: Settings, write_config: object) -> None:
    settings = dataclasses.replace(cached, **{**LINES, "annotation_table": "none.csv"})
    result = run_script("train.py", "--config", write_config(settings), cwd=REPOSITORY)  # type: ignore[operator]
    assert_user_error(result, "none.csv")


def test_a_spacing_table_of_other_images(cached: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is refused before the training; one that lacks some images is not."""
    other, some = tmp_path / "other.csv", tmp_path / "some.csv"
    other.write_text(f"{cached.uid_column},spacing_x,spacing_y\nx,0.1,0.1\n")
    table = pd.read_csv(Path(cached.dataset_folder) / "spacing.csv", dtype=str)
    uids = set(load_data(cached).uids.tolist())
    table[table[cached.uid_column].isin(uids)].iloc[:-3].to_csv(some, index=False)
    settings = dataclasses.replace(
        cached, **LINES, landmark_table="landmarks.csv", measurements=MEASUREMENTS, spacing_table=str(other)
    )
    with pytest.raises(UserError, match=r"spacing_table=.*none of its 1 ids is that of an image; it has x"):
        load_data(settings)
    data = load_data(dataclasses.replace(settings, spacing_table=str(some)))
    assert data.spacings is not None and int(np.isnan(data.spacings).any(axis=1).sum()) == 3
    known = table.set_index(cached.uid_column)["spacing_y"]
    position = int(np.flatnonzero(~np.isnan(data.spacings[:, 0]))[0])
    assert data.spacings[position, 1] == float(known[data.uids[position]])
    said = capsys.readouterr().err
    assert "no row for 3 of 40 images, so no lengths in mm there" in said
    assert "implausibly" not in said
    in_m = table.assign(**{name: table[name].astype(float) / 1000 for name in ("spacing_x", "spacing_y")})
    in_m.to_csv(some, index=False)
    load_data(dataclasses.replace(settings, spacing_table=str(some)))
    said = capsys.readouterr().err
    assert said.count("40 of 40 images would be implausibly large or small, such as ") == 1
    assert "mm, so no lengths in mm there; mm per pixel of the original image are expected; all seem to be" in said
    assert "1,000 times too small, as in m" in said
    assert load_data(dataclasses.replace(settings, spacing_table=None)).spacings is None


def test_a_spacing_table_of_few_images(cached: Settings, tmp_path: Path) -> None:
    """A debug run that has none of them measures without mm; a run that measures nothing itself does not look."""
    settings = dataclasses.replace(
        cached,
        **LINES,
        landmark_table="landmarks.csv",
        measurements=MEASUREMENTS,
        spacing_table=str(tmp_path / "few.csv"),
        debug=True,
        debug_fraction=0.5,
    )
    left_out = set(load_data(cached).uids.tolist()) - set(
        load_data(dataclasses.replace(settings, spacing_table=None)).uids.tolist()
    )
    assert left_out
    rows = "".join(f"{uid},0.1,0.2\n" for uid in left_out)
    (tmp_path / "few.csv").write_text(f"{cached.uid_column},spacing_x,spacing_y\n{rows}")
    data = load_data(settings)
    assert data.spacings is not None and np.isnan(data.spacings).all()
    whole = load_data(dataclasses.replace(settings, debug=False)).spacings
    assert whole is not None and (whole[~np.isnan(whole).any(axis=1)] == [0.1, 0.2]).all()
    (tmp_path / "few.csv").write_text(f"{cached.uid_column},spacing_x,spacing_y\nother,0.1,0.1\n")
    seeing = {"lines": "input", "first_stage": "first", "landmark_table": None}
    assert load_data(dataclasses.replace(settings, **seeing)).spacings is None
