"""Whole runs: predictions out of fold, the best checkpoint, going on, and every refusal before work starts."""

import dataclasses
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from pytorch_pfn_extras.training import ExtensionsManager
from sklearn.metrics import roc_auc_score

from catheters.data.table import read_label_table
from catheters.errors import UserError
from catheters.labels import RANZCR_HEADS
from catheters.models.classifier import create_classifier
from catheters.settings import Settings
from catheters.training.loop import train_epoch
from catheters.training.run import load_data, split_samples, train_run
from catheters.training.run_data import check_positives
from catheters.training.step import TrainStep
from tests.models.test_backbone import FAMILIES


@pytest.fixture
def trained(cached: Settings) -> Settings:
    train_run(cached, fresh=False)
    return cached


def test_run_folder(trained: Settings) -> None:
    folder = trained.run_folder
    assert sorted(path.name for path in folder.iterdir()) == [
        "environment.json",
        "fold0",
        "fold1",
        "predictions.csv",
        "settings.json",
    ]
    for fold in ("fold0", "fold1"):
        assert sorted(path.name for path in (folder / fold).iterdir()) == [
            "best.pt",
            "curves.png",
            "log.json",
            "predictions.csv",
        ]


def test_predictions_are_out_of_fold_and_of_the_best_checkpoint(trained: Settings) -> None:
    data = load_data(trained)
    predictions = pd.read_csv(trained.run_folder / "predictions.csv")
    assert predictions["StudyInstanceUID"].tolist() == data.table.uids.tolist()
    assert predictions["fold"].tolist() == data.folds.tolist()
    assert predictions["patient"].tolist() == data.table.patient_ids.tolist()
    assert predictions.groupby("patient")["fold"].nunique().max() == 1
    for fold in (0, 1):
        checkpoint = torch.load(trained.run_folder / f"fold{fold}" / "best.pt", weights_only=True)
        model = create_classifier(trained, 0.0, 1.0)
        model.load_state_dict(checkpoint["model"])
        model.eval()
        is_valid = data.folds == fold
        images = torch.from_numpy(np.array(data.cache.images[data.rows[is_valid]]))[:, None]
        with torch.inference_mode():
            expected = torch.sigmoid(model(images)).numpy()
        got = predictions.loc[is_valid, list(trained.label_columns)].to_numpy()
        np.testing.assert_allclose(got, expected, atol=1e-6)

        targets = data.table.labels[is_valid]
        aucs = [
            roc_auc_score(targets[:, k], expected[:, k]) for k in range(11) if 0 < targets[:, k].sum() < len(targets)
        ]
        assert checkpoint["macro_auc"] == pytest.approx(np.mean(aucs), abs=1e-6)
        log = json.loads((trained.run_folder / f"fold{fold}" / "log.json").read_text())
        scores = [entry["val/macro_auc"] for entry in log]
        assert checkpoint["macro_auc"] == pytest.approx(max(scores))
        assert checkpoint["epoch"] == 1 + int(np.argmax(scores))
        assert checkpoint["fold"] == fold
        assert checkpoint["label_columns"] == list(trained.label_columns)
        assert checkpoint["preprocessing"]["image_size"] == 32
        assert checkpoint["preprocessing"]["mean"] == pytest.approx(data.cache.mean)


def test_no_fold_learns_from_its_validation_images(cached: Settings) -> None:
    data = load_data(cached)
    for fold in (0, 1):
        train, valid = split_samples(cached, data, fold)
        train_labels = [train[0, position][1] for position in range(len(train))]
        assert len(train_labels) == (data.folds != fold).sum()
        images = {bytes(data.cache.images[row]) for row in data.rows[data.folds == fold]}
        assert {valid[0, position][0].numpy().tobytes() for position in range(len(valid))} == images
        flipped = 0
        for position in range(len(train)):
            image = train[0, position][0].numpy()
            flipped += image[:, :, ::-1].tobytes() in {bytes(data.cache.images[row]) for row in data.rows}
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
    y = data.table.labels[data.folds == 0].astype(np.float64)
    w = np.array([weights[label] for label in settings.label_columns])
    expected = -np.mean(w * y * np.log(p) + (1 - y) * np.log(1 - p))
    log = json.loads((settings.run_folder / "fold0" / "log.json").read_text())
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
    per_epoch = (data.folds != 0).sum() // settings.batch_size
    counts = {int(value) for name, value in checkpoint["model"].items() if name.endswith("num_batches_tracked")}
    assert counts == {checkpoint["epoch"] * per_epoch}
    log = json.loads((settings.run_folder / "fold0" / "log.json").read_text())
    # Weights stand still at such a rate: only running statistics, moved in training mode, change the validation loss.
    assert len({entry["val/loss"] for entry in log}) == 3


