"""compare.py, as a user runs it: killed, shared, failing, refused."""

import dataclasses
import json
import os
import random
import signal
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from catheters.commands import compare as compare_command
from catheters.commands.compare_options import main
from catheters.config.loading import config_text
from catheters.config.settings import Settings
from tests.conftest import assert_user_error, run_script
from tests.processes import Command, wait_until

VARIANTS = """\
base = "tiny.py"
variants = {"slow": {"init_lr": 1e-5}, "flip": {"train_transforms": (("HorizontalFlip", {"p": 0.9}),)}}
"""
assert compare_command, "what forks are born with need not be imported by each"
KILLS = (os.killpg, os.kill, os.killpg)
"""The whole group, or compare.py alone: what it trains is then finished by an orphan."""


@pytest.fixture
def variants(cached: Settings, tmp_path: Path) -> Path:
    """A file of three variants, whose images are cached."""
    short = dataclasses.replace(cached, cosine_epochs=0, run_name=None)
    (tmp_path / "tiny.py").write_text(config_text(short))
    file = tmp_path / "variants.py"
    file.write_text(VARIANTS)
    return file


def command_of(variants: Path, name: str) -> list[str]:
    return [str(variants), "--seeds", "0", "--folds", "0", "--name", name]


def start(arguments: list[str], output: Path) -> Command:
    """In a process group of its own."""
    return Command(lambda _: main(arguments), output, in_group=True)


def lines_in(folder: Path) -> int:
    """How much has happened in a comparison, by what is written."""
    files = [folder / "jobs.journal", *folder.glob("logs/*.log"), *folder.glob("*/fold0/log.jsonl")]
    return sum(file.read_bytes().count(b"\n") for file in files if file.is_file())


def table_of(text: str) -> list[str]:
    """The last lines, from the table of the labels on: without the cost, and names of folders."""
    lines = text.splitlines()
    start_line = next(number for number, line in enumerate(lines) if line.startswith("ROC AUC, difference"))
    return [line for line in lines[start_line:] if " -> " not in line]


@pytest.mark.slow
def test_killed_three_times_it_ends_with_the_same_table(cached: Settings, variants: Path, tmp_path: Path) -> None:
    """At random moments, then by Ctrl-C; two processes at once finish it."""
    runs = Path(cached.saved_models_folder)
    whole = run_script("compare.py", *command_of(variants, "whole"))
    assert whole.returncode == 0, whole.stderr
    assert "3 of 3 jobs done" in whole.stderr

    folder, rng = runs / "killed", random.Random(0)
    for number, kill in enumerate(KILLS):
        process = start(command_of(variants, "killed"), tmp_path / f"output{number}")
        num_lines = lines_in(folder) + rng.randrange(1, 8)
        wait_until(lambda: lines_in(folder) >= num_lines, process)  # noqa: B023
        kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL

    process = start(command_of(variants, "killed"), tmp_path / "interrupted")
    wait_until(lambda: "at a time" in process.text, process)
    process.signal(signal.SIGINT)
    assert process.wait() == 128 + signal.SIGINT
    assert process.text.splitlines()[-1] == "stopped by Ctrl-C: the same command resumes where it stopped"

    both = [start(command_of(variants, "killed"), tmp_path / f"both{number}") for number in range(2)]
    assert [one.wait() for one in both] == [0, 0], both[0].text + both[1].text
    for one in both:
        assert table_of(one.text) == table_of(whole.stdout)
    for name in ("comparison.csv", "base_seed0/predictions.csv", "slow_seed0/fold0/predictions.csv"):
        name = name.replace("base_", "tiny_")
        assert (folder / name).read_bytes() == (runs / "whole" / name).read_bytes()
    found, expected = (json.loads((of / "comparison.json").read_text()) for of in (folder, runs / "whole"))
    for content in (found, expected):
        for variant in content["variants"]:
            assert variant.pop("cost")["epochs"] == 1
    assert {**found, "name": "", "inputs": {}} == {**expected, "name": "", "inputs": {}}
    page = (folder / "comparison.html").read_text()
    assert "<strong>Synthetic data.</strong>" in page
    assert page.count("data:image/svg+xml;base64,") == 5  # macro, two of labels, seeds, curves
    assert "not a medical device" in page

    # Those that end at the same moment write one report.
    (folder / "comparison.json").unlink()
    four = [start(command_of(variants, "killed"), tmp_path / f"four{number}") for number in range(4)]
    assert [one.wait() for one in four] == [0] * 4, "".join(one.text for one in four)
    assert [table_of(one.text) for one in four] == [table_of(whole.stdout)] * 4

    # What is finished prints its table and trains nothing; a training that fails leaves the others.
    written = (folder / "comparison.html").stat().st_mtime_ns
    again = run_script("compare.py", *command_of(variants, "killed"))
    assert again.returncode == 0
    assert table_of(again.stdout) == table_of(whole.stdout)
    assert (folder / "comparison.html").stat().st_mtime_ns == written
    variants.write_text(VARIANTS.replace('"flip"', '"broken": {"init_lr": 1e30}, "flip"'))
    failed = run_script("compare.py", *command_of(variants, "killed"))
    assert failed.returncode == 1, failed.stderr
    assert "warning: broken, seed 0, fold 0: failed: " in failed.stderr
    assert "1 job failed:\n  broken, seed 0, fold 0: " in failed.stdout
    assert set(pd.read_csv(folder / "comparison.csv")["variant"]) == {"slow", "flip"}
    variants.write_text(VARIANTS.replace("1e-5", "1e-4"))
    assert_user_error(
        run_script("compare.py", *command_of(variants, "killed")),
        f"{folder / 'slow_seed0'}: holds a run of other settings: init_lr was 1e-05, is 0.0001",
    )


