"""`evaluate.py --explanations` on tiny runs: its numbers computed by another way, and what it cannot be asked for."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import catheters
from catheters.checkpoints.checkpoint import load_checkpoint
from catheters.checkpoints.parts import build_preprocessing
from catheters.commands.evaluation_options import main
from catheters.config.loading import read_run_settings
from catheters.data.annotations import Annotation, read_annotations
from catheters.data.cache.writer import build_cache
from catheters.data.tables.label_table import read_label_table
from catheters.errors import UserError
from catheters.evaluation.ensemble import EnsembleSpec
from catheters.evaluation.evaluation import Choices
from catheters.evaluation.lines.explanations import OVERALL, Explanations
from catheters.evaluation.lines.pointing_game import tip_hit
from catheters.evaluation.options import ALL_IMAGES
from catheters.inference.figures import read_xray
from catheters.inference.heatmaps import explain
from catheters.inference.loading import LoadedMember, Models
from catheters.inference.predictor import Predictor
from catheters.labels import RANZCR_HEADS
from catheters.runs.build import build_table_source
from catheters.runs.evaluation.explanations import randomised
from catheters.runs.run import train_run
from tests.conftest import assert_user_error, run_script, tiny_settings

MakeRun = Callable[..., Path]


@pytest.fixture(scope="module")
def make_run(sample_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> MakeRun:
    """Trains a tiny run of two folds whose images are cached as they are, at 64 px."""

    def make(name: str, **changes: object) -> Path:
        settings = dataclasses.replace(
            tiny_settings(sample_folder, tmp_path_factory.mktemp(name)),
            **{"image_size": 64, "annotation_table": "train_annotations.csv", "epochs": 1, **changes},  # type: ignore[arg-type]
        )
        build_cache(read_label_table(build_table_source(settings)), settings.cache_file, build_preprocessing(settings))
        train_run(settings, fresh=False)
        return settings.run_folder

    return make


@pytest.fixture(scope="module")
def plain_run(make_run: MakeRun) -> Path:
    """A run that learns no lines; not to be changed."""
    return make_run("plain")


@pytest.fixture
def copied(plain_run: Path, tmp_path: Path) -> Path:
    """The same, to be changed."""
    return Path(shutil.copytree(plain_run, tmp_path / "run"))


def change_settings(run: Path, **changes: object) -> None:
    content = json.loads((run / "settings.json").read_text())
    (run / "settings.json").write_text(json.dumps({**content, **changes}))


def hits_another_way(run: Path, device_type: str) -> list[float]:
    """From files alone: predictions, thresholds in metrics.json, and the maps that predict.py draws on X-rays."""
    settings = read_run_settings(run / "settings.json")
    folder, labels = Path(settings.dataset_folder), list(RANZCR_HEADS[device_type])
    metrics = json.loads((run / "metrics.json").read_text())
    of_type = {entry["label"]: entry["operating_point"] for entry in metrics["per_device"] + metrics["per_label"]}
    thresholds = of_type[device_type if len(labels) > 1 else labels[0]]["fold_thresholds"]
    predictions = pd.read_csv(run / "predictions.csv", dtype={settings.uid_column: str})
    annotations = read_annotations(folder / "train_annotations.csv", settings.uid_column)
    drawn = {uid: [line for line in lines if line.label in labels] for uid, lines in annotations.items()}
    table = read_label_table(build_table_source(settings))
    path_of = dict(zip(table.uids.tolist(), table.paths, strict=True))
    predictors = [make_predictor(run / f"fold{fold}" / "best.pt") for fold in range(2)]
    hits = []
    for _, row in predictions.iterrows():
        uid, of_labels = row[settings.uid_column], row[labels].astype(float)
        # Of an ETT or NGT an image hardly ever has two labels; of CVCs it has.
        presence = min(of_labels.sum(), 1) if device_type in ("ETT", "NGT") else 1 - np.prod(1 - of_labels)
        threshold = thresholds[str(row["fold"])]
        if not drawn.get(uid) or presence < (0.5 if threshold is None else threshold):
            continue
        label = str(of_labels.idxmax())
        predictor = predictors[int(row["fold"])]
        xray, made = read_xray(path_of[uid].read_bytes(), predictor.preprocessings)
        heatmap = explain(predictor, xray, made, [label]).maps[label]
        wanted = [line for line in drawn[uid] if line.label == label] or drawn[uid]
        tips = [tip_of(line) for line in wanted]
        hits.append(float(np.mean([tip_hit(heatmap, tip) for tip in tips])))
    return hits


def tip_of(line: Annotation) -> tuple[float, float]:
    x, y = line.towards_tip((64, 64))[-1]
    return float(x), float(y)


def make_predictor(file: Path) -> Predictor:
    checkpoint = load_checkpoint(file)
    models = Models(
        members=(LoadedMember(name="run", checkpoints=(checkpoint,)),),
        spec=EnsembleSpec(method="mean", weights={"run": 1.0}),
        labels=checkpoint.settings.label_columns,
        calibrator=None,
        thresholds=None,
    )
    return Predictor(models, torch.device("cpu"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"classifier": "attention", "heads": dict(RANZCR_HEADS)},
        {"lines": "pooled", "line_stride": 2},
    ],
    ids=["plain", "attention", "pooled"],
)
def test_the_numbers_of_a_run(changes: dict[str, object], make_run: MakeRun) -> None:
    """Those of Grad-CAM against the maps on the X-rays; attention heads have a second kind."""
    run = make_run("numbers", **changes)
    assert main([str(run), "--explanations"]) == 0
    explanations = json.loads((run / "metrics.json").read_text())["explanations"]
    scores = {(score["method"], score["device_type"]): score for score in explanations["scores"]}
    methods = {method for method, _ in scores}
    assert methods == ({"Grad-CAM", "attention"} if "heads" in changes else {"Grad-CAM"})
    all_hits = []
    for device_type in RANZCR_HEADS:
        hits, score = hits_another_way(run, device_type), scores["Grad-CAM", device_type]
        assert score["num_cases"] == len(hits)
        if hits:
            assert score["hits"]["value"] == pytest.approx(np.mean(hits), abs=1e-9)
        all_hits += hits
    assert len(all_hits) > 10
    for method in methods:
        overall = scores[method, OVERALL]
        assert overall["num_cases"] == len(all_hits)
        gap = overall["hits"]["value"] - overall["randomised"]["value"]
        assert overall["difference"]["value"] == pytest.approx(gap)
        assert overall["chance"] == 0.05
    page = (run / "report.html").read_text()
    assert '<h2 id="explanations">' in page
    overall_hits = scores["Grad-CAM", OVERALL]["hits"]
    assert f"{overall_hits['value']:.3f} ({overall_hits['low']:.3f} to {overall_hits['high']:.3f})" in page
    frame = pd.read_csv(run / "metrics.csv").set_index(["of", "name", "metric"])
    value = frame.loc[("tips in the hottest part, Grad-CAM", OVERALL, "hits"), "value"]
    assert value == pytest.approx(np.mean(all_hits))


@pytest.mark.slow
def test_nothing_else_changes(plain_run: Path, tmp_path: Path) -> None:
    """Neither another number of the evaluation nor the run's own files."""
    before = {file: file.read_bytes() for file in plain_run.glob("**/*") if file.is_file()}
    metrics = []
    for options in ([], ["--explanations"]):
        assert main([str(plain_run), "--out", str(tmp_path / "out"), *options]) == 0
        metrics.append(json.loads((tmp_path / "out" / "metrics.json").read_text()))
    assert metrics[0]["explanations"] is None and metrics[1]["explanations"] is not None
    assert metrics[0] == {**metrics[1], "explanations": None}
    assert {file: file.read_bytes() for file in plain_run.glob("**/*") if file.is_file()} == before


