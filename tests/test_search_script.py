"""compare.py --search, as a user runs it: killed, resumed, its result a variant, refused."""

import dataclasses
import os
import signal
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from catheters.commands import search as search_command
from catheters.commands.compare_options import main
from catheters.config.loading import config_text, load_settings
from catheters.config.settings import Settings
from catheters.runs.comparison.variants import choose_common_folds, place_runs, read_common_data, read_variants
from catheters.runs.search.space import read_search
from catheters.runs.search.study import SearchQueue, TrialJob
from catheters.runs.search.trials import TrialSettings, train_trial
from tests.conftest import assert_user_error, run_script
from tests.processes import Command, wait_until

assert search_command, "what forks are born with need not be imported by each"
SPACE = 'base = "tiny.py"\nspace = {"init_lr": ("log", 2e-3, 1e-2), "optimizer": ["AdamW", "SGD"]}\n'
NUM_TRIALS = 2


@pytest.fixture
def space(cached: Settings, tmp_path: Path) -> Path:
    """The file of a search, whose images are cached; the base's learning rate is below it."""
    (tmp_path / "tiny.py").write_text(config_text(dataclasses.replace(cached, cosine_epochs=0, run_name=None)))
    file = tmp_path / "space.py"
    file.write_text(SPACE)
    return file


def trained_here(space: Path, folder: Path) -> pd.DataFrame:
    """The trials one after another, in this process and without a break: number, score and values."""
    found = read_search(space, [])
    (placed,) = place_runs([found.base], folder.name)
    folder.mkdir(parents=True)
    base = dataclasses.replace(placed.settings, folds=(1,), seed=3)
    queue = SearchQueue(folder, 3)
    jobs = [TrialJob(number=number) for number in range(NUM_TRIALS)]
    queue.fill(jobs, lambda job: True)
    rows: list[dict[str, Any]] = []
    while (taken := queue.take(jobs)) is not None:
        of_trial = TrialSettings.of(taken, base, queue.suggest(taken, found.space), folder)
        train_trial(of_trial)
        queue.finish(taken, of_trial.best_score(), None)
        rows.append({"trial": taken.job.number, "macro_auc": of_trial.best_score(), **of_trial.values})
    return pd.DataFrame(rows)


@pytest.mark.slow
def test_killed_and_resumed_it_ends_with_the_same_trials(cached: Settings, space: Path, tmp_path: Path) -> None:
    """Of which the best is a config that a comparison takes as it is."""
    folder = Path(cached.saved_models_folder) / "search_space"
    arguments = ["--search", str(space), "--trials", str(NUM_TRIALS), "--folds", "1", "--seeds", "3", "--jobs", "1"]
    process = Command(lambda _: main(arguments), tmp_path / "output", in_group=True)
    wait_until((folder / "logs" / "trial001.log").exists, process)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert "trial 0: macro AUC 0." in process.text
    assert "1 of 2 trials done, the best so far is trial 0 with 0." in process.text

    resumed = run_script("compare.py", *arguments)
    assert resumed.returncode == 0, resumed.stderr
    assert "2 trials, 1 of them done already; 1 at a time" in resumed.stderr
    assert "trial 0: " not in resumed.stdout
    found = pd.read_csv(folder / "search.csv")
    expected = trained_here(space, folder.with_name("whole"))
    pd.testing.assert_frame_equal(found[list(expected)], expected, check_exact=True)
    assert found["state"].tolist() == ["complete"] * NUM_TRIALS
    assert found["epochs"].tolist() == [1] * NUM_TRIALS

    best = expected.loc[expected["macro_auc"].idxmax()]
    assert f"search_space: 2 trials on fold 1, seed 3 ({NUM_TRIALS} complete)" in resumed.stdout
    assert (
        f"trial {best['trial']} is the best of 2 trials on fold 1; it was chosen by that very score" in resumed.stdout
    )
    files = [str(folder / name) for name in ("base.py", "best.py")]
    assert f"compare.py {' '.join(files)} --seeds 0 1 2 --folds 0\n" in resumed.stdout
    variants = place_runs(read_variants(files, []), "compared")
    assert len(read_common_data(variants).table) == 40
    assert choose_common_folds(variants, None) == (0, 1)
    base, config = map(load_settings, files)
    tiny = load_settings(space.with_name("tiny.py"))
    assert dataclasses.replace(base, run_name="tiny") == tiny
    values = {"init_lr": best["init_lr"], "optimizer": best["optimizer"]}
    assert dataclasses.replace(config, run_name="tiny") == dataclasses.replace(tiny, **values)
    assert "optimistic" in Path(files[1]).read_text()
    assert "<strong>Synthetic data.</strong>" in (folder / "search.html").read_text()

    # What is finished is printed again at once; another space needs another name.
    again = run_script("compare.py", *arguments)
    assert again.returncode == 0
    assert again.stderr == ""
    assert again.stdout in resumed.stdout
    space.write_text(SPACE.replace("1e-2", "1e-1"))
    assert_user_error(
        run_script("compare.py", *arguments),
        f"{folder}: holds another search: space['init_lr'] was '0.002 to 0.01, log', is '0.002 to 0.1, log'",
    )


@pytest.mark.slow
def test_mistakes_are_one_line(cached: Settings, space: Path) -> None:
    for arguments, part in (
        (["--folds", "2"], "--folds 2: there are the folds 0 to 1"),
        (["cache_name=absent"], "no such image cache"),
        (["init_lr=1"], "space['init_lr']: varies, but the command line sets init_lr"),
        (["all_data=True"], "all_data=True leaves no out-of-fold predictions"),
    ):
        assert_user_error(run_script("compare.py", "--search", space, *arguments), part)
    assert_user_error(run_script("compare.py", space), "is the space of a search; write --search")
    assert not Path(cached.saved_models_folder).exists()
    for arguments, part in (
        (["sample"], "--search has its base in its file; sample is no name=value"),
        (["--equal", "images"], "--equal goes with variants"),
        (["--seeds", "0", "1"], "--seeds: one with --search"),
        (["--trials", "0"], "--trials: 1 or more"),
    ):
        result = run_script("compare.py", "--search", space, *arguments)
        assert result.returncode == 2
        assert part in result.stderr.splitlines()[-1]
    result = run_script("compare.py", "sample", "vit", "--trials", "3")
    assert "--trials goes with --search" in result.stderr.splitlines()[-1]
