"""Whole runs: out-of-fold predictions, the best checkpoint, resuming, and every refusal before work starts."""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from sklearn.metrics import roc_auc_score

from catheters.checkpoints.parts import build_classifier
from catheters.config.settings import Settings
from catheters.data.batch import Batch
from catheters.data.tables.label_table import read_label_table
from catheters.errors import UserError
from catheters.models.feature_space import fit_feature_space, pooled
from catheters.runs.build import build_step, build_table_source
from catheters.runs.datasets import load_data, split_samples
from catheters.runs.run import train_run
from catheters.training.extensions.log import read_epochs
from catheters.training.loop import train_epoch
from tests.conftest import CreateManager


def test_run_folder(trained: Settings) -> None:
    folder = trained.run_folder
    assert sorted(path.name for path in folder.iterdir()) == [
        "environment.json",
        "finished.json",
        "fold0",
        "fold1",
        "predictions.csv",
        "settings.json",
    ]
    for fold in ("fold0", "fold1"):
        assert sorted(path.name for path in (folder / fold).iterdir()) == [
            "best.pt",
            "curves.png",
            "finished.json",
            "last",
            "log.jsonl",
            "predictions.csv",
        ]


def test_predictions_are_out_of_fold_and_of_the_best_checkpoint(trained: Settings) -> None:
    data = load_data(trained)
    predictions = pd.read_csv(trained.run_folder / "predictions.csv")
    assert predictions["StudyInstanceUID"].tolist() == data.uids.tolist()
    assert predictions["fold"].tolist() == data.folds.tolist()
    assert predictions["patient"].tolist() == data.patient_ids.tolist()
    assert predictions.groupby("patient")["fold"].nunique().max() == 1
    for fold in (0, 1):
        checkpoint = torch.load(trained.run_folder / f"fold{fold}" / "best.pt", weights_only=True)
        model = build_classifier(trained, 0.0, 1.0)
        model.load_state_dict(checkpoint["model"])
        model.eval()
        is_valid = data.folds == fold
        images = torch.from_numpy(np.array(data.cache_file.load()[data.rows[is_valid]]))[:, None]
        with torch.inference_mode():
            expected = torch.sigmoid(model(images).logits).numpy()
        got = predictions.loc[is_valid, list(trained.label_columns)].to_numpy()
        np.testing.assert_allclose(got, expected, atol=1e-6)
        with torch.inference_mode():
            features = pooled(model.features(images).seen).numpy()
        space = fit_feature_space(features, data.patient_ids[is_valid])
        assert (space is None) == (len(features) < 20) == ("feature_space" not in checkpoint)
        if space is not None:
            assert checkpoint["feature_space"]["limit"] == pytest.approx(space.limit, rel=1e-3)
            assert checkpoint["feature_space"]["mean"].numpy() == pytest.approx(features.mean(axis=0), abs=1e-5)

        targets = data.labels[is_valid]
        aucs = [
            roc_auc_score(targets[:, k], expected[:, k]) for k in range(11) if 0 < targets[:, k].sum() < len(targets)
        ]
        assert checkpoint["macro_auc"] == pytest.approx(np.mean(aucs), abs=1e-6)
        log = read_epochs(trained.run_folder / f"fold{fold}")
        scores = [entry["val/macro_auc"] for entry in log]
        assert checkpoint["macro_auc"] == pytest.approx(max(scores))
        assert checkpoint["epoch"] == 1 + int(np.argmax(scores))
        assert checkpoint["fold"] == fold
        assert checkpoint["label_columns"] == list(trained.label_columns)
        assert checkpoint["preprocessing"]["image_size"] == [32, 32]
        assert checkpoint["preprocessing"]["mean"] == pytest.approx(data.mean)


