"""The jobs of a comparison or a search in processes of their own, several at a time: a crash costs one of them."""

import contextlib
import dataclasses
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic

from optuna.trial import TrialState

from catheters.config.loading import config_text, load_settings
from catheters.config.settings import Settings
from catheters.errors import UserError, counted
from catheters.io.files import write_text
from catheters.runs.autotune import settings_of_run, with_batch_size
from catheters.runs.comparison.queue import J, StudyQueue, TakenJob
from catheters.runs.run import is_long_enough
from catheters.runs.run_folder import check_run_folder
from catheters.runtime.console import note, say, silent, warn
from catheters.runtime.host import available_cores
from catheters.runtime.interrupts import raise_if_interrupted
from catheters.runtime.progress import duration
from catheters.training.extensions.log import read_epochs

SECONDS_BETWEEN_LOOKS = 0.1
SECONDS_BETWEEN_QUEUES = 1.0
"""While nothing can be taken: other processes may leave something."""


@dataclass(frozen=True, kw_only=True)
class JobSettings:
    """What a job is trained by.

    Attributes:
        settings: of the run that it is a part of, its folds chosen; a comparison's jobs have one each.
        folder: of the comparison, or the search.
    """

    settings: Settings
    folder: Path

    @property
    def fold(self) -> int:
        """The one that is trained."""
        (fold,) = self.settings.folds_to_train
        return fold

    @property
    def fold_folder(self) -> Path:
        """Where its model lies."""
        return self.settings.run_folder / f"fold{self.fold}"

    @property
    def fold_folders(self) -> tuple[Path, ...]:
        """Where the models of all its folds lie."""
        return tuple(self.settings.run_folder / f"fold{fold}" for fold in self.settings.folds_to_train)

    def check_folder(self) -> None:
        """Refuse a run folder of other settings: what was trained there is not this job.

        Raises:
            UserError: it holds a run of other settings, or something else.
        """
        settings = self.settings.in_stages()[-1]
        earlier = settings_of_run(settings, fresh=False)
        if earlier is not None:
            with silent(True):
                settings = with_batch_size(settings, earlier.images_per_batch)
        check_run_folder(settings)

    @property
    def is_finished(self) -> bool:
        """Whether all its folds are trained."""
        return all(is_long_enough(self.settings.in_stages()[-1], folder) for folder in self.fold_folders)

    @property
    def is_pruned(self) -> bool:
        """Whether it was stopped because others are better."""
        return False

    @property
    def config_file(self) -> Path:
        """A config of exactly these settings, but for the folds: it can be trained by hand as well."""
        return self.folder / "configs" / f"{self.settings.run_name}.py"

    def write_config(self) -> None:
        """Write it; what it says may not depend on files that the user changes meanwhile."""
        settings = dataclasses.replace(self.settings, folds=None)
        self.config_file.parent.mkdir(parents=True, exist_ok=True)
        text = config_text(settings)
        if not self.config_file.is_file() or self.config_file.read_text(encoding="utf-8") != text:
            write_text(self.config_file, text)
        assert load_settings(self.config_file) == settings, "a config says what it was made of"

    @property
    def log_file(self) -> Path:
        """What its process prints."""
        return self.folder / "logs" / f"{self.settings.run_name}_fold{self.fold}.log"

    @property
    def command(self) -> list[str]:
        """What trains it, once its config is written."""
        return [sys.executable, "-m", "catheters", "train", "--config", str(self.config_file), f"folds=[{self.fold}]"]

    def best_score(self) -> float | None:
        """Macro ROC AUC of the best epoch, of several folds the mean; None: a log does not say."""
        best = []
        for folder in self.fold_folders:
            scores = [entry.get("val/macro_auc") for entry in read_epochs(folder)]
            best.append(max((score for score in scores if score is not None), default=None))
        known = [score for score in best if score is not None]
        return statistics.fmean(known) if known and len(known) == len(best) else None

    def facts(self) -> Mapping[str, float]:
        """What the queue shall keep of it beside the score, once it is trained."""
        return {}

    def describe(self) -> str:
        """What it is, for its line: the end of a sentence, or nothing."""
        return ""


