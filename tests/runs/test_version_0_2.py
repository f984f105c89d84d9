"""What version 0.2.0 made still serves: its cache, runs, snapshot, checkpoints, evaluation and ensemble.

`version_0_2_0.tar.xz` was made by it: 24 synthetic X-rays of 64 px, their cache at 16 px, two runs of two folds and two
epochs, evaluated alone and as an ensemble with fitted weights, and the predictions of a test image. So that it is
small, the backbone's weights are constant (trained at a learning rate of 1e-30 from `w.pth`); figures were removed.
"""

import dataclasses
import json
import os
import tarfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from catheters.checkpoints.parts import build_preprocessing
from catheters.commands.evaluation_options import main as evaluate
from catheters.commands.predict import main as predict
from catheters.config.loading import read_run_settings
from catheters.config.settings import Settings
from catheters.data.cache.cache import open_cache
from catheters.data.tables.label_table import read_label_table
from catheters.inference.loading import read_models
from catheters.runs.build import build_table_source
from catheters.runs.run import train_run

LABELS = ["CVC - Normal", "CVC - Abnormal"]


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Where it lies from now on, and the settings of its first run."""
    with tarfile.open(Path(__file__).with_name("version_0_2_0.tar.xz")) as archive:
        # By attribute: Python 3.11.2, which Debian 12 has, knows no such argument yet.
        archive.extraction_filter = getattr(tarfile, "data_filter", None)
        archive.extractall(tmp_path)
    monkeypatch.chdir(tmp_path)
    index = json.loads(Path("cache/tiny_16.json").read_text())
    for entry in index["content"]["rows"]:  # archives keep no nanoseconds
        os.utime(entry["file"], ns=(entry["mtime_ns"], entry["mtime_ns"]))
    return read_run_settings(Path("saved_models/run/settings.json"))


@pytest.mark.parametrize("name", ["run", "ensemble"])
def test_it_predicts_the_same(made: Settings, name: str) -> None:
    """To what one float32 is worth on another machine."""
    arguments = ["--model", f"saved_models/{name}", "dataset/test", "--out", "now.csv", "--device", "cpu"]
    assert predict(arguments) == 0
    before, now = pd.read_csv(f"predicted_by_{name}.csv"), pd.read_csv("now.csv")
    np.testing.assert_allclose(now[LABELS], before[LABELS], atol=1e-5)


def test_its_cache_is_up_to_date(made: Settings) -> None:
    table = read_label_table(build_table_source(made))
    cache = open_cache(made.cache_file, table, build_preprocessing(made))
    assert cache.images.shape == (24, 16, 16)
    assert not cache.failed
    cache.check_pixels(range(24))


def test_its_runs_are_finished(made: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    before = Path("saved_models/run/predictions.csv").read_bytes()
    train_run(made, fresh=False)
    assert capsys.readouterr().out.count("already trained") == 2
    assert Path("saved_models/run/predictions.csv").read_bytes() == before
    assert len(read_models([Path("saved_models/run")]).checkpoints) == 2


def test_its_run_is_made_longer_from_its_snapshot(made: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    train_run(dataclasses.replace(made, folds=(1,), epochs=3), fresh=False)
    said = capsys.readouterr().out
    assert "fold 1: was trained for 2 epochs" in said
    assert "after epoch 2 of 3" in said
    (checkpoint,) = read_models([Path("saved_models/run")]).checkpoints  # of the folds that were asked for last
    assert checkpoint.feature_space is None  # too few images


@pytest.mark.slow
def test_its_runs_are_evaluated(made: Settings) -> None:
    assert evaluate(["saved_models/run", "saved_models/other", "--out", "now"]) == 0
    assert Path("now/other/metrics.json").is_file()
