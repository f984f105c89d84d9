"""What may change when a run is resumed."""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from catheters.config.compatibility import MAY_CHANGE, MAY_GROW, check_same_settings
from catheters.config.settings import Settings
from catheters.errors import SettingsError, UserError
from catheters.io.run_record import read_record, write_record
from catheters.runs.provenance import describe_environment
from catheters.runs.run import train_run
from catheters.runs.run_folder import enter_run_folder
from catheters.training.extensions.log import read_epochs

HARMLESS = {
    "folds": (0,),
    "seeds": None,
    "num_workers": 3,
    "valid_batch_size": 5,
    "device": "cpu",
    "cache_folder": "elsewhere",
    "dataset_folder": "elsewhere",
    "annotation_table": "lines.csv",
    "landmark_table": "points.csv",
    "first_stage": None,
    "teacher": "saved_models/other",
    "saved_models_folder": "elsewhere",
    "run_name": "renamed",
    "snapshot_minutes": None,
    "snapshot_iterations": 7,
    "folds_parallel": True,
    "channels_last": True,
    "compile_mode": "default",
    "profile": True,
    "lr_batch_size": 7,
    "trackers": ("tensorboard",),
}


def test_harmless_changes() -> None:
    assert HARMLESS.keys() == set(MAY_CHANGE)
    check_same_settings(Settings(), Settings(**HARMLESS), "here")
    check_same_settings(*(Settings(lines="input", first_stage=name) for name in ("here", "moved")), "here")


def test_names_in_extra_tables() -> None:
    """Content of tables, images and lines is in the data's fingerprint; how they are read is compared."""
    table = {"cache_name": "other", "dataset_folder": "here", "annotation_table": "lines.csv"}
    moved = {**table, "dataset_folder": "there", "annotation_table": "renamed.csv"}
    check_same_settings(Settings(extra_tables=[table]), Settings(extra_tables=[moved]), "x")
    for other in ([{**table, "weight": 0.5}], [{**table, "uid_column": "id"}], []):
        with pytest.raises(SettingsError, match="extra_tables was "):
            check_same_settings(Settings(extra_tables=[table]), Settings(extra_tables=other), "x")


@pytest.mark.parametrize("kind", [{}, {"all_data": True}, {"debug": True}])
def test_stages_in_a_folder_that_was_moved(kind: dict[str, Any]) -> None:
    """The weights of the stage before are named from the run folder; other files are what they are."""
    settings = Settings(stages=[{}, {}, {}], run_name="x", **kind)
    moved = dataclasses.replace(settings, saved_models_folder="elsewhere", run_name="renamed")
    runs, moved_runs = settings.in_stages(), moved.in_stages()
    for run, of_moved in zip(runs, moved_runs, strict=True):
        check_same_settings(run, of_moved, "x")
    with pytest.raises(SettingsError, match=r"pretrained was 'stage1.*', is 'stage2"):
        check_same_settings(runs[1], dataclasses.replace(moved_runs[1], pretrained=moved_runs[2].pretrained), "x")


def test_weights_of_another_run_are_named_in_full() -> None:
    """Beside the run folder, or in another run's stages: which run it is does matter."""
    for file in ("a/other/fold{fold}/best.pt", "a/other/stage1/fold{fold}/best.pt", "a/stage1/fold{fold}/best.pt"):
        run = Settings(saved_models_folder="a", run_name="x", pretrained=file)
        moved = Settings(saved_models_folder="b", run_name="x", pretrained=file.replace("a/", "b/", 1))
        with pytest.raises(SettingsError, match=f"pretrained was '{re.escape(file)}', is 'b/"):
            check_same_settings(run, moved, "here")