def test_damaged_predictions_say_what_to_delete(trained: Settings) -> None:
    file = trained.run_folder / "fold1" / "predictions.csv"
    file.write_text(file.read_text().rpartition(",")[0])
    with pytest.raises(UserError, match=r"fold1.predictions\.csv: .*the file is damaged: delete .*fold1 to train that"):
        train_run(trained, fresh=False)


def test_damaged_environment(trained: Settings) -> None:
    (trained.run_folder / "environment.json").write_text("{}")
    with pytest.raises(UserError, match=r"environment\.json: missing or damaged"):
        train_run(trained, fresh=False)


def test_a_folder_begun_and_not_finished_is_entered(cached: Settings) -> None:
    """Killed between the two files that a new run folder gets."""
    cached.run_folder.mkdir(parents=True)
    (cached.run_folder / "environment.json").write_text("{}")
    train_run(dataclasses.replace(cached, folds=(0,), cosine_epochs=0), fresh=False)
    assert (cached.run_folder / "settings.json").is_file()


def test_other_versions_are_named(trained: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    file = trained.run_folder / "environment.json"
    content = json.loads(file.read_text())
    content["versions"]["torch"] = "1.0"
    file.write_text(json.dumps(content))
    train_run(trained, fresh=False)
    assert "warning: the run was begun with torch 1.0, goes on with" in capsys.readouterr().err


def test_log_holds_the_losses_and_rates(trained: Settings) -> None:
    log = json.loads((trained.run_folder / "fold0" / "log.json").read_text())
    assert [entry["epoch"] for entry in log] == [1, 2]
    assert log[0]["lr"] == pytest.approx(2e-3)  # the peak, which the cosine starts with
    assert log[1]["lr"] == pytest.approx(trained.min_lr)
    assert all(0 < entry["train/loss"] < 5 and 0 < entry["val/loss"] < 50 for entry in log)


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


def test_every_chosen_fold_is_trained_and_the_run_goes_on(cached: Settings, capsys: pytest.CaptureFixture[str]) -> None:
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


def test_a_run_without_a_checkpoint_may_be_mended(cached: Settings) -> None:
    """Its rate was too high; the same run with a lower one begins anew in the same folder."""
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
    with pytest.raises(UserError, match="was trained on other images, labels or folds"):
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
    log = json.loads((settings.run_folder / "fold0" / "log.json").read_text())
    assert len(log) == 3
    assert "stopped early" in capsys.readouterr().out


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
        ({"backbone_model": "vit_tiny_patch16_224", "classifier": "attention"}, "attention heads need a feature map"),
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
    table = read_label_table(settings)
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
    counts = np.array([data.table.labels[data.folds == fold].sum(axis=0) for fold in range(8)])
    fold = int(np.flatnonzero((counts == 0).any(axis=1) & (counts > 0).any(axis=1))[0])
    label = settings.label_columns[int(np.flatnonzero(counts[fold] == 0)[0])]
    train_run(dataclasses.replace(settings, folds=(fold,), cosine_epochs=0), fresh=False)
    err = capsys.readouterr().err
    assert f"warning: fold {fold}: '{label}' has 0 positives in" in err
    log = json.loads((settings.run_folder / f"fold{fold}" / "log.json").read_text())
    assert log[0][f"val/auc/{label}"] is None
    assert np.isfinite(log[0]["val/macro_auc"])


def test_a_loss_that_is_not_finite_ends_the_run(cached: Settings) -> None:
    settings = dataclasses.replace(cached, init_lr=1e30, warmup_epochs=0, cosine_epochs=3)
    with pytest.raises(UserError, match=r"0 epoch 1/3, iteration 2: the training loss is (nan|inf) \(.*lower init"):
        train_run(settings, fresh=False)


def test_the_last_good_checkpoint_survives_a_loss_that_is_not_finite(cached: Settings) -> None:
    """One iteration an epoch: the first one's rate is harmless, the second one's is not."""
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
def test_a_training_loss_that_is_not_finite_is_placed(settings: Settings, tmp_path: Path, bad: int) -> None:
    """Losses are looked at now and then; the message still names the first bad one, and its rate."""
    settings = dataclasses.replace(settings, warmup_epochs=1, warmup_multiplier=10.0, init_lr=1e-6)
    step = TrainStep(settings, create_classifier(settings, 0.5, 0.25), 70, torch.device("cpu"))
    targets = torch.zeros((2, 11))
    batches = [(torch.zeros((2, 1, 32, 32), dtype=torch.uint8), targets) for _ in range(70)]
    batches[bad - 1] = (batches[0][0], targets + float("inf"))
    manager = ExtensionsManager(step.model, step.optimizer, 1, iters_per_epoch=70, extensions=[], out_dir=str(tmp_path))
    rate = 1e-6 * (1 + 9 * (bad - 1) / 70)
    with pytest.raises(UserError) as error:
        train_epoch(batches, step, manager, "fold 0 epoch 4/9")
    start = f"fold 0 epoch 4/9, iteration {bad}: the training loss is "
    assert re.match(rf"{start}(nan|inf|-inf) \(learning rate {rate:.2e}\); lower init_lr", str(error.value))
    assert str(error.value).endswith(f"{tmp_path} keeps no checkpoint, no epoch was good")


def test_averaged_weights_are_scored_and_saved_beside_the_raw_ones(cached: Settings) -> None:
    settings = dataclasses.replace(cached, ema_decay=0.9, folds=(0,), cosine_epochs=2, init_lr=1e-2)
    train_run(settings, fresh=False)
    folder = settings.run_folder / "fold0"
    log = json.loads((folder / "log.json").read_text())
    data = load_data(settings)
    is_valid = data.folds == 0
    images = torch.from_numpy(np.array(data.cache.images[data.rows[is_valid]]))[:, None]
    targets = data.table.labels[is_valid]
    probabilities = {}
    for file, key in (("best.pt", "val/macro_auc"), ("best_raw.pt", "val/raw/macro_auc")):
        checkpoint = torch.load(folder / file, weights_only=True)
        model = create_classifier(settings, 0.0, 1.0).eval()
        model.load_state_dict(checkpoint["model"])
        with torch.inference_mode():
            probabilities[file] = torch.sigmoid(model(images)).numpy()
        is_scorable = (targets.min(axis=0) == 0) & (targets.max(axis=0) == 1)
        expected = roc_auc_score(targets[:, is_scorable], probabilities[file][:, is_scorable], average="macro")
        assert log[checkpoint["epoch"] - 1][key] == pytest.approx(expected, abs=1e-6)
        assert checkpoint["macro_auc"] == pytest.approx(expected, abs=1e-6)
    best = max(range(len(log)), key=lambda epoch: log[epoch]["val/macro_auc"])
    assert checkpoint["epoch"] == best + 1
    assert not np.allclose(probabilities["best.pt"], probabilities["best_raw.pt"], atol=1e-4)
    predictions = pd.read_csv(folder / "predictions.csv")[list(settings.label_columns)].to_numpy()
    np.testing.assert_allclose(predictions, probabilities["best.pt"], atol=1e-6)


def test_all_data_and_several_seeds(cached: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    settings = dataclasses.replace(cached, all_data=True, seeds=(3, 0), ema_decay=0.5)
    train_run(settings, fresh=False)
    names = sorted(path.name for path in settings.run_folder.iterdir())
    assert names == ["environment.json", "seed0", "seed3", "settings.json"]
    weights = []
    for seed in (3, 0):
        folder = settings.run_folder / f"seed{seed}"
        assert sorted(path.name for path in folder.iterdir()) == ["curves.png", "final.pt", "final_raw.pt", "log.json"]
        checkpoint = torch.load(folder / "final.pt", weights_only=True)
        assert (checkpoint["seed"], checkpoint["epoch"]) == (seed, 2)
        assert json.loads(checkpoint["settings"])["seed"] == seed
        weights.append(checkpoint["model"]["head.linear.weight"])
        log = json.loads((folder / "log.json").read_text())
        assert len(log) == 2
        assert not any(key.startswith("val/") for key in log[0])
    assert not torch.equal(*weights)
    assert (
        f"seed 3: trained on all 40 images -> {settings.run_folder / 'seed3' / 'final.pt'}" in capsys.readouterr().out
    )
    # A seed trains the same model whatever others there are; those that stand are kept.
    train_run(dataclasses.replace(settings, seeds=(0, 3, 7)), fresh=False)
    assert "seed 0: already trained" in capsys.readouterr().out
    single = dataclasses.replace(settings, seeds=None, seed=3, run_name="single")
    train_run(single, fresh=False)
    alone = torch.load(single.run_folder / "seed3" / "final.pt", weights_only=True)
    assert torch.equal(alone["model"]["head.linear.weight"], weights[0])


def test_all_data_that_ends_in_nan(cached: Settings) -> None:
    """The one step of the epoch ruins the weights after its loss was fine: no final.pt, no run that looks ended."""
    settings = dataclasses.replace(
        cached,
        all_data=True,
        batch_size=40,
        init_lr=1e-9,
        warmup_epochs=3,
        warmup_multiplier=1e46,
        optimizer="momentum",
    )
    message = r"seed 0 epoch 2/4: the model answers NaN or infinity after this epoch \(learning rate 3.33e\+36\)"
    with pytest.raises(UserError, match=message) as error:
        train_run(settings, fresh=False)
    folder = settings.run_folder / "seed0"
    assert str(error.value).endswith(f"{folder} keeps last.pt of earlier epochs")
    assert sorted(path.name for path in folder.iterdir()) == ["last.pt", "log.json"]
    assert torch.load(folder / "last.pt", weights_only=True)["epoch"] == 1


def test_debug_with_all_data_and_with_fold_column(cached: Settings, tmp_path: Path) -> None:
    frame = pd.read_csv(Path(cached.dataset_folder) / cached.label_table, dtype=str)
    frame["part"] = (frame["PatientID"].rank(method="dense").astype(int) % 2).astype(str)
    frame.to_csv(tmp_path / "with_folds.csv", index=False)
    settings = dataclasses.replace(
        cached, label_table=str(tmp_path / "with_folds.csv"), fold_column="part", debug=True, debug_fraction=0.5
    )
    part_of = dict(zip(frame["StudyInstanceUID"], frame["part"].astype(int), strict=True))
    data = load_data(settings)
    assert 0 < len(data.rows) < 40
    assert data.folds.tolist() == [part_of[uid] for uid in data.table.uids.tolist()]
    of_all = load_data(dataclasses.replace(settings, all_data=True, fold_column="absent"))
    num_patients = frame["PatientID"].nunique()
    assert len(set(of_all.table.patient_ids.tolist())) == math.ceil(0.5 * num_patients)


def test_a_fold_with_every_image_is_refused(cached: Settings) -> None:
    """As when no image of the other folds can be read."""
    data = load_data(cached)
    with pytest.raises(UserError, match="fold 0 has every image, so none is left to train on"):
        check_positives(cached, dataclasses.replace(data, folds=np.zeros_like(data.folds)))


def test_debug_is_a_trial_on_few_patients_in_a_folder_of_its_own(
    cached: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = dataclasses.replace(cached, debug=True, debug_fraction=0.5, epochs=1)
    whole = load_data(dataclasses.replace(cached))
    train_run(settings, fresh=False)
    assert not cached.run_folder.exists()
    folder = cached.run_folder.with_name("run_debug")
    predictions = pd.read_csv(folder / "predictions.csv", dtype={"patient": str})
    assert f"debug: a trial on {len(predictions)} of 40 images" in capsys.readouterr().out
    fold_of = dict(zip(whole.table.uids.tolist(), whole.folds.tolist(), strict=True))
    assert [fold_of[uid] for uid in predictions["StudyInstanceUID"]] == predictions["fold"].tolist()
    for fold in (0, 1):
        all_patients = set(whole.table.patient_ids[whole.folds == fold].tolist())
        chosen = set(predictions.loc[predictions["fold"] == fold, "patient"])
        assert len(chosen) == math.ceil(0.5 * len(all_patients))
        # A chosen patient comes with all images.
        is_chosen = np.isin(whole.table.patient_ids, list(chosen)) & (whole.folds == fold)
        assert is_chosen.sum() == (predictions["fold"] == fold).sum()


def test_folds_of_the_table(cached: Settings, tmp_path: Path) -> None:
    frame = pd.read_csv(Path(cached.dataset_folder) / cached.label_table, dtype=str)
    patients = frame["PatientID"].unique().tolist()
    frame["part"] = frame["PatientID"].map({patient: number % 3 for number, patient in enumerate(patients)})
    frame.to_csv(tmp_path / "with_folds.csv", index=False)
    settings = dataclasses.replace(
        cached, label_table=str(tmp_path / "with_folds.csv"), fold_column="part", num_folds=3, folds=(2, 0), epochs=1
    )
    train_run(settings, fresh=False)
    predictions = pd.read_csv(settings.run_folder / "predictions.csv").set_index("StudyInstanceUID")
    expected = frame.set_index("StudyInstanceUID").loc[predictions.index, "part"].astype(int)
    assert predictions["fold"].tolist() == expected.tolist()
    assert set(predictions["fold"]) == {0, 2}


def test_one_epoch_of_a_longer_schedule(cached: Settings) -> None:
    settings = dataclasses.replace(cached, epochs=1, cosine_epochs=4, folds=(0,))
    train_run(settings, fresh=False)
    log = json.loads((settings.run_folder / "fold0" / "log.json").read_text())
    assert len(log) == 1
    assert log[0]["lr"] == pytest.approx(2e-3)  # the end of warm-up, as in the whole schedule


def test_plateau_lowers_the_rate_in_a_run(cached: Settings) -> None:
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
    log = json.loads((settings.run_folder / "fold0" / "log.json").read_text())
    assert [entry["lr"] for entry in log] == pytest.approx([1e-30, 1e-30, 5e-31, 2.5e-31], abs=0)


def test_mixup_and_the_rest_together(cached: Settings) -> None:
    """All of regularisation at once, twice the same numbers."""
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
    with pytest.raises(UserError, match=r"is of this very run: the same command without it goes on where the run"):
        train_run(settings, fresh=False)
    settings = dataclasses.replace(settings, run_name="other", folds=(0,), epochs=1)
    train_run(settings, fresh=False)
    captured = capsys.readouterr()
    assert "tensors taken from" in captured.out
    assert "best.pt was trained on images of the same label table; a fold that validates on" in captured.err


def test_too_few_images_to_accumulate(cached: Settings) -> None:
    settings = dataclasses.replace(cached, batch_size=8, accumulation_steps=8)
    with pytest.raises(UserError, match=r"batch_size=8 times accumulation_steps=8 is more than the \d+ training"):
        train_run(settings, fresh=False)
    assert not settings.run_folder.exists()


@pytest.mark.slow
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
    log = json.loads((settings.run_folder / "fold0" / "log.json").read_text())
    data = load_data(settings)
    is_valid = data.folds == 0
    assert log[0]["iteration"] == (~is_valid).sum() // 4 >= 4
    model = create_classifier(settings, 0.0, 1.0).eval()
    model.load_state_dict(torch.load(settings.run_folder / "fold0" / "best.pt", weights_only=True)["model"])
    images = torch.from_numpy(np.array(data.cache.images[data.rows[is_valid]]))[:, None]
    with torch.inference_mode():
        expected = torch.sigmoid(model(images)).numpy()
    got = pd.read_csv(settings.run_folder / "predictions.csv")[list(settings.label_columns)].to_numpy()
    np.testing.assert_allclose(got, expected, atol=1e-5)
