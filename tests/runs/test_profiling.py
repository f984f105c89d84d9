"""`profile=True`: a table and traces of where a step's time goes, and results that know nothing of it."""

import dataclasses
import gzip
import json
from pathlib import Path

import pytest

from catheters.config.settings import Settings
from catheters.runs.profiling import REST, WAITING
from catheters.runs.run import train_run
from catheters.training.step import PHASES
from tests.processes import outcome, train_with_ranks


@pytest.mark.slow
def test_profile_of_a_run(cached: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    settings = dataclasses.replace(cached, folds=(1,), epochs=1, augment_on="device", mixup_alpha=0.2, num_workers=1)
    train_run(dataclasses.replace(settings, run_name="plain"), fresh=False)
    capsys.readouterr()
    train_run(dataclasses.replace(settings, run_name="profiled", profile=True), fresh=False)
    said = capsys.readouterr()
    folder = settings.run_folder.with_name("profiled") / "profile"
    assert f"-> {folder}" in said.out
    assert (folder / "profile.txt").read_text().startswith("test_resnet, batches of 8 at 32 px, on the CPU, mean of 5")
    written = json.loads((folder / "profile.json").read_text())
    assert list(written) == ["with_loading", "without_loading"]
    for way in written.values():
        assert set(way["cpu_ms"]) == {WAITING, *PHASES.values(), REST}
        assert all(0 <= ms < way["profiled_ms_per_step"] for ms in way["cpu_ms"].values())
        assert way["gpu_busy_ms"] is None
        assert way["ms_per_step"] > 0
    for way in written:
        trace = json.loads(gzip.decompress((folder / f"{way}.json.gz").read_bytes()))
        names = [event.get("name", "") for event in trace["traceEvents"]]
        assert names.count(PHASES["forward"]) >= 5
        assert any(name.startswith("enumerate(DataLoader)") for name in names) == (way == "with_loading")
    plain, profiled = (settings.run_folder.with_name(name) for name in ("plain", "profiled"))
    assert (plain / "predictions.csv").read_bytes() == (profiled / "predictions.csv").read_bytes()
    train_run(dataclasses.replace(settings, run_name="plain", profile=True), fresh=False)
    assert "profile=True has no effect: every model of this run is trained" in capsys.readouterr().err
    assert not (plain / "profile").exists()


@pytest.mark.slow
@pytest.mark.parametrize("folds_parallel", [False, True])
def test_profile_of_several_ranks(cached: Settings, tmp_path: Path, folds_parallel: bool) -> None:
    """Rank 0 writes what its own steps took; the run's result is that without it."""
    settings = dataclasses.replace(cached, epochs=1, folds_parallel=folds_parallel)
    plain, profiled = (
        dataclasses.replace(settings, run_name=name, profile=name == "profiled") for name in ("plain", "profiled")
    )
    for each in (plain, profiled):
        (tmp_path / each.run_name).mkdir()
        train_with_ranks(each, tmp_path / each.run_name, 2)
    outputs = [(tmp_path / "profiled" / f"out{rank}").read_text() for rank in range(2)]
    folder = profiled.run_folder / "profile"
    assert [output.count(f"-> {folder}") for output in outputs] == [1, 0]
    written = json.loads((folder / "profile.json").read_text())
    assert all(way["ms_per_step"] > 0 for way in written.values())
    assert outcome(profiled.run_folder) == outcome(plain.run_folder)


@pytest.mark.slow
def test_profile_of_training_on_all_images(cached: Settings) -> None:
    settings = dataclasses.replace(cached, all_data=True, seeds=(3, 4), epochs=1)
    plain, profiled = (
        dataclasses.replace(settings, run_name=name, profile=name == "profiled") for name in ("plain", "profiled")
    )
    for each in (plain, profiled):
        train_run(each, fresh=False)
    assert (profiled.run_folder / "profile" / "profile.txt").exists()
    assert outcome(profiled.run_folder) == outcome(plain.run_folder)
