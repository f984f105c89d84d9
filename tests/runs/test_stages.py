"""`stages`: trainings one after the other give the bits of the same ones chained by hand."""

import dataclasses
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from catheters.checkpoints.parts import build_classifier
from catheters.config.settings import Settings
from catheters.errors import SettingsError, UserError
from catheters.runs.datasets import load_data
from catheters.runs.earlier_runs.weights import check_weights
from catheters.runs.preproc import preproc
from catheters.runs.run import train_run
from catheters.runs.run_folder import only_process
from catheters.runs.stages import train_in_stages
from catheters.training.extensions.log import read_epochs
from tests.conftest import REPOSITORY, run_script
from tests.processes import Training, num_snapshots, outcome, start_ranks, train_with_ranks, wait_until

STAGES = (
    {"image_size": 32, "epochs": 2},
    {"image_size": 64, "epochs": 2, "init_lr": 3e-4, "warmup_epochs": 0, "cosine_epochs": 2, "mixup_alpha": 0.2},
)


@pytest.fixture
def staged(settings: Settings) -> Settings:
    """Settings of two stages, with the caches of both sizes."""
    settings = dataclasses.replace(settings, stages=STAGES, batch_size=8)
    preproc(settings)
    return settings


def weights_of(file: Path) -> dict[str, torch.Tensor]:
    return torch.load(file, weights_only=True)["model"]


def test_its_stages(settings: Settings) -> None:
    """Every stage is a run whose settings can be written down."""
    first, second = dataclasses.replace(settings, stages=STAGES, run_name="x").in_stages()
    folder = Path(settings.saved_models_folder) / "x"
    assert (first.run_folder, second.run_folder) == (folder / "stage1", folder)
    assert (first.image_size, second.image_size, second.init_lr) == (32, 64, 3e-4)
    assert (first.pretrained, first.pretrained_parts) == (False, "backbone")
    assert (second.pretrained, second.pretrained_parts) == (f"{folder}/stage1/fold{{fold}}/best.pt", "all")
    _, everything = dataclasses.replace(settings, stages=STAGES, run_name="x", all_data=True).in_stages()
    assert everything.pretrained == f"{folder}/stage1/seed{{seed}}/final.pt"
    assert settings.in_stages() == (settings,)


def test_caches_of_stages_need_no_run_name(settings: Settings) -> None:
    settings = dataclasses.replace(settings, stages=STAGES, run_name=None)
    assert preproc(settings).file == Path(settings.cache_folder) / "tiny_64.npy"
    assert (Path(settings.cache_folder) / "tiny_32.npy").is_file()


@pytest.mark.slow
def test_they_are_the_same_chained_by_hand(staged: Settings) -> None:
    """Bit for bit; each fold's second stage starts from all weights of its first one."""
    train_in_stages(staged, fresh=False)
    first = dataclasses.replace(staged, stages=(), run_name="first", **STAGES[0])
    train_run(first, fresh=False)
    second = dataclasses.replace(
        staged,
        stages=(),
        run_name="second",
        pretrained=f"{first.run_folder}/fold{{fold}}/best.pt",
        pretrained_parts="all",
        **STAGES[1],
    )
    train_run(second, fresh=False)
    assert outcome(staged.run_folder / "stage1") == outcome(first.run_folder)
    for fold in ("fold0", "fold1"):
        by_stages, by_hand = (weights_of(run.run_folder / fold / "best.pt") for run in (staged, second))
        assert by_stages.keys() == by_hand.keys()
        assert all(torch.equal(value, by_hand[name]) for name, value in by_stages.items())
    predictions = [(run.run_folder / "predictions.csv").read_text() for run in (staged, second)]
    assert predictions[0] == predictions[1]
    assert json.loads((staged.run_folder / "settings.json").read_text())["image_size"] == 64


