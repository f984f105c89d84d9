"""Files that the program wrote itself and that are damaged now: one line each, or rebuilt with a word."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from catheters.checkpoints.checkpoint import load_checkpoint
from catheters.checkpoints.parts import build_preprocessing
from catheters.checkpoints.snapshots import read_progress
from catheters.config.loading import read_run_settings, settings_from_json, settings_to_json
from catheters.config.settings import Settings
from catheters.data.cache.cache import open_cache
from catheters.data.cache.writer import build_cache
from catheters.data.tables.label_table import read_label_table
from catheters.errors import SettingsError, UserError
from catheters.evaluation.calibration import read_calibrator
from catheters.evaluation.ensemble import read_ensemble_spec
from catheters.evaluation.thresholds import read_thresholds
from catheters.inference.loading import read_models
from catheters.io.npy_files import open_npy
from catheters.io.run_record import read_record
from catheters.runs.build import build_table_source
from catheters.training.extensions.log import read_epochs

DAMAGES: dict[str, bytes] = {
    "empty": b"",
    "UTF-16": '{"format_version": 1}'.encode("utf-16"),
    "cut": b'{"format_version": 1, "ma',
    "nested": b"[" * 100_000,
    "no dict": b"[1, 2]",
    "NaN": b'{"format_version": NaN}',
    "1e400": b'{"format_version": 1e400}',
    "10**400": b'{"format_version": 1' + 400 * b"0" + b"}",
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("settings.json", read_run_settings),
        ("environment.json", lambda file: read_record(file.parent)),
        ("calibration.json", read_calibrator),
        ("ensemble.json", read_ensemble_spec),
        ("metrics.json", read_thresholds),
    ],
)
def test_one_line(tmp_path: Path, name: str, read: Callable[[Path], object], damage: str) -> None:
    file = tmp_path / name
    file.write_bytes(DAMAGES[damage])
    with pytest.raises(UserError) as error:
        read(file)
    assert str(error.value).startswith(str(file))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("damage", DAMAGES)
def test_progress_that_cannot_be_read_is_none(tmp_path: Path, damage: str) -> None:
    (tmp_path / "last" / "000001").mkdir(parents=True)
    (tmp_path / "last" / "000001" / "progress.json").write_bytes(DAMAGES[damage])
    assert read_progress(tmp_path) is None


@pytest.mark.parametrize("damage", DAMAGES)
def test_lines_of_a_log(tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: str) -> None:
    """The others are read; the damaged one is named."""
    whole = [{"kind": "epoch", "epoch": n, "train/loss": 0.5, "lr": 1e-3, "speed": {}} for n in (1, 2)]
    lines = [json.dumps(entry).encode() for entry in whole]
    between = DAMAGES[damage].replace(b"\n", b" ") or b"{"
    (tmp_path / "log.jsonl").write_bytes(b"\n".join([lines[0], between, lines[1]]))
    assert read_epochs(tmp_path) == whole
    assert f"{tmp_path / 'log.jsonl'}: line 2 is damaged" in capsys.readouterr().err


def test_a_log_that_is_gone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert read_epochs(tmp_path) == []
    assert "log.jsonl: cannot be read (No such file or directory)" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["zip", "text", "pickle", "short"])
def test_what_is_no_npy(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "c.npy"
    array = np.zeros((4, 8, 8), dtype=np.uint8)
    if kind == "zip":
        np.savez(tmp_path / "c", images=array)
        (tmp_path / "c.npz").rename(file)
    elif kind == "pickle":
        np.save(file, np.array([{}, None], dtype=object), allow_pickle=True)
    else:
        np.save(file, array)
        file.write_bytes(b"text" if kind == "text" else file.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"c\.npy: damaged, or no \.npy file \("):
        open_npy(file)


def test_a_zip_in_place_of_the_cache(cached: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    """Training refuses it in one line; a build replaces it."""
    table, preprocessing = read_label_table(build_table_source(cached)), build_preprocessing(cached)
    before = cached.cache_file.read_bytes()
    np.savez(cached.cache_file.with_suffix(""), images=np.zeros(3))
    cached.cache_file.with_suffix(".npz").replace(cached.cache_file)
    with pytest.raises(UserError, match=r"damaged, or no \.npy file .*; run preproc_npy\.py"):
        open_cache(cached.cache_file, table, preprocessing)
    build_cache(table, cached.cache_file, preprocessing)
    assert cached.cache_file.read_bytes() == before
    assert "nothing is taken over from it" in capsys.readouterr().err


def test_settings_of_another_version(evaluated_run: Path, tmp_path: Path) -> None:
    """In a run folder and in a checkpoint; a setting that this version lacks is not taken for a typing error."""
    run = tmp_path / "run"
    shutil.copytree(evaluated_run, run)
    record = json.loads((run / "environment.json").read_text())
    record["environments"][-1]["versions"]["catheters"] = "9.8.7"
    (run / "environment.json").write_text(json.dumps(record))
    settings = json.loads((run / "settings.json").read_text())
    (run / "settings.json").write_text(json.dumps({**settings, "pos_weights": 1.0}))
    content = torch.load(run / "fold0" / "best.pt", weights_only=True)
    content["settings"] = json.dumps({**json.loads(content["settings"]), "pos_weights": 1.0})
    content["environment"]["versions"]["catheters"] = "9.8.7"
    torch.save(content, tmp_path / "best.pt")
    said = r"written by version 9\.8\.7 of the program, this is version \S+: it has the setting 'pos_weights'"
    with pytest.raises(SettingsError, match=said):
        read_models([run])
    with pytest.raises(SettingsError, match=said):
        load_checkpoint(tmp_path / "best.pt")


def test_settings_of_an_unknown_version() -> None:
    text = json.dumps({**json.loads(settings_to_json(Settings())), "pos_weights": 1.0})
    with pytest.raises(SettingsError, match=r"^here: written by another version of the program, this is version "):
        settings_from_json(text, "here")
