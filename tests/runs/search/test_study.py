"""The trials of a search: what is proposed follows from seed and earlier trials alone, whoever asks."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from optuna.trial import TrialState

from catheters.errors import UserError
from catheters.runs.comparison.queue import Job, JobQueue
from catheters.runs.search.space import Choices, Range, Space
from catheters.runs.search.study import SearchQueue, TrialJob

SPACE: Space = {
    "init_lr": Range(low=1e-5, high=1e-1, is_log=True, is_whole=False),
    "batch_size": Range(low=4, high=64, is_log=False, is_whole=True),
    "optimizer": Choices(values=("AdamW", "SGD", ("odd", {"a": 1}))),
}


def jobs_of(number: int) -> list[TrialJob]:
    return [TrialJob(number=position) for position in range(number)]


def score(values: dict[str, Any]) -> float:
    """Best near a learning rate of 1e-3 with SGD."""
    return float(1 - abs(np.log10(values["init_lr"]) + 3) / 10 - 0.2 * (values["optimizer"] != "SGD"))


def search(folder: Path, number: int, *, seed: int = 0, is_restarted: bool = False) -> list[dict[str, Any]]:
    """Values of so many trials, one after another, each by a new process's queue where it is restarted."""
    folder.mkdir(exist_ok=True)
    queue = SearchQueue(folder, seed)
    found = []
    queue.fill(jobs_of(number), lambda job: True)
    while (taken := queue.take(jobs_of(number))) is not None:
        values = queue.suggest(taken, SPACE)
        if is_restarted:  # as one does that takes over what was killed after it had drawn some of the values
            queue.give_back(taken)
            queue = SearchQueue(folder, seed)
            again = queue.take(jobs_of(number))
            assert again is not None
            assert again.job == taken.job
            assert queue.suggest(again, SPACE) == values
            taken = again
        queue.finish(taken, score(values), None)
        found.append(values)
    return found


def test_restarted_processes_propose_the_same(tmp_path: Path) -> None:
    whole = search(tmp_path / "whole", 16)
    assert search(tmp_path / "restarted", 16, is_restarted=True) == whole
    assert len({values["init_lr"] for values in whole}) == 16  # no trial repeats another one
    assert search(tmp_path / "other", 3, seed=1) != whole[:3]


def test_a_trial_that_was_half_drawn_is_drawn_to_its_end(tmp_path: Path) -> None:
    """Killed between two settings: the second one is what it would have been."""
    expected = search(tmp_path / "whole", 1)
    (tmp_path / "half").mkdir()
    queue = SearchQueue(tmp_path / "half", 0)
    queue.fill(jobs_of(1), lambda job: True)
    taken = queue.take(jobs_of(1))
    assert taken is not None
    queue.suggest(taken, {"init_lr": SPACE["init_lr"]})
    queue.give_back(taken)
    queue = SearchQueue(tmp_path / "half", 0)
    taken = queue.take(jobs_of(1))
    assert taken is not None
    assert [queue.suggest(taken, SPACE)] == expected


def test_later_trials_learn_from_earlier_ones(tmp_path: Path) -> None:
    """After ten at random they are nearer to the best, mostly with SGD."""
    values = search(tmp_path, 40)
    distance = [abs(np.log10(of["init_lr"]) + 3) for of in values]
    assert np.mean(distance[20:]) < 0.6 * np.mean(distance[:10])
    assert sum(of["optimizer"] == "SGD" for of in values[20:]) > 14


def test_a_study_that_others_write_is_read_anew(tmp_path: Path) -> None:
    """A process that has read the study draws its next trial by what another one has added since."""
    folder = tmp_path / "search"
    folder.mkdir()
    queue, other = SearchQueue(folder, 0), SearchQueue(folder, 0)
    queue.fill(jobs_of(12), lambda job: True)
    early = queue.take(jobs_of(12))
    assert early is not None
    queue.suggest(early, SPACE)
    for _ in range(10):
        taken = other.take(jobs_of(12))
        assert taken is not None
        other.finish(taken, score(other.suggest(taken, SPACE)), None)
    shutil.copytree(folder, tmp_path / "copy")
    late = queue.take(jobs_of(12))
    fresh = SearchQueue(tmp_path / "copy", 0)
    assert fresh.take(jobs_of(12)) is not None  # the early one, which nobody holds in the copy
    same = fresh.take(jobs_of(12))
    assert late is not None
    assert same is not None
    assert late.job == same.job == TrialJob(number=11)
    assert queue.suggest(late, SPACE) == fresh.suggest(same, SPACE)


