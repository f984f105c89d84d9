"""Options of the configs in whole runs: what they write, and that they do something."""

import argparse
import dataclasses
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from sklearn.metrics import roc_auc_score

from catheters.checkpoints.parts import build_classifier
from catheters.config.settings import Settings
from catheters.errors import UserError
from catheters.labels import RANZCR_HEADS
from catheters.runs.datasets import load_data
from catheters.runs.preflight import warn_of_search
from catheters.runs.run import train_run
from catheters.training.extensions.log import read_epochs
from tests.models.test_backbone import FAMILIES

pytestmark = pytest.mark.slow  # each test trains


def test_ema_weights_are_scored_and_saved_beside_the_raw_ones(cached: Settings) -> None:
    settings = dataclasses.replace(cached, ema_decay=0.9, folds=(0,), cosine_epochs=2, init_lr=1e-2)
    train_run(settings, fresh=False)
    folder = settings.run_folder / "fold0"
    log = read_epochs(folder)
    data = load_data(settings)
    is_valid = data.folds == 0
    images = torch.from_numpy(np.array(data.cache_file.load()[data.rows[is_valid]]))[:, None]
    targets = data.labels[is_valid]
    probabilities = {}
    for file, key in (("best.pt", "val/macro_auc"), ("best_raw.pt", "val/raw/macro_auc")):
        checkpoint = torch.load(folder / file, weights_only=True)
        model = build_classifier(settings, 0.0, 1.0).eval()
        model.load_state_dict(checkpoint["model"])
        with torch.inference_mode():
            probabilities[file] = torch.sigmoid(model(images).logits).numpy()
        is_scorable = (targets.min(axis=0) == 0) & (targets.max(axis=0) == 1)
        expected = roc_auc_score(targets[:, is_scorable], probabilities[file][:, is_scorable], average="macro")
        assert log[checkpoint["epoch"] - 1][key] == pytest.approx(expected, abs=1e-6)
        assert checkpoint["macro_auc"] == pytest.approx(expected, abs=1e-6)
    best = max(range(len(log)), key=lambda epoch: log[epoch]["val/macro_auc"])
    assert checkpoint["epoch"] == best + 1
    assert not np.allclose(probabilities["best.pt"], probabilities["best_raw.pt"], atol=1e-4)
    predictions = pd.read_csv(folder / "predictions.csv")[list(settings.label_columns)].to_numpy()
    np.testing.assert_allclose(predictions, probabilities["best.pt"], atol=1e-6)


def test_plateau_lowers_the_learning_rate_in_a_run(cached: Settings) -> None:
    """With weights that stand still no epoch is better than the first."""
    settings = dataclasses.replace(
        cached,
        backbone_model="test_convnext",
        train_transforms=(),
        schedule="plateau",
        plateau_patience=0,
        plateau_factor=0.5,
        epochs=4,
        warmup_epochs=0,
        init_lr=1e-30,
        min_lr=0.0,
        early_stop=0,
        folds=(0,),
    )
    train_run(settings, fresh=False)
    log = read_epochs(settings.run_folder / "fold0")
    assert [entry["lr"] for entry in log] == pytest.approx([1e-30, 1e-30, 5e-31, 2.5e-31], abs=0)


def test_mixup_and_the_rest_together(cached: Settings) -> None:
    """All of regularisation at once, reproducible: twice the same bits."""
    results = []
    for name in ("a", "b"):
        settings = dataclasses.replace(
            cached,
            run_name=name,
            folds=(1,),
            mixup_alpha=0.4,
            ema_decay=0.9,
            clip_grad_norm=1.0,
            batch_size=4,
            accumulation_steps=2,
            drop_path_rate=0.1,
            grad_checkpointing=True,
            optimizer="LAMB",
            layer_decay=0.8,
            weight_decay=0.05,
            label_smoothing={"CVC - Borderline": 0.1},
            loss_func="asymmetric",
        )
        train_run(settings, fresh=False)
        results.append((settings.run_folder / "predictions.csv").read_bytes())
    assert results[0] == results[1]


