"""Trackers: what MLflow and Weights & Biases hold after a run that was resumed, and trackers that are away."""

import dataclasses
import json
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from catheters.config.settings import Settings
from catheters.errors import SettingsError
from catheters.runs.run import train_run
from catheters.training.extensions.log import read_epochs
from tests.processes import outcome


@pytest.fixture
def short(cached: Settings) -> Settings:
    return dataclasses.replace(cached, folds=(1,), cosine_epochs=3, epochs=2, early_stop=0)


@pytest.fixture
def no_mlflow_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    yield


def folder_of(settings: Settings) -> Path:
    return settings.run_folder / "fold1"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_mlflow_resumes_the_run(short: Settings, no_mlflow_server: None) -> None:
    """Settings, provenance, each epoch's scores and the curves, in one run, although two processes' work is in it."""
    pytest.importorskip("mlflow")
    from mlflow.tracking import MlflowClient

    settings = dataclasses.replace(short, trackers=("mlflow",))
    train_run(settings, fresh=False)
    train_run(dataclasses.replace(settings, epochs=4), fresh=False)
    client = MlflowClient(tracking_uri=f"sqlite:///{Path(settings.saved_models_folder).resolve() / 'mlflow.db'}")
    experiment = client.get_experiment_by_name(settings.run_folder.name)
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.run_name, run.info.status) == ("fold 1", "FINISHED")
    assert run.data.params["backbone_model"] == "test_resnet"
    assert run.data.params["init_lr"] == str(settings.init_lr)
    log = read_epochs(folder_of(settings))
    for name in ("val/macro_auc", "val/auc/CVC - Normal", "val/loss"):
        history = sorted(client.get_metric_history(run.info.run_id, name), key=lambda metric: metric.step)
        assert [metric.step for metric in history] == [entry["iteration"] for entry in log]
        assert [metric.value for metric in history] == [entry[name] for entry in log]
    assert {"curves.png", "environment.json"} == {item.path for item in client.list_artifacts(run.info.run_id)}
    environment = json.loads(Path(client.download_artifacts(run.info.run_id, "environment.json")).read_text())
    assert environment["versions"]["torch"]


def leveldb_records(content: bytes) -> Iterator[bytes]:
    """The records of a log in LevelDB's format, in which W&B writes behind seven bytes of its own.

    Blocks of 32 KiB hold parts with a CRC, a length and a type: whole, first, middle, last.
    """
    position, parts = 7, b""
    while position + 7 <= len(content):
        if 32768 - position % 32768 < 7:
            position += 32768 - position % 32768
            continue
        length, kind = struct.unpack_from("<HB", content, position + 4)
        parts += content[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):
            yield parts
            parts = b""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_weights_and_biases_resumes_the_run(short: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Offline: two files of one id, whose records are those of the log."""
    pytest.importorskip("wandb")
    from wandb.proto import wandb_internal_pb2

    monkeypatch.delenv("WANDB_MODE", raising=False)
    settings = dataclasses.replace(short, trackers=("wandb",))
    train_run(settings, fresh=False)
    train_run(dataclasses.replace(settings, epochs=4), fresh=False)
    files = sorted(folder_of(settings).glob("wandb/offline-run-*/run-*.wandb"))
    known = json.loads((folder_of(settings) / "trackers.json").read_text())["wandb"]
    assert [file.stem for file in files] == [f"run-{known}"] * 2
    shown: list[dict[str, Any]] = []
    for file in files:
        for data in leveldb_records(file.read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            if record.HasField("history"):
                items = record.history.item
                shown.append({item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items})
    log = read_epochs(folder_of(settings))
    scored = [entry for entry in shown if "val/macro_auc" in entry]
    assert [entry["iteration"] for entry in scored] == [entry["iteration"] for entry in log]
    assert [entry["val/auc/CVC - Normal"] for entry in scored] == [entry["val/auc/CVC - Normal"] for entry in log]
    assert any(key.startswith("curves") for entry in shown for key in entry)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_server_that_is_away_costs_a_warning(
    short: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody listens on that port; the run's result is that of one without a tracker."""
    pytest.importorskip("mlflow")
    train_run(dataclasses.replace(short, run_name="without"), fresh=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    settings = dataclasses.replace(short, trackers=("mlflow",))
    capsys.readouterr()
    train_run(settings, fresh=False)
    warnings = [line for line in capsys.readouterr().err.splitlines() if "mlflow does not take" in line]
    assert len(warnings) == 1
    assert warnings[0].startswith("warning: fold 1: mlflow does not take what the log says (")
    assert warnings[0].endswith(f"training continues, and {folder_of(settings) / 'log.jsonl'} has it all")
    without = Path(settings.saved_models_folder) / "without"
    assert outcome(settings.run_folder) == outcome(without)


def test_a_tracker_that_is_not_installed_costs_a_warning(
    short: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)  # what Python itself keeps of a package that is not there
    train_run(dataclasses.replace(short, trackers=("wandb",)), fresh=False)
    errors = capsys.readouterr().err
    assert "warning: fold 1: wandb does not take what the log says (" in errors
    assert "pip install" in errors
    assert (folder_of(short) / "predictions.csv").exists()


def test_unknown_trackers_are_named(short: Settings) -> None:
    with pytest.raises(SettingsError, match=r"trackers: .*did you mean 'wandb'"):
        train_run(dataclasses.replace(short, trackers=("wandbb",)), fresh=False)
    with pytest.raises(SettingsError, match="trackers names 'wandb' twice"):
        train_run(dataclasses.replace(short, trackers=["wandb", "wandb"]), fresh=False)
    assert not short.run_folder.exists()
