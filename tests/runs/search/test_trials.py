"""Trials of a search: pruned where others are better, whole where not, resumed with what they have reported."""

import dataclasses
import json
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from optuna.trial import TrialState
from pytorch_pfn_extras.training.extension import Extension

from catheters.checkpoints.finished import is_finished, write_finished
from catheters.config.loading import settings_to_json
from catheters.config.settings import Settings
from catheters.runs.autotune import with_batch_size
from catheters.runs.comparison.queue import TakenJob
from catheters.runs.comparison.workers import run_jobs
from catheters.runs.run import train_run
from catheters.runs.search.space import Range, Space
from catheters.runs.search.study import SearchQueue, TrialJob
from catheters.runs.search.trials import TrialSettings, train_trial
from catheters.training.extensions.pruning import Pruning
from tests.processes import run_in_fork

SPACE: Space = {"init_lr": Range(low=1e-4, high=1e-2, is_log=True, is_whole=False)}
JOBS = [TrialJob(number=number) for number in range(6)]
NUM_EPOCHS = 3


def start_sixth(cached: Settings, reported: Mapping[int, float], num_before: int = 5) -> tuple[SearchQueue, Any, Any]:
    """The queue with complete trials that have reported epoch -> score, the next one, taken, and its settings."""
    folder = Path(cached.saved_models_folder)
    folder.mkdir()
    base = dataclasses.replace(cached, folds=(1, 0), warmup_epochs=1, cosine_epochs=NUM_EPOCHS - 1, early_stop=0)
    queue = SearchQueue(folder, base.seed, warmup_epochs=1)
    queue.fill(JOBS[: num_before + 1], lambda job: True)
    for _ in range(num_before):
        taken = queue.take(JOBS)
        assert taken is not None
        queue.suggest(taken, SPACE)
        for epoch, score in reported.items():
            queue.trial(taken.trial_id).report(score, epoch)
        queue.finish(taken, 0.9, None)
    taken = queue.take(JOBS)
    assert taken is not None
    return queue, taken, TrialSettings.of(taken, base, queue.suggest(taken, SPACE), folder)


def epochs_of(of_trial: TrialSettings, fold: int) -> list[dict[str, Any]]:
    file = of_trial.settings.run_folder / f"fold{fold}" / "log.jsonl"
    if not file.exists():
        return []
    return [entry for entry in map(json.loads, file.read_text().splitlines()) if entry["kind"] == "epoch"]


@pytest.mark.slow
def test_a_trial_that_falls_behind_is_pruned(cached: Settings) -> None:
    """After the first epoch behind the warm-up; no further fold is trained, now or when the trial is resumed."""
    queue, taken, of_trial = start_sixth(cached, dict.fromkeys(range(1, NUM_EPOCHS + 1), 1.0))
    for _ in range(2):
        train_trial(of_trial)
        assert of_trial.is_pruned
        assert of_trial.is_finished
        assert [len(epochs_of(of_trial, fold)) for fold in (1, 0)] == [2, 0]
    assert of_trial.facts()["epochs"] == 2
    best = max(entry["val/macro_auc"] for entry in epochs_of(of_trial, 1))
    assert of_trial.best_score() == best
    trial = queue.trials(JOBS)[taken.job]
    assert trial.intermediate_values == {
        1: epochs_of(of_trial, 1)[0]["val/macro_auc"],
        2: best,
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("reported", "num_before"),
    [
        ({1: 0.0, 2: 0.0, 3: 0.0}, 5),  # it is better
        ({1: 1.0, 3: 1.0}, 5),  # worse in warm-up, and after the last epoch, when nothing is left to be saved
        ({1: 1.0, 2: 1.0, 3: 1.0}, 4),  # too few to tell
    ],
    ids=["better", "not now", "too few"],
)
def test_a_trial_that_is_not_pruned_is_trained_in_all_folds(
    cached: Settings, reported: Mapping[int, float], num_before: int
) -> None:
    queue, taken, of_trial = start_sixth(cached, reported, num_before)
    train_trial(of_trial)
    assert not of_trial.is_pruned
    assert of_trial.is_finished
    logs = [epochs_of(of_trial, fold) for fold in (1, 0)]
    assert list(map(len, logs)) == [NUM_EPOCHS, NUM_EPOCHS]
    best = [max(entry["val/macro_auc"] for entry in log) for log in logs]
    assert of_trial.best_score() == pytest.approx(np.mean(best))
    assert of_trial.facts()["epochs"] == 2 * NUM_EPOCHS
    so_far = np.maximum.accumulate([entry["val/macro_auc"] for entry in logs[0]])  # of the first fold alone
    assert list(queue.trials(JOBS)[taken.job].intermediate_values.values()) == so_far.tolist()


