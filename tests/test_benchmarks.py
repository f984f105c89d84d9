"""The benchmarks: what their ratios mean, and that `make bench` runs them all and writes what it says."""

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.conftest import REPOSITORY, load_benchmark


@pytest.fixture
def rows() -> ModuleType:
    """benchmarks/rows.py, which is no part of a package."""
    return load_benchmark("rows")


def test_ratios_by_hand(rows: ModuleType) -> None:
    """Rounds of 1, 2 and 4 s beside 2, 2 and 2 s: 2, 1 and 0.5 times as fast."""
    row = rows.compare_seconds("b", "w", [1.0, 2.0, 4.0], "r", [2.0, 2.0, 2.0], each=10, at_least=0.97)
    assert (row.ratio, row.quartiles, row.rounds) == (1.0, (0.75, 1.5), 3)
    assert (row.value, row.reference_value) == (200.0, 200.0)  # milliseconds each
    assert row.is_reached
    assert not rows.compare_seconds("b", "w", [1.0], "r", [0.9], at_least=0.97).is_reached
    size = rows.compare_sizes("b", "w", [11.0], "r", [10.0], unit="MB", at_most=1.05)
    assert size.ratio == pytest.approx(1.1)
    assert size.quartiles == (size.ratio, size.ratio)
    assert not size.is_reached
    lines = rows.table_lines([row, size])
    assert len(lines) == 3
    assert lines[2].endswith("<= 1.05  missed")


def test_rows_are_read_as_they_were_written(rows: ModuleType, tmp_path: Path) -> None:
    options = rows.create_parser(None).parse_args(["--json", str(tmp_path / "rows.json")])
    written = [
        rows.compare_seconds("b", "w", [1.0, 2.0], "r", [2.0, 2.0], at_least=0.97),
        rows.compare_sizes("b", "w", [11.0], "r", [10.0], unit="MB"),
    ]
    assert rows.finish(written, options) == 0
    assert rows.read_rows((tmp_path / "rows.json").read_text()) == written


@pytest.mark.slow
def test_every_benchmark_runs(tmp_path: Path) -> None:
    """At sizes that say nothing; the numbers stand in the JSON as on the page, and each has its figure."""
    page = tmp_path / "performance.md"
    arguments = ["--quick", "--host", "here", "--results", str(tmp_path), "--page", str(page)]
    done = subprocess.run(
        [sys.executable, "benchmarks/bench.py", *arguments],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "here.json").read_text())
    names = list(results)
    rows = [row for benchmark in results.values() for row in benchmark["rows"]]
    assert names == sorted(
        names,
        key=[
            "preproc",
            "resizing",
            "loading",
            "step",
            "heads",
            "lines",
            "waiting",
            "end_to_end",
            "memory",
            "evaluation",
            "prediction",
            "export",
        ].index,
    )
    assert len(names) == 12
    text = page.read_text()
    for row in rows:
        assert row["value"] > 0
        assert row["quartiles"][0] <= row["ratio"] <= row["quartiles"][1]
        assert f"| {row['what']} | " in text
    for name in names:
        assert (tmp_path / "performance" / f"{name}.svg").read_text().startswith("<?xml")
        assert f"(performance/{name}.svg)" in text
    assert ("**Not measured: a GPU.**" in text) == (not results["end_to_end"]["hardware"]["gpus"])
    # Made again of the same results, without measuring, the page is the same.
    done = subprocess.run(
        [sys.executable, "benchmarks/bench.py", *arguments, "--page-only"],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        check=True,
    )
    assert page.read_text() == text