def refuse(arguments: list[str | Path], *parts: str) -> None:
    assert_user_error(run_script("compare.py", *arguments), *parts)


@pytest.mark.slow
def test_mistakes_are_one_line(cached: Settings, variants: Path, write_config: Callable[[Settings], Path]) -> None:
    folder = Path(cached.saved_models_folder)
    tiny = variants.with_name("tiny.py")
    refuse(["sample"], "one variant alone")
    refuse(
        [tiny, write_config(dataclasses.replace(cached, num_folds=3))], "tiny_config: num_folds is 3", "of tiny is 2"
    )
    refuse([variants, "--folds", "2"], "--folds 2: there are the folds 0 to 1")
    refuse([variants, "cache_name=absent"], "no such image cache", "run preproc_npy.py")
    refuse([variants, "imagesize=1"], "did you mean 'image_size'?")
    refuse([variants, "--equal", "images", "early_stop=3"], "early_stop=3 ends folds", "add early_stop=0")
    assert not folder.exists() or not list(folder.glob("*/jobs.journal"))
    for arguments, part in (
        (["--seeds", "0", "0"], "--seeds: 0 is given twice"),
        (["--seeds", "-1"], "'-1' is no whole number from 0 on"),
        (["--jobs", "0"], "--jobs: 1 or more"),
        (["--name", "a/b"], "--name: letters"),
    ):
        result = run_script("compare.py", variants, *arguments)
        assert result.returncode == 2
        assert part in result.stderr.splitlines()[-1]


@pytest.mark.slow
def test_equal_seconds_are_measured_once(cached: Settings, variants: Path) -> None:
    """By a real probe of each variant; the epochs follow from what it wrote, and stay when the command comes again."""
    variants.write_text('base = "tiny.py"\nvariants = {"long": {"epochs": 9, "cosine_epochs": 8}}\n')
    command = [*command_of(variants, "equal"), "--equal", "seconds", "cosine_epochs=2", "early_stop=0"]
    first = run_script("compare.py", *command)
    assert first.returncode == 0, first.stderr
    folder = Path(cached.saved_models_folder) / "equal"
    of_base, of_long = json.loads((folder / "probe.json").read_text()).values()
    content = json.loads((folder / "comparison.json").read_text())
    assert [variant["cost"]["epochs"] for variant in content["variants"]] == [3, max(round(3 * of_base / of_long), 1)]
    assert "epochs were chosen by a short probe" in first.stdout
    again = run_script("compare.py", *command)
    assert again.returncode == 0
    assert table_of(again.stdout) == table_of(first.stdout)