def test_the_first_trial_may_be_given(tmp_path: Path) -> None:
    first = {"init_lr": 1e-3, "batch_size": 8, "optimizer": "'SGD'"}
    queue = SearchQueue(tmp_path, 0, first=first)
    queue.fill(jobs_of(2), lambda job: True)
    given, drawn = queue.take(jobs_of(2)), queue.take(jobs_of(2))
    assert given is not None
    assert drawn is not None
    assert queue.suggest(given, SPACE) == {"init_lr": 1e-3, "batch_size": 8, "optimizer": "SGD"}
    assert queue.suggest(drawn, SPACE)["init_lr"] != 1e-3


def test_a_failed_trial_is_tried_again_with_its_values(tmp_path: Path) -> None:
    """By the next command; a pruned or complete one is not."""
    queue = SearchQueue(tmp_path, 0)
    queue.fill(jobs_of(3), lambda job: True)
    taken = [queue.take(jobs_of(3)) for _ in range(3)]
    values = [queue.suggest(one, SPACE) for one in taken if one]
    assert taken[0] is not None
    assert taken[1] is not None
    assert taken[2] is not None
    queue.fail(taken[0], "loss is NaN")
    queue.finish(taken[1], 0.6, None, is_pruned=True, facts={"epochs": 2})
    queue.finish(taken[2], 0.7, 1234, facts={"epochs": 9})
    assert queue.describe_best(jobs_of(3)) == ", the best so far is trial 2 with 0.7000"
    queue.fill(jobs_of(4), lambda job: True)  # one more is asked for
    states = queue.states(jobs_of(4))
    assert [states[job] for job in jobs_of(4)] == [
        TrialState.WAITING,
        TrialState.PRUNED,
        TrialState.COMPLETE,
        TrialState.WAITING,
    ]
    again = queue.take(jobs_of(4))
    assert again is not None
    assert again.job == jobs_of(4)[0]
    assert queue.suggest(again, SPACE) == values[0]
    trial = queue.trials(jobs_of(4))[jobs_of(4)[1]]
    assert (trial.value, trial.user_attrs["epochs"]) == (0.6, 2)


def test_a_damaged_file_is_not_to_be_deleted(tmp_path: Path) -> None:
    """A new one may propose other values for trials whose run folders are there."""
    (tmp_path / "jobs.journal").write_bytes(b"nothing\nof the kind\n")
    with pytest.raises(UserError, match=r"jobs\.journal: damaged .*; restore it, or give the search another --name"):
        SearchQueue(tmp_path, 0)


def test_another_search_in_the_same_folder(tmp_path: Path) -> None:
    definition = {"image_size": 32, "space['init_lr']": "1 to 2", "--folds": [0], "--seeds": 0}
    SearchQueue(tmp_path, 0).define(definition)
    SearchQueue(tmp_path, 0).define({**definition, "num_folds": 5})  # a setting that is newer than the search
    for change, expected in (
        (
            {"image_size": 64},
            "holds another search: image_size was 32, is 64; set it as it was, or give another --name",
        ),
        ({"--folds": [0, 1]}, r"--folds was \[0\], is \[0, 1\]"),
        ({"space['drop_rate']": "0 to 1"}, r"space\['drop_rate'\] was 'absent', is '0 to 1'"),
    ):
        with pytest.raises(UserError, match=expected):
            SearchQueue(tmp_path, 0).define({**definition, **change})
    with pytest.raises(UserError, match=r"holds a search; give the comparison another --name"):
        JobQueue(tmp_path)
    (tmp_path / "of comparison").mkdir()
    JobQueue(tmp_path / "of comparison").fill([Job(variant="a", seed=0, fold=0)], lambda job: True)
    with pytest.raises(UserError, match=r"holds a comparison; give the search another --name"):
        SearchQueue(tmp_path / "of comparison", 0)
