"""`pretrained` with {fold} or {seed}: each model has its own file, and none is of a model that has seen its images."""

import dataclasses
import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import Tensor

from catheters.config.settings import Settings
from catheters.errors import SettingsError, UserError
from catheters.runs.run import train_run

pytestmark = pytest.mark.slow  # each test trains


def backbone_of(file: Path) -> dict[str, Tensor]:
    """The parameters of a checkpoint's backbone, whose running statistics move whatever the learning rate."""
    weights = torch.load(file, weights_only=True)["model"]
    return {
        name: value
        for name, value in weights.items()
        if name.startswith("backbone.") and "running" not in name and "num_batches" not in name
    }


def still(settings: Settings, pretrained: str, **changes: object) -> Settings:
    """Settings of a run that starts from a file and learns next to nothing."""
    return dataclasses.replace(
        settings, pretrained=pretrained, init_lr=1e-30, min_lr=0.0, cosine_epochs=0, run_name="next", **changes
    )


def test_each_fold_has_its_own_file(trained: Settings) -> None:
    settings = still(trained, f"{trained.run_folder}/fold{{fold}}/best.pt")
    train_run(settings, fresh=False)
    of_folds = []
    for fold in ("fold0", "fold1"):
        start, end = (backbone_of(run.run_folder / fold / "best.pt") for run in (trained, settings))
        assert start.keys() == end.keys() and len(start) > 0
        for name, value in start.items():
            torch.testing.assert_close(end[name], value, rtol=0, atol=1e-12)
        of_folds.append(start)
    assert any(not torch.equal(of_folds[1][name], value) for name, value in of_folds[0].items())


def test_a_folder_of_each_fold(trained: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    """Bit by bit what comes of the files by their paths; another fold's folder is refused like its file."""
    ends = []
    for source in (f"{trained.run_folder}/fold{{fold}}/best.pt", f"local-dir:{trained.run_folder}/fold{{fold}}"):
        settings = still(trained, source)
        train_run(settings, fresh=True)
        ends.append([backbone_of(settings.run_folder / fold / "best.pt") for fold in ("fold0", "fold1")])
    for by_path, by_folder in zip(*ends, strict=True):
        assert all(torch.equal(by_folder[name], value) for name, value in by_path.items())
    assert f"tensors taken from {trained.run_folder}/fold0/best.pt" in capsys.readouterr().out
    for fold in (0, 1):
        (trained.run_folder / f"fold0/copy{fold}").mkdir()
        shutil.copy(trained.run_folder / "fold0/best.pt", trained.run_folder / f"fold0/copy{fold}")
    with pytest.raises(UserError, match=r"copy1/best\.pt is not of fold 1 of .*, so its model has seen"):
        train_run(still(trained, f"local-dir:{trained.run_folder}/fold0/copy{{fold}}"), fresh=True)


def test_each_seed_has_its_own_file(trained: Settings) -> None:
    everything = dataclasses.replace(trained, all_data=True, seeds=(3, 4), epochs=1, run_name="everything")
    train_run(everything, fresh=False)
    settings = still(trained, f"{everything.run_folder}/seed{{seed}}/final.pt", all_data=True, seeds=(3, 4))
    train_run(settings, fresh=False)
    for seed in ("seed3", "seed4"):
        start, end = (backbone_of(run.run_folder / seed / "final.pt") for run in (everything, settings))
        for name, value in start.items():
            torch.testing.assert_close(end[name], value, rtol=0, atol=1e-12)


def test_other_folds_are_refused(trained: Settings) -> None:
    """By name of an image; so is the file of another fold."""
    pattern = f"{trained.run_folder}/fold{{fold}}/best.pt"
    with pytest.raises(UserError, match=r"pretrained=.*: its folds are others: .* is in fold . there, in . here"):
        train_run(still(trained, pattern, fold_seed=99), fresh=False)
    first = trained.run_folder / "fold0"
    (first / "fold1").mkdir()
    (first / "copy_of_fold0.pt").write_bytes((first / "best.pt").read_bytes())
    (first / "copy_of_fold1.pt").write_bytes((first / "best.pt").read_bytes())
    with pytest.raises(UserError, match=r"copy_of_fold1\.pt is not of fold 1 of .*, so its model has seen"):
        train_run(still(trained, f"{first}/copy_of_fold{{fold}}.pt"), fresh=False)


def test_a_file_that_is_not_there(trained: Settings) -> None:
    (trained.run_folder / "fold1/best.pt").unlink()
    with pytest.raises(UserError, match=r"fold1/best\.pt: no such file; each fold needs its own"):
        train_run(still(trained, f"{trained.run_folder}/fold{{fold}}/best.pt"), fresh=False)


def test_other_patients_are_refused(trained: Settings) -> None:
    """Two that are one: the fold's own images are safe, another image of the patient need not be."""
    table = Path(trained.dataset_folder) / "train.csv"
    frame = pd.read_csv(table, dtype=str)
    folds = pd.read_csv(trained.run_folder / "predictions.csv", dtype=str).set_index("StudyInstanceUID")["fold"]
    frame["fold"] = folds.loc[frame["StudyInstanceUID"]].to_numpy()
    frame.loc[0, "PatientID"] = "somebody"
    other = trained.run_folder.parent / "other.csv"
    frame.to_csv(other, index=False)
    settings = still(
        trained,
        f"{trained.run_folder}/fold{{fold}}/best.pt",
        label_table=str(other.resolve()),
        fold_column="fold",
        allow_leaking_folds=True,
    )
    with pytest.raises(UserError, match=r"pretrained=.*: has another patient for"):
        train_run(settings, fresh=False)


def test_a_run_that_had_the_table_as_a_further_one(trained: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    """Has seen every image that this one validates on."""
    content = torch.load(trained.run_folder / "fold0/best.pt", weights_only=True)
    earlier = json.loads(content["settings"])
    table = {"cache_name": "tiny", "dataset_folder": earlier["dataset_folder"]}
    content["settings"] = json.dumps({**earlier, "dataset_folder": "elsewhere", "extra_tables": [table]})
    file = trained.run_folder.parent / "big.pt"
    torch.save(content, file)
    train_run(still(trained, str(file)), fresh=False)
    assert f"pretrained={file} was trained on images of the same label table" in capsys.readouterr().err


def test_no_folds_in_a_run_on_all_data(trained: Settings) -> None:
    with pytest.raises(SettingsError, match=r"all_data=True has no folds; \{seed\} or one file is expected"):
        train_run(still(trained, "x/fold{fold}/best.pt", all_data=True), fresh=False)
