"""Every config trains one step on the tiny sample, with its own model, loss, optimizer and schedule."""

import dataclasses
import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch

from catheters.checkpoints.parts import build_classifier, build_preprocessing
from catheters.config.loading import load_settings
from catheters.config.presets import PUBLISHED_GREY_MEAN, PUBLISHED_GREY_STD, PUBLISHED_POS_WEIGHT, PUBLISHED_TRANSFORMS
from catheters.config.settings import Settings
from catheters.data.cache.writer import build_cache
from catheters.data.tables.label_table import read_label_table
from catheters.labels import NIH_LABELS, RANZCR_HEADS, RANZCR_LABELS
from catheters.runs.build import build_table_source
from catheters.runs.run import train_run
from tests.conftest import REPOSITORY
from tests.test_scripts import CONFIGS


def as_nih(sample: Path, folder: Path) -> None:
    """The sample's images under NIH's names, table and folders, with two findings per image in turn."""
    images = folder / "images_001" / "images"
    images.mkdir(parents=True)
    frame = pd.read_csv(sample / "train.csv", dtype=str)
    names = [f"{row:08}_000.png" for row in range(len(frame))]
    for uid, name in zip(frame["StudyInstanceUID"], names, strict=True):
        shutil.copy(sample / "train" / f"{uid}.jpg", images / name)
    findings = [f"{NIH_LABELS[row % 14]}|{NIH_LABELS[(row + 5) % 14]}" for row in range(len(frame))]
    table = pd.DataFrame({"Image Index": names, "Finding Labels": findings, "Patient ID": frame["PatientID"]})
    table.to_csv(folder / "Data_Entry_2017_v2020.csv", index=False)


def as_projection(sample: Path, folder: Path) -> None:
    folder.mkdir()
    frame = pd.read_csv(sample / "train.csv", dtype=str)
    files = [str(sample / "train" / f"{uid}.jpg") for uid in frame["StudyInstanceUID"]]
    projection = ["ap" if row % 2 else "pa" for row in range(len(frame))]
    table = pd.DataFrame({"patient_id": frame["PatientID"], "image_id": range(len(frame)), "file": files})
    table.assign(projection=projection).to_csv(folder / "index.csv", index=False)


@pytest.mark.slow
@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.stem)
def test_one_step(config: Path, sample_folder: Path, tmp_path: Path) -> None:
    """Only what the tiny images and the missing network ask for is replaced."""
    as_is = load_settings(config)
    folder = sample_folder
    if config.stem in ("nih_pretraining", "projection"):
        folder = tmp_path / "dataset"
        (as_nih if config.stem == "nih_pretraining" else as_projection)(sample_folder, folder)
    settings = dataclasses.replace(
        as_is,
        dataset_folder=str(folder),
        cache_folder=str(tmp_path),
        saved_models_folder=str(tmp_path / "saved_models"),
        image_size=70 if as_is.backbone_model.startswith("vit_") else 64,  # whole patches of 14 px
        pretrained=False,
        num_folds=3,
        folds=(0,),
        num_workers=0,
        batch_size=16 // as_is.accumulation_steps,
        epochs=1,
    )
    build_cache(read_label_table(build_table_source(settings)), settings.cache_file, build_preprocessing(settings))
    train_run(settings, fresh=False)
    checkpoint = torch.load(settings.run_folder / "fold0" / "best.pt", weights_only=True)
    num_batches = {int(value) for name, value in checkpoint["model"].items() if name.endswith("num_batches_tracked")}
    assert num_batches == {as_is.accumulation_steps}
    predictions = pd.read_csv(settings.run_folder / "predictions.csv")
    assert set(as_is.label_columns) < set(predictions.columns)


def test_the_two_scripts_have_the_published_settings() -> None:
    """Learning rates, lengths, weights and grey values as published, and the same in the ready-made configs."""
    single, multi = (load_settings(REPOSITORY / name) for name in ("config.py", "multi_config.py"))
    assert (single.init_lr, single.warmup_epochs, single.warmup_multiplier) == (3e-5, 1, 10.0)
    assert (single.cosine_epochs, single.min_lr, single.early_stop) == (20, 1e-7, 5)
    assert (single.image_size, single.batch_size, single.folds_to_train) == (1024, 12, (0, 1, 2, 3, 4))
    assert (multi.image_size, multi.optimizer, multi.init_lr) == (512, "Adam", 6.5e-5)
    assert (multi.schedule, multi.restart_epochs, multi.num_epochs, multi.early_stop) == ("cosine_restarts", 16, 15, 3)
    assert (multi.grey_mean, multi.grey_std) == (PUBLISHED_GREY_MEAN, PUBLISHED_GREY_STD) == (0.4887, 0.2306)
    assert multi.heads == RANZCR_HEADS
    assert [len(labels) for labels in multi.heads.values()] == [3, 4, 3, 1]
    for settings in (single, multi):
        assert settings.train_transforms == PUBLISHED_TRANSFORMS
        assert settings.pos_weight == PUBLISHED_POS_WEIGHT
        assert settings.label_columns == RANZCR_LABELS
    own = {"backbone_model", "run_name", "folds"}
    for family in ("rexnet", "seresnet", "efficientnet", "resnest"):
        for script, settings in (("single", single), ("multi", multi)):
            ready_made = load_settings(REPOSITORY / "configs" / f"{family}_{script}.py")
            assert ready_made.backbone_model.startswith(family)
            differing = {
                field.name
                for field in dataclasses.fields(Settings)
                if getattr(ready_made, field.name) != getattr(settings, field.name)
            }
            assert differing <= own


def test_pretraining_on_nih_without_some_ids(sample_folder: Path, tmp_path: Path, settings: Settings) -> None:
    """From pretraining on NIH to a multi-head run: left-out images are nowhere, the whole backbone is taken over."""
    as_nih(sample_folder, tmp_path / "nih")
    ids = tmp_path / "ids.txt"
    ids.write_text("00000003_000.png\n00000010_000.png\n")
    pretraining = dataclasses.replace(
        load_settings(REPOSITORY / "configs" / "nih_pretraining.py"),
        dataset_folder=str(tmp_path / "nih"),
        exclude_ids=str(ids),
        cache_folder=str(tmp_path),
        saved_models_folder=str(tmp_path),
        image_size=32,
        num_folds=2,
        folds=(0, 1),
        batch_size=8,
        num_workers=0,
        backbone_model="test_resnet",
        pretrained=False,
        epochs=1,
    )
    build_cache(
        read_label_table(build_table_source(pretraining)), pretraining.cache_file, build_preprocessing(pretraining)
    )
    train_run(pretraining, fresh=False)
    predicted = set(pd.read_csv(pretraining.run_folder / "predictions.csv")["Image Index"])
    assert len(predicted) == 38
    assert not predicted & set(ids.read_text().split())
    weights = pretraining.run_folder / "fold0" / "best.pt"
    multi = dataclasses.replace(settings, pretrained=str(weights), classifier="attention", heads=dict(RANZCR_HEADS))
    model = build_classifier(multi, 0.5, 0.25)
    expected = torch.load(weights, weights_only=True)["model"]
    for name, value in model.backbone.state_dict().items():
        assert torch.equal(value, expected[f"backbone.{name}"]), name
    assert model.origin.endswith("not taken: mean (1), std (1), head.linear (2)")