def test_pretrained_of_the_same_run_is_refused(trained: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    settings = dataclasses.replace(trained, pretrained=str(trained.run_folder / "fold0" / "best.pt"))
    with pytest.raises(UserError, match=r"is of this very run: the same command without it resumes where the run"):
        train_run(settings, fresh=False)
    settings = dataclasses.replace(settings, run_name="other", folds=(0,), epochs=1)
    train_run(settings, fresh=False)
    captured = capsys.readouterr()
    assert "tensors taken from" in captured.out
    assert "best.pt was trained on images of the same label table; a fold that validates on" in captured.err


def test_a_batch_larger_than_the_data(cached: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    train_run(dataclasses.replace(cached, batch_size=1000, epochs=1, folds=(1,)), fresh=False)
    few = (load_data(cached).folds != 1).sum()
    said = f"batch_size=1000 is more than the {few} training images: an epoch is one step, of all of them"
    assert said in capsys.readouterr().err


def test_too_few_images_to_accumulate(cached: Settings) -> None:
    settings = dataclasses.replace(cached, batch_size=8, accumulation_steps=8)
    with pytest.raises(UserError, match=r"batch_size=8 times accumulation_steps=8 is more than the \d+ training"):
        train_run(settings, fresh=False)
    assert not settings.run_folder.exists()


@pytest.mark.parametrize("classifier", ["linear", "attention"])
@pytest.mark.parametrize("backbone_model", FAMILIES)
def test_every_combination_trains_an_epoch(cached: Settings, backbone_model: str, classifier: str) -> None:
    """Fold 0 of the sample; the log, the predictions and a checkpoint that gives them."""
    settings = dataclasses.replace(
        cached,
        backbone_model=backbone_model,
        classifier=classifier,
        heads=dict(RANZCR_HEADS) if classifier == "attention" else {},
        batch_size=4,
        folds=(0,),
        epochs=1,
    )
    train_run(settings, fresh=False)
    log = read_epochs(settings.run_folder / "fold0")
    data = load_data(settings)
    is_valid = data.folds == 0
    assert log[0]["iteration"] == (~is_valid).sum() // 4 >= 4
    model = build_classifier(settings, 0.0, 1.0).eval()
    model.load_state_dict(torch.load(settings.run_folder / "fold0" / "best.pt", weights_only=True)["model"])
    images = torch.from_numpy(np.array(data.cache_file.load()[data.rows[is_valid]]))[:, None]
    with torch.inference_mode():
        expected = torch.sigmoid(model(images).logits).numpy()
    got = pd.read_csv(settings.run_folder / "predictions.csv")[list(settings.label_columns)].to_numpy()
    np.testing.assert_allclose(got, expected, atol=1e-5)


@pytest.mark.parametrize("augment_on", ["cpu", "device"])
def test_augmentation_on_the_device_learns_the_same(cached: Settings, augment_on: str) -> None:
    """Flips need no interpolation: wherever they are done, by however many DataLoader workers, the run is the same."""
    settings = dataclasses.replace(cached, folds=(1,), optimizer="momentum", warmup_epochs=0, init_lr=1e-3)
    losses = []
    for number, changes in enumerate(({"augment_on": "cpu"}, {"augment_on": augment_on, "num_workers": 2})):
        train_run(dataclasses.replace(settings, run_name=f"run{number}", **changes), fresh=False)
        log = read_epochs(settings.run_folder.with_name(f"run{number}") / "fold1")
        losses.append([entry["train/loss"] for entry in log])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.parametrize(
    ("changes", "device", "is_warned"),
    [
        ({}, "cuda", True),
        ({"deterministic": False}, "cuda", False),
        ({"compile_mode": "reduce-overhead"}, "cuda", False),
        ({}, "cpu", False),  # where `deterministic` changes nothing
    ],
)
def test_a_search_for_kernels_that_may_not_be_used(
    settings: Settings, changes: dict[str, object], device: str, is_warned: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    searched = dataclasses.replace(settings, **{"compile_mode": "max-autotune", **changes})  # type: ignore[arg-type]
    warn_of_search(searched, torch.device(device))
    warning = "warning: compile_mode='max-autotune' with deterministic=True spends minutes on a search for fast kernels"
    assert capsys.readouterr().err.startswith(warning) == is_warned


@pytest.mark.parametrize("name", ["theirs.pth", "whole.pth"])
def test_weights_of_another_program(cached: Settings, tmp_path: Path, name: str) -> None:
    """The leak check reads what the model was filled from; timm's own checkpoint has a namespace beside the weights."""
    source = timm.create_model("test_resnet", in_chans=1)
    beside = {"args": argparse.Namespace(out=Path("runs")), "metric": np.float64(0.9)}
    torch.save({"state_dict": source.state_dict(), **beside}, tmp_path / "theirs.pth")
    torch.save(source, tmp_path / "whole.pth")
    settings = dataclasses.replace(cached, pretrained=str(tmp_path / name), cosine_epochs=0, folds=(0,))
    if name == "whole.pth":
        with pytest.raises(UserError, match=r"pretrained=.*whole\.pth: not a file of weights alone: it holds timm"):
            train_run(settings, fresh=False)
        return
    train_run(settings, fresh=False)
    assert (settings.run_folder / "fold0" / "best.pt").is_file()


def test_the_leak_is_seen_in_a_checkpoint_of_another_version(
    trained: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = torch.load(trained.run_folder / "fold0" / "best.pt", weights_only=True)
    text = json.dumps({**json.loads(content["settings"]), "setting_of_tomorrow": 1})
    torch.save({**content, "settings": text}, tmp_path / "best.pt")
    settings = dataclasses.replace(
        trained, pretrained=str(tmp_path / "best.pt"), cosine_epochs=0, folds=(0,), run_name="other"
    )
    train_run(settings, fresh=False)
    assert "was trained on images of the same label table" in capsys.readouterr().err