class Kill(Extension):
    name = "kill"
    trigger = (1, "epoch")

    def __call__(self, manager: Any) -> None:
        if manager.epoch == 2:
            os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_a_killed_trial_reports_each_epoch_once(cached: Settings) -> None:
    """Killed after it has reported an epoch of which there is no snapshot: that is trained, and not reported, again."""
    queue, taken, of_trial = start_sixth(cached, {}, num_before=0)
    settings = dataclasses.replace(of_trial.settings, folds=(1,))

    def train(*others: Extension) -> None:
        own = SearchQueue(of_trial.folder, 0, warmup_epochs=1)  # its lock is no other process's
        pruning = Pruning(own.trial(taken.trial_id), NUM_EPOCHS)
        train_run(settings, fresh=False, extensions=[pruning, *others])

    with pytest.raises(AssertionError):
        run_in_fork(lambda: train(Kill()))
    assert len(queue.trials(JOBS)[taken.job].intermediate_values) == 2
    train()
    scores = [entry["val/macro_auc"] for entry in epochs_of(of_trial, 1)]
    reported = queue.trials(JOBS)[taken.job].intermediate_values
    assert reported == dict(enumerate(np.maximum.accumulate(scores).tolist(), start=1))


def test_values_that_do_not_go_together(cached: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    """Each is possible with the base, both are not: the trial fails, in a line, and nothing is trained."""
    base = dataclasses.replace(cached, min_lr=1e-5)
    folder = Path(cached.saved_models_folder)
    folder.mkdir()
    queue = SearchQueue(folder, 0)
    queue.fill(JOBS[:1], lambda job: True)

    def settings_of(taken: TakenJob[TrialJob]) -> TrialSettings:
        return TrialSettings.of(taken, base, {"init_lr": 1e-4, "min_lr": 1e-3}, folder)

    run_jobs(queue, JOBS[:1], settings_of, 1, ())
    (error,) = queue.errors(JOBS[:1]).values()
    assert error == "min_lr=0.001 is above the peak learning rate 0.0002"
    assert f"warning: trial 0: failed: {error}" in capsys.readouterr().err
    assert not list(folder.glob("trial*/"))


def write_trained(settings: Settings) -> None:
    """A run folder of settings whose first fold is trained."""
    folder = settings.run_folder / f"fold{settings.folds_to_train[0]}"
    folder.mkdir(parents=True)
    (settings.run_folder / "settings.json").write_text(settings_to_json(settings))
    (folder / "best.pt").write_bytes(b"weights")
    write_finished(folder)
    assert is_finished(folder)


@pytest.mark.parametrize("batch_size", [4, "auto"])
def test_a_run_folder_of_other_values_is_not_the_trial(cached: Settings, batch_size: Any) -> None:
    """As one is whose journal was deleted: it is not taken as trained. That of the same values is."""
    base = dataclasses.replace(cached, folds=(1,), batch_size=batch_size, cosine_epochs=0)
    folder = Path(cached.saved_models_folder)
    folder.mkdir()
    queue = SearchQueue(folder, 0)
    queue.fill(JOBS[:2], lambda job: True)

    def settings_of(taken: TakenJob[TrialJob]) -> TrialSettings:
        of_trial = TrialSettings.of(taken, base, {"init_lr": 1e-4}, folder)
        init_lr = 2e-4 if taken.job.number == 0 else 1e-4
        write_trained(with_batch_size(dataclasses.replace(of_trial.settings, init_lr=init_lr), 8))
        return of_trial

    run_jobs(queue, JOBS[:2], settings_of, 1, ())
    assert queue.errors(JOBS[:2]) == {
        JOBS[
            0
        ]: f"{folder / 'trial000'}: holds another run than this trial's (init_lr=0.0001); give the search another "
        "--name, or move the folder away"
    }
    assert queue.states(JOBS[:2])[JOBS[1]] == TrialState.COMPLETE


def test_an_interrupt_after_a_process_has_ended(cached: Settings) -> None:
    """It ends as any other one: how that process ended is still known."""
    folder = Path(cached.saved_models_folder)
    folder.mkdir()
    queue = SearchQueue(folder, 0)
    queue.fill(JOBS[:2], lambda job: True)

    class Ended(TrialSettings):
        @property
        def command(self) -> list[str]:
            return [sys.executable, "-c", "pass"]

    def settings_of(taken: TakenJob[TrialJob]) -> TrialSettings:
        if taken.job == JOBS[0]:
            return Ended.of(taken, cached, {}, folder)
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)  # which leaves it to be collected
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_jobs(queue, JOBS[:2], settings_of, 2, ())
    assert queue.states(JOBS[:1])[JOBS[0]] == TrialState.RUNNING