@pytest.mark.slow
def test_some_images_only(plain_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def explained(number: int) -> Explanations:
        choices = Choices(max_explained=number)
        found = catheters.evaluate(plain_run, choices=choices).evaluation.explanations
        assert found is not None
        return found

    assert main([str(plain_run), "--out", str(tmp_path / "out"), "--explanations", "3"]) == 0
    three, everything = explained(3), explained(ALL_IMAGES)
    written = json.loads((tmp_path / "out" / "metrics.json").read_text())["explanations"]
    assert three.num_images == written["num_images"] == 3
    assert [score.hits.value for score in three.scores if score.num_cases] == [
        score["hits"]["value"] for score in written["scores"] if score["num_cases"]
    ]
    assert three.num_images_with_cases == everything.num_images == everything.num_images_with_cases > 3
    shown = capsys.readouterr().out
    assert "Grad-CAM, all device types" in shown
    assert "randomised model" in shown


def test_a_randomised_model_is_the_same_again_and_has_learnt_nothing(plain_run: Path) -> None:
    """Weights of the seed alone: the same twice, others for another seed, none of the trained ones."""
    checkpoint = load_checkpoint(plain_run / "fold0" / "best.pt")
    state = torch.random.get_rng_state()
    one, same, other = (randomised(checkpoint, seed) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), state)
    weights = [dict(model.named_parameters()) for model in (one, same, other, checkpoint.model)]
    assert weights[0].keys() == weights[3].keys()
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    convolutions = [name for name, values in weights[0].items() if values.ndim == 4]
    for name in convolutions:
        assert not torch.equal(weights[0][name], weights[2][name])
        trained = weights[3][name].flatten()
        assert abs(torch.corrcoef(torch.stack([weights[0][name].flatten(), trained]))[0, 1]) < 0.5
    assert len(convolutions) > 3
    assert torch.equal(one.mean, checkpoint.model.mean) and not one.training