@pytest.mark.slow
def test_a_run_killed_at_the_border_ends_as_if_it_had_not_been(
    staged: Settings, write_config: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    """Killed in the second stage, with the first one's folds finished; by the script, as a user has it."""
    staged = dataclasses.replace(staged, snapshot_iterations=1, folds=(0,))
    whole = dataclasses.replace(staged, run_name="whole")
    train_in_stages(whole, fresh=False)
    command = [sys.executable, str(REPOSITORY / "train.py"), "--config", str(write_config(staged))]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        fold = staged.run_folder / "fold0"
        while process.poll() is None and num_snapshots(fold) < 1:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    assert (staged.run_folder / "stage1/fold0/finished.json").is_file()
    assert not (staged.run_folder / "fold0/finished.json").is_file()
    done = run_script("train.py", "--config", write_config(staged))
    assert done.returncode == 0, done.stderr
    assert "fold 0: already trained, in " in done.stdout and "fold 0: resumes from its snapshot" in done.stdout
    for name in ("stage1/fold0/best.pt", "fold0/best.pt"):
        ended, expected = (weights_of(run.run_folder / name) for run in (staged, whole))
        assert all(torch.equal(value, expected[key]) for key, value in ended.items())


@pytest.mark.slow
def test_an_earlier_stage_stays_as_it_was(staged: Settings) -> None:
    """Once a later one has gone on from it; --fresh moves all aside."""
    staged = dataclasses.replace(staged, folds=(0,))
    train_in_stages(staged, fresh=False)
    longer = dataclasses.replace(staged, cosine_epochs=2, stages=({**STAGES[0], "epochs": 3}, STAGES[1]))
    with pytest.raises(UserError, match="stage1: fold 0 would be trained on, but stage 2 has gone on from it"):
        train_in_stages(longer, fresh=False)
    assert (staged.run_folder / "stage1/fold0/finished.json").is_file()
    train_in_stages(dataclasses.replace(staged, folds=(0, 1)), fresh=False)
    assert (staged.run_folder / "fold1/finished.json").is_file()
    train_in_stages(longer, fresh=True)
    aside = staged.run_folder.with_name("run.old1")
    assert (aside / "stage1/fold1/finished.json").is_file()
    assert not (staged.run_folder / "stage1/fold1").exists()


def test_all_parts_of_a_checkpoint(trained: Settings) -> None:
    """Every tensor but the grey values, which follow the new images."""
    file = trained.run_folder / "fold0/best.pt"
    settings = dataclasses.replace(trained, pretrained=str(file), pretrained_parts="all")
    model = build_classifier(settings, 0.25, 0.125)
    weights = weights_of(file)
    found = model.state_dict()
    assert found.keys() == weights.keys()
    assert (float(found["mean"]), float(found["std"])) == (0.25, 0.125)
    assert all(torch.equal(value, weights[name]) for name, value in found.items() if name not in ("mean", "std"))
    assert model.origin == (
        f"test_resnet: all {len(found)} tensors taken from {file}, but for the grey mean and standard deviation"
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label_columns": ("CVC - Normal", "ETT - Normal")}, r"predicts .*, not label_columns as they are here"),
        ({"backbone_model": "test_efficientnet"}, "is of another model: .* tensors differ from its"),
        ({"lines": "auxiliary", "annotation_table": "train_annotations.csv"}, "decoder.* is missing"),
    ],
)
def test_parts_of_another_model(trained: Settings, changes: dict[str, Any], message: str) -> None:
    file = trained.run_folder / "fold0/best.pt"
    settings = dataclasses.replace(trained, pretrained=str(file), pretrained_parts="all", **changes)
    with pytest.raises(UserError, match=message):
        build_classifier(settings, 0.25, 0.125)


def test_equal_shapes_of_another_meaning(cached: Settings) -> None:
    """Heads of as many labels each, but of others: every tensor would fit."""
    labels = cached.label_columns
    settings = dataclasses.replace(
        cached, classifier="attention", heads={"A": labels[:5], "B": labels[5:]}, epochs=1, folds=(0,)
    )
    train_run(settings, fresh=False)
    other = dataclasses.replace(
        settings,
        heads={"A": (*labels[:4], labels[10]), "B": labels[4:10]},
        pretrained=str(settings.run_folder / "fold0/best.pt"),
        pretrained_parts="all",
    )
    with pytest.raises(UserError, match="has heads="):
        build_classifier(other, 0.25, 0.125)


def test_another_programs_file_has_no_heads_of_ours(settings: Settings, tmp_path: Path) -> None:
    torch.save({"conv.weight": torch.zeros(3, 1, 3, 3)}, tmp_path / "theirs.pth")
    settings = dataclasses.replace(settings, pretrained=str(tmp_path / "theirs.pth"), pretrained_parts="all")
    with pytest.raises(UserError, match=r"theirs\.pth: is no checkpoint of this program"):
        build_classifier(settings, 0.25, 0.125)


