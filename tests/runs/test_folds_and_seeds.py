"""Which models a run trains: folds of the table, debug runs on few patients, one epoch, all data and seeds."""

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from catheters.config.settings import Settings
from catheters.errors import UserError
from catheters.runs.data_checks import check_positives
from catheters.runs.datasets import load_data
from catheters.runs.run import train_run
from catheters.training.extensions.log import read_epochs


@pytest.mark.slow
def test_all_data_and_several_seeds(cached: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    settings = dataclasses.replace(cached, all_data=True, seeds=(3, 0), ema_decay=0.5)
    train_run(settings, fresh=False)
    names = sorted(path.name for path in settings.run_folder.iterdir())
    assert names == ["environment.json", "seed0", "seed3", "settings.json"]
    weights = []
    for seed in (3, 0):
        folder = settings.run_folder / f"seed{seed}"
        assert sorted(path.name for path in folder.iterdir()) == [
            "curves.png",
            "final.pt",
            "final_raw.pt",
            "finished.json",
            "last",
            "log.jsonl",
        ]
        checkpoint = torch.load(folder / "final.pt", weights_only=True)
        assert (checkpoint["seed"], checkpoint["epoch"]) == (seed, 2)
        assert json.loads(checkpoint["settings"])["seed"] == seed
        weights.append(checkpoint["model"]["head.linear.weight"])
        assert checkpoint["feature_space"]["limit"] > 0
        log = read_epochs(folder)
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


@pytest.mark.slow
def test_all_data_whose_last_step_gives_nan(cached: Settings) -> None:
    """The one step of the epoch ruins the weights after its loss was fine: no final.pt, no run that looks finished."""
    settings = dataclasses.replace(
        cached,
        all_data=True,
        batch_size=40,
        init_lr=1e-9,
        warmup_epochs=3,
        warmup_multiplier=1e46,
        optimizer="momentum",
    )
    message = r"seed 0 epoch 2/4: the model outputs NaN or infinity after this epoch \(learning rate 3.33e\+36\)"
    with pytest.raises(UserError, match=message) as error:
        train_run(settings, fresh=False)
    folder = settings.run_folder / "seed0"
    assert str(error.value).endswith(f"{folder} keeps last.pt of earlier epochs")
    assert sorted(path.name for path in folder.iterdir()) == ["last", "last.pt", "log.jsonl"]
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
    assert data.folds.tolist() == [part_of[uid] for uid in data.uids.tolist()]
    of_all = load_data(dataclasses.replace(settings, all_data=True, fold_column="absent"))
    num_patients = frame["PatientID"].nunique()
    assert len(set(of_all.patient_ids.tolist())) == math.ceil(0.5 * num_patients)


def test_a_fold_with_every_image_is_refused(cached: Settings) -> None:
    """As when no image of the other folds can be read."""
    data = load_data(cached)
    with pytest.raises(UserError, match="fold 0 has every image, so none is left to train on"):
        check_positives(cached, dataclasses.replace(data, folds=np.zeros_like(data.folds)))


def test_a_debug_run_has_few_patients_and_a_folder_of_its_own(
    cached: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = dataclasses.replace(cached, debug=True, debug_fraction=0.5, epochs=1)
    whole = load_data(dataclasses.replace(cached))
    train_run(settings, fresh=False)
    assert not cached.run_folder.exists()
    folder = cached.run_folder.with_name("run_debug")
    predictions = pd.read_csv(folder / "predictions.csv", dtype={"patient": str})
    assert f"debug run on {len(predictions)} of 40 images" in capsys.readouterr().out
    fold_of = dict(zip(whole.uids.tolist(), whole.folds.tolist(), strict=True))
    assert [fold_of[uid] for uid in predictions["StudyInstanceUID"]] == predictions["fold"].tolist()
    for fold in (0, 1):
        all_patients = set(whole.patient_ids[whole.folds == fold].tolist())
        chosen = set(predictions.loc[predictions["fold"] == fold, "patient"])
        assert len(chosen) == math.ceil(0.5 * len(all_patients))
        # A chosen patient comes with all images.
        is_chosen = np.isin(whole.patient_ids, list(chosen)) & (whole.folds == fold)
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
    log = read_epochs(settings.run_folder / "fold0")
    assert len(log) == 1
    assert log[0]["lr"] == pytest.approx(2e-3)  # the end of warm-up, as in the whole schedule


def test_another_seed_on_the_same_images(cached: Settings) -> None:
    """With `fold_seed` a debug run of another seed has the same patients and folds."""
    settings = dataclasses.replace(cached, debug=True, debug_fraction=0.5)
    first, again, other = (
        load_data(dataclasses.replace(settings, **changes))
        for changes in ({"seed": 0}, {"seed": 6, "fold_seed": 0}, {"seed": 6})
    )
    assert again.fingerprint == first.fingerprint
    assert other.fingerprint != first.fingerprint


def test_many_labels_without_positives_are_counted(cached: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    """A line for each of the first 15, and one for all others; NIH has 14, other sets have hundreds."""
    data = load_data(cached)
    names = tuple(f"finding {number}" for number in range(20))
    settings = dataclasses.replace(cached, label_columns=(*names, "x"), folds=(0,), pos_weight={})
    labels = np.zeros((len(data.rows), 21), dtype=np.float32)
    labels[::2, 20] = 1
    check_positives(settings, dataclasses.replace(data, labels=labels, targets=labels))
    lines = capsys.readouterr().err.splitlines()
    num_valid = int((data.folds == 0).sum())
    assert lines[0] == (
        f"warning: fold 0: 'finding 0' has 0 positives in {num_valid} validation images: its AUC is undefined (NaN) "
        "and left out of the mean"
    )
    assert lines[15] == "warning: fold 0: so it is with 5 more labels"
    assert lines[16] == "warning: fold 0: 'finding 0' has no positive in the training images: it cannot be learnt"
    assert len(lines) == 2 * 16
