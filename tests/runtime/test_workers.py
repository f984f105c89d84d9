"""Worker processes: every task has an outcome, whatever happens to the process that does it."""

import gc
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from catheters.runtime.host import start_method
from catheters.runtime.workers import Failure, map_guarded
from tests.hangs import run_watched, wait_until


def square(number: int) -> int:
    return number * number


def misbehave(task: str) -> str:
    if task == "crash":
        os.kill(os.getpid(), signal.SIGKILL)
    if task == "exit":
        os._exit(7)
    if task == "hang":
        signal.pause()
    if task == "eat":
        return str(np.ones(1 << 30).sum())  # 8 GB
    if task == "fail":
        raise ValueError("a bug")
    return f"{task} done"


@pytest.mark.parametrize("num_workers", [1, 2, 5])
def test_every_task_is_done_once(num_workers: int) -> None:
    outcomes = list(map_guarded(square, range(20), num_workers))
    assert sorted(outcomes) == [(number, number**2) for number in range(20)]
    assert list(map_guarded(square, [], num_workers)) == []


def test_what_a_worker_does_not_survive_costs_its_task_only() -> None:
    tasks = ["a", "crash", "b", "c", "exit", "eat", "d"]
    outcomes = dict(map_guarded(misbehave, tasks, 2, max_seconds=3600.0))
    assert outcomes["crash"] == Failure("the decoder crashed (Killed)")
    assert outcomes["exit"] == Failure("the decoder crashed (exit status 7)")
    assert outcomes["eat"] == Failure("decoding it takes more than 1024 MB of memory")
    assert {task: outcomes[task] for task in "abcd"} == {task: f"{task} done" for task in "abcd"}


def test_a_task_that_takes_too_long_is_given_up() -> None:
    """And its worker with it: the next one gets another."""
    outcomes = list(map_guarded(misbehave, ["hang", "hang"], 1, max_seconds=1.0))
    assert outcomes == [("hang", Failure("given up after 1 s"))] * 2


def test_an_exception_is_raised_here_and_no_worker_is_left() -> None:
    others = multiprocessing.active_children()
    with pytest.raises(ValueError, match="a bug"):
        list(map_guarded(misbehave, ["a", "fail", "b"], 2))
    assert set(multiprocessing.active_children()) <= set(others)


ORPHAN_SCRIPT = """
import os, sys
from catheters.runtime.host import start_method
from catheters.runtime.workers import map_guarded
def respond(task):
    return os.getpid(), bytes(10_000_000)  # more than a pipe holds: the worker waits until it is read
workers = map_guarded(respond, range(100), 2)
print(*{next(workers)[1][0] for _ in range(8)}, flush=True)
os.kill(os.getpid(), 9)
"""


def test_workers_exit_when_the_process_that_started_them_is_killed() -> None:
    done = subprocess.run([sys.executable, "-c", ORPHAN_SCRIPT], capture_output=True, text=True, check=False)
    workers = [int(pid) for pid in done.stdout.split()]
    assert workers
    wait_until(
        lambda: not any(_is_running(pid) for pid in workers), lambda: "a worker outlived the process that started it"
    )


def _is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


SIGNALLED = """
import os
import signal

from catheters.runtime.host import start_method
from catheters.runtime.workers import map_guarded

def double(number):
    return 2 * number

# The first that a new process does, as where a scheduler's signal to all comes while it starts.
os.register_at_fork(after_in_child=lambda: os.kill(os.getpid(), signal.SIGTERM))
print(sorted(map_guarded(double, range(3), 1)))
"""


def test_a_signal_while_a_worker_starts_is_left_to_its_parent() -> None:
    done = run_watched([sys.executable, "-c", SIGNALLED])
    assert (done.stdout, done.stderr) == ("[(0, 0), (1, 2), (2, 4)]\n", "")


BY_METHOD = """
import math
import gc
import multiprocessing
import sys

from catheters.runtime.host import start_method
from catheters.runtime.host import start_method
from catheters.runtime.workers import map_guarded

if __name__ == "__main__":
    assert start_method() == ("fork" if sys.platform == "linux" else "spawn")  # whatever Python's default is
    multiprocessing.set_start_method(sys.argv[1])
    print(start_method(), sorted(map_guarded(math.sqrt, [4.0, 9.0], 2)))
"""


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_workers_of_every_start_method(tmp_path: Path, method: str) -> None:
    """As the user has set it, for workers that decode as for those of a DataLoader."""
    script = tmp_path / "script.py"
    script.write_text(BY_METHOD)
    done = run_watched([sys.executable, str(script), method])
    assert (done.stdout, done.stderr) == (f"{method} [(4.0, 2.0), (9.0, 3.0)]\n", "")


class Remains:
    """Garbage of the parent: an object that only a collection frees, and that leaves a file then."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.itself = self

    def __del__(self) -> None:
        self.file.touch()


def collect(task: int) -> int:
    gc.collect()
    return task


@pytest.mark.skipif(start_method() != "fork", reason="other workers have nothing of their parent's")
def test_workers_free_nothing_of_their_parent(tmp_path: Path) -> None:
    """Its garbage may hold tensors of a GPU, which a forked process cannot use."""
    gc.collect()
    gc.disable()
    try:
        Remains(tmp_path / "freed")
        assert list(map_guarded(collect, [1, 2], 1)) == [(1, 1), (2, 2)]
        assert not (tmp_path / "freed").exists()
    finally:
        gc.enable()
    gc.collect()
    assert (tmp_path / "freed").exists()