@dataclass(kw_only=True)
class _Work(Generic[J]):
    """A job in a process of its own."""

    taken: TakenJob[J]
    of_job: JobSettings
    process: "subprocess.Popen[bytes]"
    gpu: str | None
    started: float = field(default_factory=time.monotonic)

    def exit_status(self) -> tuple[int, int | None] | None:
        """Its exit status and the most bytes that it had, None where they are not known; None while it runs."""
        if self.process.returncode is not None:
            return self.process.returncode, None
        pid, status, usage = os.wait4(self.process.pid, os.WNOHANG)
        if pid == 0:
            return None
        self.process.returncode = os.waitstatus_to_exitcode(status)
        return self.process.returncode, usage.ru_maxrss * 1024


def visible_gpus(settings: Sequence[Settings]) -> tuple[str, ...]:
    """Names of the GPUs that jobs can be given, as `CUDA_VISIBLE_DEVICES` has them; none where a setting chooses."""
    if any(of.device == "cpu" or of.device.startswith("cuda:") for of in settings):
        return ()
    import torch

    count = torch.cuda.device_count()
    named = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return tuple(named) if len(named) == count else tuple(map(str, range(count)))


def run_jobs(
    queue: StudyQueue[J],
    jobs: Collection[J],
    settings_of: Callable[[TakenJob[J]], JobSettings],
    num_parallel: int,
    gpus: Sequence[str],
) -> None:
    """Train the jobs that wait, until none is left, neither here nor in another process of the same command.

    Args:
        queue: it holds all of `jobs`.
        jobs: to train.
        settings_of: what a job is trained by, once it is taken; a UserError lets it fail, and so does
            a folder of another run.
        num_parallel: processes at a time.
        gpus: from `visible_gpus`; each process is given the one with fewest others.

    Raises:
        KeyboardInterrupt: all processes were stopped, each with a snapshot where it trains.
    """
    working: list[_Work[J]] = []
    seconds: list[float] = []
    next_look, is_waiting = 0.0, False
    try:
        while True:
            raise_if_interrupted()
            for work in list(working):
                status = work.exit_status()
                if status is not None:
                    working.remove(work)
                    _record(queue, work, *status)
                    seconds.append(time.monotonic() - work.started)
                    _say_progress(queue, jobs, seconds, num_parallel)
                    next_look = 0.0
            now = time.monotonic()
            while len(working) < num_parallel and now >= next_look:
                taken = queue.take(jobs)
                if taken is None:
                    next_look = now + SECONDS_BETWEEN_QUEUES
                    break
                is_waiting = False
                try:
                    of_job = settings_of(taken)
                    of_job.check_folder()
                except UserError as error:
                    queue.fail(taken, str(error))
                    warn(f"{taken.job}: failed: {error}")
                    continue
                if of_job.is_finished:
                    _finish(queue, taken, of_job, None)
                    say(f"{taken.job}: already trained, in {of_job.settings.run_folder}")
                else:
                    working.append(_start(taken, of_job, working, num_parallel, gpus))
            if not working:
                num_open = sum(not state.is_finished() for state in queue.states(jobs).values())
                if not num_open:
                    return
                if not is_waiting and next_look:
                    noun = next(iter(jobs)).NOUN
                    note(f"{counted(num_open, noun)} left, in other processes of the same command: waiting for them")
                    is_waiting = True
            time.sleep(SECONDS_BETWEEN_LOOKS)
    finally:
        _stop(working)
        for work in working:
            queue.give_back(work.taken)


def train_alone(of_job: JobSettings) -> str | None:
    """Train a job while nothing else is, outside of any queue; returns what it said where it failed.

    Raises:
        KeyboardInterrupt: it was stopped.
    """
    process = _start_process(of_job, dict(os.environ))
    try:
        while process.poll() is None:
            raise_if_interrupted()
            time.sleep(SECONDS_BETWEEN_LOOKS)
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()
    return None if process.returncode == 0 else _reason(process.returncode, of_job.log_file)