def test_no_fold_learns_from_its_validation_images(cached: Settings) -> None:
    data = load_data(cached)
    for fold in (0, 1):
        train, valid = split_samples(cached, data, fold)
        train_labels = [train[0, position]["targets"] for position in range(len(train))]
        assert len(train_labels) == (data.folds != fold).sum()
        images = {bytes(data.cache_file.load()[row]) for row in data.rows[data.folds == fold]}
        assert {valid[0, position]["images"].numpy().tobytes() for position in range(len(valid))} == images
        flipped = 0
        for position in range(len(train)):
            image = train[0, position]["images"].numpy()
            flipped += image[:, :, ::-1].tobytes() in {bytes(data.cache_file.load()[row]) for row in data.rows}
            assert image.tobytes() not in images
            assert image[:, :, ::-1].tobytes() not in images
        assert 0 < flipped < len(train)  # the augmentation is at work, half the time


def test_logged_loss_is_the_weighted_loss_of_the_predictions(cached: Settings) -> None:
    weights = {label: 1.0 + k for k, label in enumerate(cached.label_columns)}
    settings = dataclasses.replace(cached, pos_weight=weights, cosine_epochs=0, folds=(0,))
    train_run(settings, fresh=False)
    data = load_data(settings)
    predictions = pd.read_csv(settings.run_folder / "predictions.csv")
    p = predictions[list(settings.label_columns)].to_numpy(dtype=np.float64)
    y = data.labels[data.folds == 0].astype(np.float64)
    w = np.array([weights[label] for label in settings.label_columns])
    expected = -np.mean(w * y * np.log(p) + (1 - y) * np.log(1 - p))
    log = read_epochs(settings.run_folder / "fold0")
    assert log[0]["val/loss"] == pytest.approx(expected, rel=1e-4)


def test_training_starts_from_the_weights_of_a_file(cached: Settings, tmp_path: Path) -> None:
    torch.manual_seed(5)
    source = timm.create_model("test_resnet", num_classes=3, in_chans=1)
    torch.save(source.state_dict(), tmp_path / "weights.pth")
    settings = dataclasses.replace(
        cached, pretrained=str(tmp_path / "weights.pth"), init_lr=1e-30, min_lr=0.0, cosine_epochs=0, folds=(0,)
    )
    train_run(settings, fresh=False)
    model = torch.load(settings.run_folder / "fold0" / "best.pt", weights_only=True)["model"]
    for name, value in source.named_parameters():
        if not name.startswith("fc."):
            assert torch.allclose(model[f"backbone.{name}"], value, rtol=0, atol=1e-20), name


def test_every_epoch_trains_in_training_mode(cached: Settings) -> None:
    """Validation switches to evaluation; batch norm's count of training batches shows that training switches back."""
    settings = dataclasses.replace(cached, folds=(0,), init_lr=1e-30, min_lr=0.0, cosine_epochs=2, early_stop=0)
    train_run(settings, fresh=False)
    checkpoint = torch.load(settings.run_folder / "fold0" / "best.pt", weights_only=True)
    data = load_data(settings)
    per_epoch = (data.folds != 0).sum() // settings.images_per_batch
    counts = {int(value) for name, value in checkpoint["model"].items() if name.endswith("num_batches_tracked")}
    assert counts == {checkpoint["epoch"] * per_epoch}
    log = read_epochs(settings.run_folder / "fold0")
    # Weights stand still at such a learning rate: only running statistics, moved in training mode, change the loss.
    assert len({entry["val/loss"] for entry in log}) == 3


def test_damaged_predictions_say_what_to_delete(trained: Settings) -> None:
    file = trained.run_folder / "fold1" / "predictions.csv"
    file.write_text(file.read_text().rpartition(",")[0])
    with pytest.raises(UserError, match=r"fold1.predictions\.csv: .*delete .*fold1/finished\.json and run train"):
        train_run(trained, fresh=False)


def test_damaged_environment(trained: Settings) -> None:
    (trained.run_folder / "environment.json").write_text("{}")
    with pytest.raises(UserError, match=r"environment\.json: missing or damaged"):
        train_run(trained, fresh=False)


def test_a_folder_started_and_not_finished_is_entered(cached: Settings) -> None:
    """Killed between the two files that a new run folder gets."""
    cached.run_folder.mkdir(parents=True)
    (cached.run_folder / "environment.json").write_text("{}")
    train_run(dataclasses.replace(cached, folds=(0,), cosine_epochs=0), fresh=False)
    assert (cached.run_folder / "settings.json").is_file()