def test_the_same_folds_by_another_name() -> None:
    check_same_settings(Settings(seed=3), Settings(seed=3, fold_seed=3), "here")
    check_same_settings(Settings(seed=3, fold_seed=3), Settings(seed=3), "here")


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["AdamW", "SGD"])
def test_a_run_is_resumed_in_another_layout(cached: Settings, optimizer: str) -> None:
    """What the optimizer remembers follows the weights: else fused kernels would apply it to others."""
    params = {"momentum": 0.9} if optimizer == "SGD" else {}
    settings = dataclasses.replace(
        cached,
        optimizer=optimizer,
        optimizer_params=params,
        init_lr=0.01,
        folds=(1,),
        cosine_epochs=3,
        backbone_model="test_convnext",
    )
    losses = []
    for name, layouts in (("same", (False, False)), ("other", (False, True)), ("back", (True, False))):
        for number, layout in enumerate(layouts):
            changes = {"channels_last": layout, "run_name": name, "epochs": 2 * number + 2}
            train_run(dataclasses.replace(settings, **changes), fresh=False)
        log = read_epochs(settings.run_folder.with_name(name) / "fold1")
        losses.append([entry["train/loss"] for entry in log])
    assert len(losses[0]) == 4
    for other in losses[1:]:
        assert other == pytest.approx(losses[0], rel=1e-3)


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"batch_size": 6}, "batch_size was 12, is 6"),
        ({"seed": 1}, "seed was 0, is 1"),
        ({"fold_seed": 1}, "fold_seed was None, is 1"),
        ({"seed": 1, "fold_seed": 0}, "seed was 0, is 1"),
        ({"cosine_epochs": 30}, "cosine_epochs was 20, is 30"),
        ({"deterministic": False}, "deterministic was True, is False"),
        ({"epochs": 20}, "epochs were 21, are 20, and may not become fewer"),
        ({"early_stop": 4}, "early_stop was 5, is 4, and may not become less"),
        ({"image_size": 512, "loss_func": "focal"}, "image_size was 1024, is 512; loss_func was 'bce', is 'focal'"),
    ],
)
def test_changes_that_are_refused(changes: dict[str, object], part: str) -> None:
    with pytest.raises(SettingsError) as error:
        check_same_settings(Settings(), Settings(**changes), "saved_models/x: holds a run")
    assert str(error.value) == (
        f"saved_models/x: holds a run of other settings: {part}; set them as they were, choose another "
        "run_name, or --fresh to start over"
    )


def test_what_may_grow() -> None:
    earlier = Settings(epochs=5, early_stop=3)
    assert set(MAY_GROW) == {"epochs", "early_stop"}
    for grown in (Settings(epochs=7, early_stop=3), Settings(epochs=5, early_stop=0), Settings(early_stop=4)):
        check_same_settings(earlier, grown, "here")
    with pytest.raises(SettingsError, match="early_stop was 0, is 9"):
        check_same_settings(Settings(early_stop=0), Settings(early_stop=9), "here")


@pytest.mark.slow
def test_a_run_is_resumed_under_another_environment(cached: Settings) -> None:
    """Each one is kept, once."""
    settings = dataclasses.replace(cached, folds=(1,), epochs=1)
    train_run(settings, fresh=False)
    train_run(settings, fresh=False)
    fingerprint, environments = read_record(settings.run_folder)
    assert environments == [describe_environment(torch.device("cpu"), 1)]
    assert environments[0]["versions"].keys() >= {"catheters", "torch", "timm", "albumentations", "numpy"}
    write_record(settings.run_folder, fingerprint, [{**environments[0], "python": "3.9.0"}])
    train_run(settings, fresh=False)
    assert [environment["python"] for environment in read_record(settings.run_folder)[1]] == [
        "3.9.0",
        environments[0]["python"],
    ]


def test_other_annotations_are_refused(cached: Settings, tmp_path: Path) -> None:
    """Their content is compared, not their name; a run of an earlier version, or without any, is resumed."""
    lines = tmp_path / "lines.csv"
    lines.write_text("a")
    with_lines = dataclasses.replace(cached, annotation_table=str(lines))
    environment = {"versions": {}, "command": "train.py"}

    def enter(settings: Settings) -> dict[str, object]:
        enter_run_folder(settings, "data", describe_environment(torch.device("cpu"), 1) | environment)
        content: dict[str, object] = json.loads((settings.run_folder / "environment.json").read_text())
        return content

    assert enter(cached)["annotations_sha256"] is None
    (cached.run_folder / "fold0").mkdir()
    (cached.run_folder / "fold0" / "best.pt").touch()  # now it holds a run
    # The SHA-256 of "a" by FIPS 180-2
    expected = "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"
    assert enter(with_lines)["annotations_sha256"] == expected
    assert enter(cached)["annotations_sha256"] == expected
    renamed = dataclasses.replace(cached, annotation_table=str(lines.rename(tmp_path / "renamed.csv")))
    assert enter(renamed)["annotations_sha256"] == expected
    (tmp_path / "renamed.csv").write_text("b")
    with pytest.raises(UserError, match="was started with another content of annotation_table; restore it"):
        enter(renamed)
    record = cached.run_folder / "environment.json"
    content = json.loads(record.read_text())
    del content["annotations_sha256"]
    record.write_text(json.dumps(content))
    assert enter(renamed)["annotations_sha256"] not in (None, expected)