def test_a_size_without_a_cache_is_said_before_anything_is_trained(cached: Settings) -> None:
    settings = dataclasses.replace(cached, stages=({"epochs": 1}, {"image_size": 48}))
    with pytest.raises(UserError, match=r"tiny_48\.npy.*preproc_npy\.py"):
        train_in_stages(settings, fresh=False)
    assert not settings.run_folder.exists()


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        ({"optimizer": "Adamm"}, "'Adamm'"),
        ({"loss_func": "bcee"}, "did you mean 'bce'"),
        ({"trackers": ("wandbb",)}, "did you mean 'wandb'"),
        ({"train_transforms": (("HorizontalFlipp", {}),)}, "did you mean 'HorizontalFlip'"),
        ({"teacher": "nowhere"}, "teacher=nowhere: no run folder"),
    ],
)
def test_a_mistake_in_a_later_stage_is_said_before_anything_is_trained(
    trained: Settings, stage: dict[str, Any], message: str
) -> None:
    """And before an earlier run is moved."""
    settings = dataclasses.replace(trained, stages=({}, stage))
    before = outcome(trained.run_folder)
    for fresh in (False, True):
        with pytest.raises(UserError, match=message):
            train_in_stages(settings, fresh=fresh)
    assert outcome(trained.run_folder) == before
    assert not (trained.run_folder / "stage1").exists()


def test_a_teacher_of_other_images_is_said_before_anything_is_trained(trained: Settings) -> None:
    """At the size of the stage that wants it; one that an earlier stage trains is looked at in its time."""
    teacher = str(trained.run_folder)
    settings = dataclasses.replace(trained, run_name="student", stages=({}, {"teacher": teacher, "image_size": 64}))
    preproc(settings)
    with pytest.raises(UserError, match=r"its images have image_size=\[32, 32\], here image_size=\[64, 64\]"):
        train_in_stages(settings, fresh=False)
    assert not settings.run_folder.exists()