def test_a_kill_while_the_first_file_is_written(cached: Settings) -> None:
    """What is left of it is not taken for somebody else's."""
    cached.run_folder.mkdir(parents=True)
    (cached.run_folder / "settings.json.part").write_text("{")
    train_run(dataclasses.replace(cached, folds=(0,), cosine_epochs=0), fresh=False)
    assert (cached.run_folder / "predictions.csv").is_file()


def test_other_versions_are_named(trained: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    file = trained.run_folder / "environment.json"
    content = json.loads(file.read_text())
    content["environments"][0]["versions"]["torch"] = "1.0"
    file.write_text(json.dumps(content))
    train_run(trained, fresh=False)
    assert "warning: the run was started with torch 1.0, is resumed with" in capsys.readouterr().err


def test_log_holds_the_losses_and_learning_rates(trained: Settings) -> None:
    log = read_epochs(trained.run_folder / "fold0")
    assert [entry["epoch"] for entry in log] == [1, 2]
    assert log[0]["lr"] == pytest.approx(2e-3)  # the peak, which the cosine starts with
    assert log[1]["lr"] == pytest.approx(trained.min_lr)
    assert all(0 < entry["train/loss"] < 5 and 0 < entry["val/loss"] < 50 for entry in log)


@pytest.mark.slow
def test_same_seed_same_run_and_workers_change_nothing(cached: Settings) -> None:
    results = []
    for name, num_workers in (("a", 0), ("b", 0), ("c", 2)):
        settings = dataclasses.replace(cached, run_name=name, num_workers=num_workers, folds=(1,))
        train_run(settings, fresh=False)
        results.append((settings.run_folder / "predictions.csv").read_bytes())
    assert results[0] == results[1] == results[2]
    other = dataclasses.replace(cached, run_name="d", seed=1, folds=(1,))
    train_run(other, fresh=False)
    assert (other.run_folder / "predictions.csv").read_bytes() != results[0]


@pytest.mark.slow
def test_every_chosen_fold_is_trained_once(cached: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    """Fold 0 is falsy and the last fold is past `range(n - 1)`: both once went wrong in a program of this kind."""
    settings = dataclasses.replace(cached, num_folds=3, cosine_epochs=0)
    train_run(dataclasses.replace(settings, folds=(2,)), fresh=False)
    assert set(pd.read_csv(settings.run_folder / "predictions.csv")["fold"]) == {2}
    before = (settings.run_folder / "fold2" / "best.pt").read_bytes()
    (settings.run_folder / "fold0").mkdir()  # as a killed run leaves it
    capsys.readouterr()
    train_run(settings, fresh=False)
    out = capsys.readouterr().out
    assert "continuing the run" in out
    assert "fold 2: already trained" in out
    assert "fold 0: was not finished" in out
    assert set(pd.read_csv(settings.run_folder / "predictions.csv")["fold"]) == {0, 1, 2}
    assert (settings.run_folder / "fold2" / "best.pt").read_bytes() == before


def test_other_settings_are_refused(trained: Settings) -> None:
    changed = dataclasses.replace(trained, init_lr=5e-4, num_workers=1, train_transforms=())
    with pytest.raises(UserError, match="holds a run of other settings: train_transforms was") as error:
        train_run(changed, fresh=False)
    assert "init_lr was 0.001, is 0.0005" in str(error.value)
    assert "num_workers" not in str(error.value)  # changes nothing but speed


def test_settings_of_a_run_without_a_checkpoint_may_change(cached: Settings) -> None:
    """Its learning rate was too high; the same run with a lower one starts over in the same folder."""
    with pytest.raises(UserError, match="the training loss is"):
        train_run(dataclasses.replace(cached, init_lr=1e30, warmup_epochs=0, cosine_epochs=3), fresh=False)
    train_run(dataclasses.replace(cached, folds=(0,)), fresh=False)
    assert json.loads((cached.run_folder / "settings.json").read_text())["init_lr"] == cached.init_lr


def test_fresh_moves_the_earlier_run_aside(trained: Settings) -> None:
    before = (trained.run_folder / "predictions.csv").read_bytes()
    settings = dataclasses.replace(trained, init_lr=5e-4, folds=(0,))
    train_run(settings, fresh=True)
    aside = trained.run_folder.with_name("run.old1")
    assert (aside / "predictions.csv").read_bytes() == before
    assert json.loads((settings.run_folder / "settings.json").read_text())["init_lr"] == 5e-4


def test_other_data_is_refused(trained: Settings, tmp_path: Path) -> None:
    environment = trained.run_folder / "environment.json"
    content = json.loads(environment.read_text())
    environment.write_text(json.dumps({**content, "data_fingerprint": "other"}))
    with pytest.raises(UserError, match="was trained on other images, labels, folds, weights, lines or teacher"):
        train_run(trained, fresh=False)


def test_foreign_folder_is_refused(cached: Settings) -> None:
    cached.run_folder.mkdir(parents=True)
    (cached.run_folder / "thesis.tex").touch()
    with pytest.raises(UserError, match="holds files but no run"):
        train_run(cached, fresh=False)


def test_early_stop(cached: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    """At a learning rate that changes nothing, the first epoch stays the best."""
    settings = dataclasses.replace(
        cached,
        init_lr=1e-30,
        min_lr=0.0,
        warmup_epochs=0,
        cosine_epochs=9,
        early_stop=2,
        folds=(0,),
        train_transforms=(),
    )
    # Batch norm's running statistics would still change the predictions from epoch to epoch.
    settings = dataclasses.replace(settings, backbone_model="test_convnext")
    train_run(settings, fresh=False)
    log = read_epochs(settings.run_folder / "fold0")
    assert len(log) == 3
    assert "early stopping, no better macro AUC" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone_model": "resnest50"}, "backbone_model: 'resnest50' is not a timm model; did you mean 'resnest50d'"),
        ({"loss_func": "bcee"}, "loss_func: 'bcee' is not known"),
        ({"optimizer": "Adamm"}, "optimizer: 'Adamm' is not an optimizer of timm; did you mean 'adam"),
        ({"train_transforms": (("Flip", {}),)}, "train_transforms: 'Flip' is not an albumentations transform"),
        ({"image_size": 64}, "tiny_64.npy: no such image cache"),
        ({"dataset_folder": "absent"}, "absent: no such folder"),
        ({"num_folds": 40, "folds": None}, "num_folds=40, but the table has"),
        ({"device": "cuda:7"}, "device=cuda:7"),
        ({"pretrained": "absent.pth"}, "pretrained=absent.pth: no such file"),
        (
            {"backbone_model": "resnest14d", "batch_size": 1},
            "cannot learn from 1 images of 32 px: Expected",
        ),
        (
            {"backbone_model": "inception_v3", "classifier": "attention"},
            "backbone_model=inception_v3 on images of 32 x 32 px: ",
        ),
        ({"backbone_model": "inception_v3"}, "backbone_model=inception_v3, optimizer=Adam cannot learn from 2 images"),
        ({"optimizer": "adahessian"}, "optimizer=adahessian cannot learn from 2 images"),
    ],
)
def test_refusals_leave_no_run_folder(cached: Settings, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        train_run(dataclasses.replace(cached, **changes), fresh=False)
    assert message in str(error.value)
    assert not cached.run_folder.exists()


def write_labels(settings: Settings, folder: Path, positives: dict[int, int]) -> Settings:
    """The same images, each a patient, under one label that is 1 in the given rows."""
    table = read_label_table(build_table_source(settings))
    frame = pd.DataFrame(
        {"id": table.uids, "who": table.uids, "L": [positives.get(row, 0) for row in range(len(table))]}
    )
    frame.to_csv(folder / "labels.csv", index=False)
    return dataclasses.replace(
        settings, label_table=str(folder / "labels.csv"), uid_column="id", patient_column="who", label_columns=("L",)
    )


def test_fold_without_positives(cached: Settings, tmp_path: Path) -> None:
    settings = write_labels(cached, tmp_path, {3: 1})
    with pytest.raises(UserError, match=r"fold [01]: no label has both positives and negatives among its"):
        train_run(settings, fresh=False)
    with pytest.raises(UserError, match=r"labels\.csv: no label has both positives and negatives; there is nothing"):
        train_run(write_labels(cached, tmp_path, {}), fresh=False)


def test_label_without_positives_in_a_fold_is_named(cached: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    """Of the 40 images few have the rarest labels; with many folds, some fold has none of one."""
    settings = dataclasses.replace(cached, num_folds=8, folds=None)
    data = load_data(settings)
    counts = np.array([data.labels[data.folds == fold].sum(axis=0) for fold in range(8)])
    fold = int(np.flatnonzero((counts == 0).any(axis=1) & (counts > 0).any(axis=1))[0])
    label = settings.label_columns[int(np.flatnonzero(counts[fold] == 0)[0])]
    train_run(dataclasses.replace(settings, folds=(fold,), cosine_epochs=0), fresh=False)
    err = capsys.readouterr().err
    assert f"warning: fold {fold}: '{label}' has 0 positives in" in err
    log = read_epochs(settings.run_folder / f"fold{fold}")
    assert log[0][f"val/auc/{label}"] is None
    assert np.isfinite(log[0]["val/macro_auc"])


def test_a_loss_that_is_not_finite_stops_the_run(cached: Settings) -> None:
    settings = dataclasses.replace(cached, init_lr=1e30, warmup_epochs=0, cosine_epochs=3)
    with pytest.raises(UserError, match=r"0 epoch 1/3, iteration 2: the training loss is (nan|inf) \(.*lower init"):
        train_run(settings, fresh=False)


def test_the_last_good_checkpoint_survives_a_loss_that_is_not_finite(cached: Settings) -> None:
    """One iteration per epoch: the first one's learning rate is harmless, the second one's is not."""
    settings = dataclasses.replace(
        cached, batch_size=40, warmup_epochs=3, init_lr=1e-9, warmup_multiplier=1e39, optimizer="momentum"
    )
    with pytest.raises(
        UserError, match=r"fold0, after epoch 2, iteration 2: the validation loss is (nan|inf) "
    ) as error:
        train_run(settings, fresh=False)
    checkpoint = torch.load(settings.run_folder / "fold0" / "best.pt", weights_only=True)
    assert checkpoint["epoch"] == 1
    assert "(learning rate 3.33e+29); lower init_lr" in str(error.value)  # a third of the way from 1e-9 to 1e30
    assert str(error.value).endswith(f"{settings.run_folder / 'fold0'} keeps best.pt of earlier epochs")
    assert all(torch.isfinite(value).all() for value in checkpoint["model"].values())


@pytest.mark.parametrize("bad", [3, 50, 63, 70])
def test_a_training_loss_that_is_not_finite_is_placed(
    settings: Settings, tmp_path: Path, bad: int, create_manager: CreateManager
) -> None:
    """Losses are looked at now and then; the message still names the first bad one, and its learning rate."""
    settings = dataclasses.replace(settings, warmup_epochs=1, warmup_multiplier=10.0, init_lr=1e-6)
    step = build_step(settings, build_classifier(settings, 0.5, 0.25), 70, torch.device("cpu"))
    targets = torch.zeros((2, 11))
    images = torch.zeros((2, 1, 32, 32), dtype=torch.uint8)
    batches = [Batch(images=images, targets=targets) for _ in range(70)]
    batches[bad - 1] = Batch(images=images, targets=targets + float("inf"))
    manager, log = create_manager(step, tmp_path, num_batches=70, num_epochs=9, epoch=3)
    rate = 1e-6 * (1 + 9 * (bad - 1) / 70)
    with pytest.raises(UserError) as error:
        train_epoch(batches, step, manager, log, "fold 0 epoch 4/9")
    start = f"fold 0 epoch 4/9, iteration {3 * 70 + bad}: the training loss is "
    assert re.match(rf"{start}(nan|inf|-inf) \(learning rate {rate:.2e}\); lower init_lr", str(error.value))
    assert str(error.value).endswith(f"{tmp_path} keeps no checkpoint, no epoch was good")
