"""The jobs of a comparison: each is done once, by whoever is there, and none is lost."""

import os
import signal
from pathlib import Path

import pytest
from optuna.trial import FrozenTrial, TrialState

from catheters.errors import UserError
from catheters.io.locks import InheritedLock
from catheters.runs.comparison.queue import Job, JobQueue
from tests.processes import run_in_forks

JOBS = [Job(variant=variant, seed=seed, fold=fold) for seed in (0, 1) for fold in (0, 1) for variant in ("a", "b")]


def none(job: Job) -> bool:
    """No job's fold is trained."""
    return False


def test_jobs_go_out_in_order_one_per_run(tmp_path: Path) -> None:
    queue, other = JobQueue(tmp_path), JobQueue(tmp_path)
    queue.fill(JOBS, none)
    other.fill(JOBS, none)  # as a second machine does: nothing is there twice
    taken = [of.take(JOBS) for of in (queue, other, queue, other)]
    assert [one.job for one in taken if one] == [
        Job(variant="a", seed=0, fold=0),
        Job(variant="b", seed=0, fold=0),
        Job(variant="a", seed=1, fold=0),  # fold 1 of seed 0 lies in a run folder that is busy
        Job(variant="b", seed=1, fold=0),
    ]
    assert queue.take(JOBS) is None
    assert taken[0] is not None
    queue.finish(taken[0], 0.9, 12345)
    next_one = other.take(JOBS)
    assert next_one is not None
    assert next_one.job == Job(variant="a", seed=0, fold=1)
    assert other.memory_bytes(Job(variant="a", seed=0, fold=0)) == 12345


def test_a_killed_process_leaves_its_jobs_to_others(tmp_path: Path) -> None:
    queue = JobQueue(tmp_path)
    queue.fill(JOBS, none)
    pid = os.fork()
    if pid == 0:
        JobQueue(tmp_path).take(JOBS)
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    assert queue.states(JOBS)[JOBS[0]] == TrialState.RUNNING
    queue.fill(JOBS, none)
    taken = queue.take(JOBS)
    assert taken is not None
    assert taken.job == JOBS[0]
    queue.finish(taken, None, None)
    assert queue.states(JOBS)[JOBS[0]] == TrialState.COMPLETE


def test_failed_jobs_are_tried_again_by_the_next_command(tmp_path: Path) -> None:
    queue = JobQueue(tmp_path)
    queue.fill(JOBS, none)
    taken = queue.take(JOBS)
    assert taken is not None
    queue.fail(taken, "loss is NaN")
    assert queue.errors(JOBS) == {JOBS[0]: "loss is NaN"}
    again = queue.take(JOBS)
    assert again is not None
    assert again.job == JOBS[1]  # not the one that has failed
    queue.finish(again, 0.5, None)
    queue.fill(JOBS, lambda job: job == JOBS[1])
    assert queue.errors(JOBS) == {}
    assert queue.states(JOBS)[JOBS[0]] == TrialState.WAITING
    queue.fill(JOBS, none)  # its run folder was deleted
    assert queue.states(JOBS)[JOBS[1]] == TrialState.WAITING


def test_a_job_that_failed_and_was_enqueued_again_since_it_was_listed(tmp_path: Path) -> None:
    """Its new trial is taken, not the one that the listing had."""

    class Overtaken(JobQueue):
        is_overtaken = False

        def _latest(self) -> dict[Job, FrozenTrial]:
            listed = super()._latest()
            if not self.is_overtaken:
                self.is_overtaken = True
                other = JobQueue(tmp_path)
                taken = other.take(JOBS)
                assert taken is not None
                other.fail(taken, "loss is NaN")
                other.fill(JOBS, none)
            return listed

    JobQueue(tmp_path).fill(JOBS, none)
    queue = Overtaken(tmp_path)
    taken = queue.take(JOBS)
    assert taken is not None
    assert taken.job == JOBS[0]
    queue.finish(taken, 0.5, None)
    assert queue.states(JOBS)[JOBS[0]] == TrialState.COMPLETE
    assert len(queue._trials()) == len(JOBS) + 1


def test_a_torn_last_line_is_removed_and_a_damaged_file_named(tmp_path: Path) -> None:
    JobQueue(tmp_path).fill(JOBS, none)
    journal = tmp_path / "jobs.journal"
    with journal.open("ab") as file:
        file.write(b'{"op_code": 5, "wor')  # as a power cut leaves it
    assert len(JobQueue(tmp_path).states(JOBS)) == len(JOBS)
    journal.write_bytes(b"nothing\nof the kind\n")
    with pytest.raises(UserError, match=r"jobs\.journal: damaged .*; delete it: what is trained is found again"):
        JobQueue(tmp_path)


def test_many_processes_share_the_jobs(tmp_path: Path) -> None:
    """Each job goes to one of four processes that open the queue at the same moment."""
    jobs = [Job(variant="a", seed=seed, fold=0) for seed in range(12)]

    def work() -> None:
        queue = JobQueue(tmp_path)
        queue.fill(jobs, lambda job: True)
        while (taken := queue.take(jobs)) is not None:
            with (tmp_path / "done").open("a") as file:
                file.write(f"{taken.job}\n")
            queue.finish(taken, 0.5, None)

    run_in_forks([work] * 4)
    assert sorted((tmp_path / "done").read_text().splitlines()) == sorted(map(str, jobs))


def test_a_lock_is_held_until_all_who_inherit_it_have_exited(tmp_path: Path) -> None:
    file = tmp_path / "lock"
    lock = InheritedLock.take(file)
    assert lock is not None
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(writer)
        os.read(reader, 1)  # until the test closes its end
        os._exit(0)
    lock.release()
    assert InheritedLock.take(file) is None
    os.close(writer)
    os.waitpid(pid, 0)
    assert InheritedLock.take(file) is not None
    os.close(reader)