@pytest.mark.slow
def test_an_earlier_stage_teaches_a_later_one(cached: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    teacher = f"{cached.run_folder}/stage1"
    settings = dataclasses.replace(cached, epochs=1, stages=({}, {"teacher": teacher}))
    train_in_stages(settings, fresh=False)
    assert f"probabilities of {teacher} -> " in capsys.readouterr().out
    assert (settings.run_folder / "fold1/finished.json").is_file()


def test_a_folder_that_the_last_stage_cannot_enter(trained: Settings, settings: Settings) -> None:
    """A run without stages, or somebody's files: said before the first stage is trained."""
    with pytest.raises(SettingsError, match="run: holds a run of other settings: pretrained was False, is 'stage1/"):
        train_in_stages(dataclasses.replace(trained, stages=({}, {})), fresh=False)
    assert not (trained.run_folder / "stage1").exists()
    other = dataclasses.replace(settings, run_name="other", stages=({}, {}))
    other.run_folder.mkdir()
    (other.run_folder / "thesis.tex").touch()
    with pytest.raises(UserError, match="other: holds files but no run"):
        train_in_stages(other, fresh=False)
    assert [path.name for path in other.run_folder.iterdir()] == ["thesis.tex"]


def test_a_run_that_another_process_trains_is_not_moved(trained: Settings) -> None:
    settings = dataclasses.replace(trained, stages=({}, {}))
    before = outcome(trained.run_folder)
    with (
        only_process(settings.run_folder),
        pytest.raises(UserError, match="another process is training this run"),
    ):
        train_in_stages(settings, fresh=True)
    assert outcome(trained.run_folder) == before
    assert not settings.run_folder.with_name("run.old1").exists()


@pytest.mark.slow
def test_no_other_process_enters_while_an_earlier_stage_is_trained(cached: Settings, tmp_path: Path) -> None:
    settings = dataclasses.replace(cached, folds=(0,), cosine_epochs=300, stages=({}, {}), snapshot_iterations=1)
    first = settings.in_stages()[0].run_folder / "fold0"
    training = Training(settings, tmp_path / "out")
    wait_until(lambda: num_snapshots(first) >= 1, training)
    try:
        for fresh in (False, True):
            with pytest.raises(UserError, match=r"run: another process is training this run"):
                train_in_stages(settings, fresh=fresh)
        assert not settings.run_folder.with_name("run.old1").exists()
    finally:
        training.kill()


@pytest.mark.slow
def test_ranks_start_over_together(staged: Settings, tmp_path: Path) -> None:
    """The other ranks look at the folder when the first one has moved it; without --fresh both refuse."""
    staged = dataclasses.replace(staged, folds=(0,), cosine_epochs=2)
    train_with_ranks(staged, tmp_path, 2)
    longer = dataclasses.replace(staged, stages=({**STAGES[0], "epochs": 3}, STAGES[1]))
    statuses = [training.wait() for training in start_ranks(longer, tmp_path, 2)]
    assert 0 not in statuses
    assert "would be trained on, but stage 2 has gone on from it" in (tmp_path / "out0").read_text()
    train_with_ranks(longer, tmp_path, 2, fresh=True)
    aside = staged.run_folder.with_name("run.old1")
    for folder, num_epochs in ((aside, 2), (longer.run_folder, 3)):
        assert len(read_epochs(folder / "stage1/fold0")) == num_epochs
        assert (folder / "fold0/finished.json").is_file()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_trackers_know_the_run_and_the_stage(cached: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow's store lies beside the run folder, as that of a run without stages."""
    pytest.importorskip("mlflow")
    from mlflow.tracking import MlflowClient

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    settings = dataclasses.replace(cached, folds=(0,), epochs=1, trackers=("mlflow",), stages=({}, {}))
    train_in_stages(settings, fresh=False)
    runs_folder = Path(settings.saved_models_folder)
    assert not list(settings.run_folder.glob("mlflow*"))
    client = MlflowClient(tracking_uri=f"sqlite:///{runs_folder.resolve() / 'mlflow.db'}")
    for number, run in enumerate(settings.in_stages(), start=1):
        experiment = client.get_experiment_by_name(f"run, stage {number}")
        assert experiment is not None
        (tracked,) = client.search_runs([experiment.experiment_id])
        assert (tracked.info.run_name, tracked.info.status) == ("fold 0", "FINISHED")
        assert tracked.data.params["run_name"] == run.run_name


@pytest.mark.slow
def test_files_beside_an_earlier_stage_are_passed_over(cached: Settings) -> None:
    """As MLflow's, which an earlier version put there."""
    settings = dataclasses.replace(cached, folds=(0,), epochs=1, stages=({}, {}))
    first, last = settings.in_stages()
    train_run(first, fresh=False)
    (settings.run_folder / "mlflow.db").touch()
    train_in_stages(settings, fresh=False)
    assert (last.run_folder / "fold0/finished.json").is_file()


@pytest.mark.slow
def test_a_run_that_was_moved_is_resumed(staged: Settings) -> None:
    """Under another name in another folder; its images in another folder too."""
    table = {"cache_name": "again", "dataset_folder": staged.dataset_folder}
    staged = dataclasses.replace(staged, folds=(0,), stages=({"epochs": 1}, {"epochs": 1}), extra_tables=(table,))
    preproc(staged)
    train_in_stages(staged, fresh=False)
    moved = dataclasses.replace(
        staged,
        folds=(0, 1),
        saved_models_folder=f"{staged.saved_models_folder}_moved",
        run_name="renamed",
        dataset_folder=f"{staged.saved_models_folder}_data",
        extra_tables=({**table, "dataset_folder": f"{staged.saved_models_folder}_data"},),
    )
    Path(moved.dataset_folder).symlink_to(staged.dataset_folder)
    moved.run_folder.parent.mkdir()
    staged.run_folder.rename(moved.run_folder)
    preproc(moved)
    train_in_stages(moved, fresh=False)
    assert (moved.run_folder / "stage1/fold1/finished.json").is_file()
    assert (moved.run_folder / "fold1/finished.json").is_file()


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([{"label_columns": ["a"]}], r"stages\[0\]: label_columns is the same in all stages; set it outside of them"),
        ([{}, {"derived_labels": {}}], r"stages\[1\]: derived_labels is the same in all stages"),
        ([{}, {"epoch": 2}], r"stages\[1\]: 'epoch' is not a setting; did you mean 'epochs'"),
        ([{}, {"epochs": 0}], r"stages\[1\]: epochs: 0 came"),
    ],
)
def test_stages_that_are_refused(settings: Settings, stages: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        dataclasses.replace(settings, stages=stages)
    with pytest.raises(SettingsError, match="pretrained_parts='all' needs pretrained, a checkpoint of the same model"):
        dataclasses.replace(settings, pretrained_parts="all")


@pytest.mark.slow
def test_folds_that_may_leak(cached: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What the settings allow is only warned of where a stage takes the weights of the one before."""
    frame = pd.read_csv(Path(cached.dataset_folder) / "train.csv", dtype=str)
    frame["fold"] = np.arange(len(frame)) % 2
    frame.to_csv(tmp_path / "leaking.csv", index=False)
    settings = dataclasses.replace(
        cached,
        label_table=str(tmp_path / "leaking.csv"),
        fold_column="fold",
        allow_leaking_folds=True,
        epochs=1,
        stages=[{}, {}],
    )
    train_in_stages(settings, fresh=False)
    assert (settings.run_folder / "fold0/finished.json").is_file()
    warnings = [line for line in capsys.readouterr().err.splitlines() if "its folds leak" in line]
    assert len(warnings) == 1
    assert warnings[0].startswith(f"warning: pretrained={settings.run_folder}/stage1/fold{{fold}}/best.pt: its folds")
    assert warnings[0].endswith("are in several; allow_leaking_folds=True")
    refused = dataclasses.replace(settings.in_stages()[1], allow_leaking_folds=False)
    with pytest.raises(UserError, match=r"its folds leak: .* are in several; train it on others"):
        check_weights(refused, load_data(settings))