@pytest.mark.slow
def test_nothing_drawn_is_predicted_positive(copied: Path, sample_folder: Path, tmp_path: Path) -> None:
    """A table of drawn lines of other images: a warning, and an evaluation without scores of heatmaps."""
    table = pd.read_csv(sample_folder / "train_annotations.csv", dtype=str)
    table.assign(StudyInstanceUID="elsewhere").to_csv(tmp_path / "elsewhere.csv", index=False)
    change_settings(copied, annotation_table=str(tmp_path / "elsewhere.csv"))
    done = run_script("evaluate.py", copied, "--explanations")
    assert done.returncode == 0, done.stderr
    assert "no image has a drawn device type that is predicted positive" in done.stderr
    explanations = json.loads((copied / "metrics.json").read_text())["explanations"]
    assert explanations == {"hottest_share": 0.05, "num_images": 0, "num_images_with_cases": 0, "scores": []}
    assert "so no heatmap is scored" in (copied / "report.html").read_text()


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"annotation_table": None}, ["was trained without annotation_table", "annotation_table=FILE"]),
        ({"annotation_table": "gone.csv"}, ["gone.csv"]),
        ({"cache_name": "gone"}, ["gone_64", "preproc_npy.py"]),
    ],
)
def test_what_is_missing(
    copied: Path, changes: dict[str, object], parts: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """One line, before anything is computed or written."""
    change_settings(copied, **changes)
    names = sorted(copied.iterdir())
    with pytest.raises(UserError) as error:
        main([str(copied), "--explanations"])
    assert "\n" not in str(error.value)
    for part in parts:
        assert part in str(error.value)
    assert capsys.readouterr().out == ""
    assert sorted(copied.iterdir()) == names


def test_a_model_that_is_gone_or_damaged(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Named before anything is computed, whichever fold's it is."""
    file = copied / "fold1" / "best.pt"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"fold1/best\.pt: damaged or changed"):
        main([str(copied), "--explanations"])
    file.unlink()
    with pytest.raises(UserError, match=r"fold1/best\.pt: missing"):
        main([str(copied), "--explanations"])
    assert capsys.readouterr().out == ""
    assert not (copied / "metrics.json").exists()


@pytest.mark.slow
def test_predictions_without_a_model(copied: Path, sample_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A CSV in a run folder's place, as predictions, of Python's; an ensemble; a number that is none."""
    file, labels = str(copied / "predictions.csv"), str(sample_folder / "train.csv")
    assert_user_error(run_script("evaluate.py", file, "--explanations"), "predictions.csv: no run folder")
    for arguments, part in (
        (["--predictions", file, "--labels", labels, "--explanations"], "--explanations goes with run folders"),
        ([str(copied), labels, "--ensemble", "mean", "--explanations"], "--explanations goes without --ensemble"),
        (["--explanations", str(copied)], "is no number of images above 0; run folders stand before --explanations"),
        ([str(copied), "--explanations", "0"], "'0' is no number of images above 0"),
    ):
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        assert stopped.value.code == 2
        assert part in capsys.readouterr().err
    with pytest.raises(UserError, match=r"predictions\.csv: has no models whose heatmaps could be made"):
        catheters.evaluate(file, labels, choices=Choices(max_explained=1))
