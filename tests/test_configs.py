"""Every config trains one step on the tiny sample, with its own model, loss, optimizer and schedule."""

import dataclasses
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from catheters.checkpoints.parts import build_classifier, build_preprocessing
from catheters.config.loading import load_settings
from catheters.config.presets import MULTI, SINGLE
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


def test_the_ready_made_configs_are_the_two_presets() -> None:
    single, multi = (load_settings(REPOSITORY / name) for name in ("config.py", "multi_config.py"))
    assert differing(single, SINGLE) == {"run_name", "folds"}
    assert differing(multi, MULTI) == {"run_name"}
    assert single.folds_to_train == multi.folds_to_train == SINGLE.folds_to_train == (0, 1, 2, 3, 4)
    assert [len(labels) for labels in multi.heads.values()] == [3, 4, 3, 1]
    for family in ("rexnet", "seresnet", "efficientnet", "resnest"):
        for script, settings in (("single", single), ("multi", multi)):
            ready_made = load_settings(REPOSITORY / "configs" / f"{family}_{script}.py")
            assert ready_made.backbone_model.startswith(family)
            assert differing(ready_made, settings) <= {"backbone_model", "run_name", "folds"}


def differing(one: Settings, other: Settings) -> set[str]:
    names = [field.name for field in dataclasses.fields(Settings)]
    return {name for name in names if getattr(one, name) != getattr(other, name)}


def test_the_published_recipes() -> None:
    """Numbers of the original scripts, as docs/reference/published.md has them."""
    single, multi = load_settings("published_single"), load_settings("published_multi")
    assert (single.image_size, single.batch_size, single.valid_batch_size, single.seed) == (1024, 12, 16, 9527)
    assert (single.backbone_model, single.optimizer, single.init_lr) == ("efficientnet_b3", "Adam", 3e-5)
    assert (single.schedule, single.schedule_step) == ("cosine", "epoch")
    assert (single.warmup_epochs, single.warmup_multiplier, single.cosine_epochs) == (1, 10.0, 20)
    assert (single.min_lr, single.early_stop, single.folds_to_train) == (1e-7, 5, (0, 1, 2, 3, 4))
    assert (multi.image_size, multi.batch_size, multi.valid_batch_size, multi.seed) == (512, 64, 16, 4213)
    assert (multi.backbone_model, multi.optimizer, multi.init_lr) == ("inception_v3", "Adam", 6.5e-5)
    assert (multi.schedule, multi.schedule_step, multi.restart_epochs) == ("cosine_restarts", "iteration", 16)
    assert (multi.num_epochs, multi.min_lr, multi.early_stop, multi.folds_to_train) == (15, 0.0, 3, (0, 2, 4))
    assert multi.heads == RANZCR_HEADS
    for settings in (single, multi):
        assert settings.label_columns == RANZCR_LABELS
        assert {label: settings.pos_weight.get(label, 1.0) for label in RANZCR_LABELS} == {
            label: 2.0 if label.startswith("CVC") else 1.0 for label in RANZCR_LABELS
        }
    spread = [params["std_range"] for name, params in one_of(single, "GaussNoise")]
    assert np.square(np.multiply(spread, 255)) == pytest.approx(np.array([[5.0, 30.0]]), rel=1e-3)
    names = ["RandomResizedCrop", "HorizontalFlip", "RandomBrightnessContrast", "OneOf", "OneOf", "CLAHE"]
    assert [name for name, _ in single.train_transforms] == [*names, "HueSaturationValue", "Affine", "CoarseDropout"]
    assert [params.get("p", 1.0) for _, params in single.train_transforms] == [1, 0.5, 0.5, *[0.25] * 5, 0.35]
    assert [params.get("p", 1.0) for _, params in multi.train_transforms] == [0.5, 0.65, 1, 0.5]


def test_the_page_of_the_published_recipes_has_their_numbers() -> None:
    """What stands in the presets is what the page says: the cell of the preset, or the original's where it is kept."""
    page = (REPOSITORY / "docs" / "reference" / "published.md").read_text(encoding="utf-8")
    single_page, _, multi_page = page.partition("\n## Multi-head\n")
    single, multi = load_settings("published_single"), load_settings("published_multi")
    for settings, text in ((single, single_page), (multi, multi_page)):
        cells = {name: preset if preset != "same" else original for name, original, preset in table_rows(text)}
        early_stop = f"{settings.early_stop}" + (" epochs" if cells["early stopping"].endswith("epochs") else "")
        assert cells["image size"] == f"{settings.image_size}"
        assert cells["backbone"] == f"`{settings.backbone_model}`"
        assert cells["early stopping"] == early_stop
        assert cells["seed"] == f"{settings.seed}"
        assert numbers_in(cells["batch"])[:2] == [settings.batch_size, settings.valid_batch_size]
    cells = {name: (original, preset) for name, original, preset in table_rows(single_page)}
    assert numbers_in(cells["input"][1]) == [single.grey_mean, single.grey_std]
    lengths = [single.init_lr, single.cosine_epochs, single.peak_lr, single.min_lr]
    assert numbers_in(cells["learning rate"][0]) == pytest.approx(lengths)
    assert cells["optimizer"][0] == single.optimizer == multi.optimizer
    assert f'`schedule_step="{single.schedule_step}"`' == cells["it changes"][1]
    cells = {name: (original, preset) for name, original, preset in table_rows(multi_page)}
    assert numbers_in(cells["learning rate"][0]) == [multi.init_lr, multi.restart_epochs, multi.num_epochs]
    assert numbers_in(cells["grey values"][0]) == pytest.approx([multi.grey_mean, multi.grey_std], abs=5e-5)
    assert cells["folds"][1] == f"`folds={multi.folds}`"
    for settings, text in ((single, single_page), (multi, multi_page)):
        of_page = text.partition("The transforms, in their order:")[2]
        rows = [line for line in of_page.splitlines() if line.startswith("|")][2:]
        assert len(rows) == len(settings.train_transforms)
        for row, (name, params) in zip(rows, settings.train_transforms, strict=True):
            if name != "RandomResizedCrop":
                assert numbers_in(row.split("|")[1])[-1] == params["p"], row


def table_rows(text: str) -> list[tuple[str, str, str]]:
    """First three cells of each row of tables that have four."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    return [(row[0], row[1], row[2]) for row in rows if len(row) == 4]


def numbers_in(text: str) -> list[float]:
    """As they stand, from left to right."""
    return [float(number) for number in re.findall(r"(?<![\w.-])\d+(?:\.\d+)?(?:e-\d+)?", text)]


def one_of(settings: Settings, name: str) -> list[tuple[str, dict[str, Any]]]:
    """A transform's (name, params) in the choices of a chain."""
    choices = [params["transforms"] for of, params in settings.train_transforms if of == "OneOf"]
    return [pair for choice in choices for pair in choice if pair[0] == name]


@pytest.mark.slow
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
