"""`profile=True`: a table and traces of where a step's time goes, and results that know nothing of it."""

import dataclasses
import gzip
import json

import pytest

from catheters.settings import Settings
from catheters.training.profiling import REST, WAITING
from catheters.training.run import train_run
from catheters.training.step import PHASES


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
        assert sum(way["cpu_ms"].values()) == pytest.approx(way["profiled_ms_per_step"])
        assert all(0 <= ms < way["profiled_ms_per_step"] for ms in way["cpu_ms"].values())
        assert way["gpu_busy_ms"] is None
        assert way["ms_per_step"] > 0
    assert written["without_loading"]["cpu_ms"][WAITING] < written["with_loading"]["cpu_ms"][WAITING]
    for way in written:
        trace = json.loads(gzip.decompress((folder / f"{way}.json.gz").read_bytes()))
        names = [event.get("name") for event in trace["traceEvents"]]
        assert names.count(PHASES["forward"]) >= 5
    plain, profiled = (settings.run_folder.with_name(name) for name in ("plain", "profiled"))
    assert (plain / "predictions.csv").read_bytes() == (profiled / "predictions.csv").read_bytes()