def _start(
    taken: TakenJob[J], of_job: JobSettings, working: Sequence[_Work[J]], num_parallel: int, gpus: Sequence[str]
) -> _Work[J]:
    environment = dict(os.environ)
    gpu = min(gpus, key=lambda name: sum(work.gpu == name for work in working), default=None)
    if gpu is not None:
        environment["CUDA_VISIBLE_DEVICES"] = gpu
    elif num_parallel > 1:
        environment.setdefault("OMP_NUM_THREADS", str(max(available_cores() // num_parallel, 1)))
    # With the lock, it keeps others out of the run even if this process is killed.
    process = _start_process(of_job, environment, (taken.lock.descriptor,))
    return _Work(taken=taken, of_job=of_job, process=process, gpu=gpu)


def _start_process(
    of_job: JobSettings, environment: Mapping[str, str], descriptors: Sequence[int] = ()
) -> "subprocess.Popen[bytes]":
    of_job.write_config()
    of_job.log_file.parent.mkdir(exist_ok=True)
    with of_job.log_file.open("ab") as log:
        return subprocess.Popen(
            of_job.command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            pass_fds=descriptors,
        )


def _record(queue: StudyQueue[J], work: _Work[J], status: int, memory_bytes: int | None) -> None:
    """Keep in the queue how a process ended, and say it."""
    job, of_job = work.taken.job, work.of_job
    if status == 0 and of_job.is_finished:
        score = _finish(queue, work.taken, of_job, memory_bytes)
        auc = "" if score is None else f"macro AUC {score:.4f}, "
        pruned = "pruned, " if of_job.is_pruned else ""
        say(f"{job}: {pruned}{auc}{duration(time.monotonic() - work.started)}{of_job.describe()}")
        return
    reason = _reason(status, of_job.log_file)
    queue.fail(work.taken, reason)
    warn(f"{job}: failed: {reason} ({of_job.log_file})")


def _finish(queue: StudyQueue[J], taken: TakenJob[J], of_job: JobSettings, memory_bytes: int | None) -> float | None:
    """Record that a job is trained; returns its score."""
    score = of_job.best_score()
    queue.finish(taken, score, memory_bytes, is_pruned=of_job.is_pruned, facts=of_job.facts())
    return score


def _reason(status: int, log_file: Path) -> str:
    """Why a process failed, in a line."""
    if status < 0:
        of_memory = ", perhaps for want of memory" if status == -signal.SIGKILL else ""
        return f"killed by {signal.Signals(-status).name}{of_memory}"
    return _last_line(log_file) or f"exit status {status}"


def _last_line(file: Path) -> str:
    """What a process said of its failure: its last line that begins with `error: `, else its last one."""
    lines = [line.strip() for line in file.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return (errors or lines or [""])[-1]


def _say_progress(queue: StudyQueue[J], jobs: Collection[J], seconds: list[float], num_parallel: int) -> None:
    states = list(queue.states(jobs).values())
    num_open = sum(not state.is_finished() for state in states)
    words = f"{len(states) - num_open} of {counted(len(states), next(iter(jobs)).NOUN)} done"
    for state, what in ((TrialState.PRUNED, "pruned"), (TrialState.FAIL, "failed")):
        number = states.count(state)
        words += f", {number} of them {what}" if number else ""
    words += queue.describe_best(jobs)
    if num_open:
        left = sum(seconds) / len(seconds) * -(-num_open // num_parallel)
        words += f", about {duration(left)} left if no other process helps"
    note(words)


def _stop(working: Sequence[_Work[J]]) -> None:
    """Ask all processes to stop, and wait until they have; a second interrupt kills them."""
    for work in working:
        if work.process.returncode is None:
            # Popen's own send_signal collects a process that has just ended, which is for `exit_status` to do.
            with contextlib.suppress(ProcessLookupError):
                os.kill(work.process.pid, signal.SIGTERM)
    try:
        for work in working:
            while work.exit_status() is None:
                time.sleep(SECONDS_BETWEEN_LOOKS)
    except KeyboardInterrupt:
        for work in working:
            work.process.kill()
        raise
