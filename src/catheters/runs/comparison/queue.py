"""The jobs of a comparison, as trials of an Optuna study in one file, which several processes and machines share.

A job is one variant, seed and fold. It waits, runs, is complete or has failed, as Optuna's trials do. Who works on a
job holds the lock of its run. A job that runs by its state while that lock is free was left by a process that was
killed, and whoever takes the lock takes it over.
"""

import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import filelock
import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, TrialState

from catheters.errors import UserError, one_line
from catheters.io.locks import InheritedLock

FILE_NAME = "jobs.journal"
STUDY = "comparison"


@dataclass(frozen=True, kw_only=True, order=True)
class Job:
    """What is trained at a time: a variant by the name of its files, a seed and a fold."""

    variant: str
    seed: int
    fold: int

    @property
    def run(self) -> str:
        """Name of the run that it is a part of."""
        return f"{self.variant}_seed{self.seed}"

    def __str__(self) -> str:
        return f"{self.variant}, seed {self.seed}, fold {self.fold}"


@dataclass(frozen=True, kw_only=True)
class TakenJob:
    """A job that this process works on, until `JobQueue.finish` or `JobQueue.fail`."""

    job: Job
    trial_id: int
    lock: InheritedLock


class JobQueue:
    """The jobs in a comparison's folder."""

    def __init__(self, folder: Path) -> None:
        """Open the file, or make it; what a power cut has left of a last line is removed.

        Raises:
            UserError: the file is damaged.
        """
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._folder = folder
        file = folder / FILE_NAME
        lock = _JournalLock(file)
        with _locked(lock):
            _mend_end(file)
        try:
            self._storage = JournalStorage(JournalFileBackend(str(file), lock_obj=lock))
            study = optuna.create_study(storage=self._storage, study_name=STUDY, load_if_exists=True)
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{file}: damaged ({one_line(error, 120)}); delete it: what is trained is found again"
            ) from None
        self._study = study
        self._study_id = self._storage.get_study_id_from_name(STUDY)
        self._held: set[str] = set()

    def fill(self, wanted: Iterable[Job], is_finished: Callable[[Job], bool]) -> None:
        """Enqueue what is wanted and neither waits nor runs, nor is finished.

        Jobs that have failed are enqueued again: the same command tries once more.

        Args:
            wanted: all jobs of the command, in the order in which they are to be done.
            is_finished: whether a job's fold is trained; asked of those that are complete.
        """
        # All processes of a comparison do this when they start, one after another.
        with _locked(_JournalLock(self._folder / "queue")):
            latest = self._latest()
            for job in wanted:
                trial = latest.get(job)
                is_open = trial is not None and trial.state in (TrialState.WAITING, TrialState.RUNNING)
                is_done = trial is not None and trial.state == TrialState.COMPLETE and is_finished(job)
                if not is_open and not is_done:
                    attributes = {"variant": job.variant, "seed": job.seed, "fold": job.fold}
                    self._study.enqueue_trial({}, user_attrs=attributes)

    def take(self, wanted: Collection[Job]) -> TakenJob | None:
        """The next job that waits, or was left by a process that was killed; None: there is none at the moment."""
        busy: set[str] = set(self._held)
        for job, trial in self._latest().items():
            if job not in wanted or job.run in busy or trial.state.is_finished():
                continue
            lock = InheritedLock.take(self._folder / f"{job.run}.job.lock")
            busy.add(job.run)
            if lock is None:
                continue
            trial_id = self._storage.get_trial_id_from_study_id_trial_number(self._study_id, trial.number)
            state = self._latest()[job].state  # it may have been finished in between
            if state == TrialState.WAITING:
                is_ours = self._storage.set_trial_state_values(trial_id, state=TrialState.RUNNING)
            else:
                is_ours = state == TrialState.RUNNING
            if is_ours:
                self._held.add(job.run)
                return TakenJob(job=job, trial_id=trial_id, lock=lock)
            lock.release()
            busy.discard(job.run)
        return None

    def finish(self, taken: TakenJob, score: float | None, memory_bytes: int | None) -> None:
        """Record that a fold is trained.

        Args:
            taken: the job.
            score: macro ROC AUC of its best epoch; None: it is not known.
            memory_bytes: the most that its process had; None: another process trained it.
        """
        if memory_bytes is not None:
            self._storage.set_trial_user_attr(taken.trial_id, "memory_bytes", memory_bytes)
        self._storage.set_trial_state_values(taken.trial_id, TrialState.COMPLETE, [0.0 if score is None else score])
        self._let_go(taken)

    def fail(self, taken: TakenJob, error: str) -> None:
        """Record that it failed, and its last line."""
        self._storage.set_trial_user_attr(taken.trial_id, "error", error)
        self._storage.set_trial_state_values(taken.trial_id, TrialState.FAIL)
        self._let_go(taken)

    def give_back(self, taken: TakenJob) -> None:
        """Leave it to whoever takes it next: its state is that of a job whose process is gone."""
        self._let_go(taken)

    def states(self, wanted: Collection[Job]) -> dict[Job, TrialState]:
        """How far each job is."""
        latest = self._latest()
        return {job: latest[job].state for job in wanted}

    def errors(self, wanted: Collection[Job]) -> dict[Job, str]:
        """The last line of each job that has failed."""
        latest = self._latest()
        failed = (job for job in wanted if job in latest and latest[job].state == TrialState.FAIL)
        return {job: str(latest[job].user_attrs["error"]) for job in failed}

    def memory_bytes(self, job: Job) -> int | None:
        """The most that the process of a job had, of all its starts; None: it is not known."""
        known = [
            int(trial.user_attrs["memory_bytes"])
            for trial in self._trials()
            if _job_of(trial) == job and "memory_bytes" in trial.user_attrs
        ]
        return max(known, default=None)

    def _let_go(self, taken: TakenJob) -> None:
        self._held.discard(taken.job.run)
        taken.lock.release()

    def _trials(self) -> list[FrozenTrial]:
        return self._storage.get_all_trials(self._study_id, deepcopy=False)

    def _latest(self) -> dict[Job, FrozenTrial]:
        """The last trial of each job, in the order of the jobs' first ones."""
        latest: dict[Job, FrozenTrial] = {}
        for trial in self._trials():
            latest[_job_of(trial)] = trial
        return latest


def _job_of(trial: FrozenTrial) -> Job:
    attributes = trial.user_attrs
    return Job(variant=attributes["variant"], seed=attributes["seed"], fold=attributes["fold"])


class _JournalLock(JournalFileOpenLock):
    """The lock that the run folders have, which the system forgets with a process that is killed.

    Optuna's own are files that a killed process leaves: others then wait for half a minute.
    """

    def __init__(self, file: Path) -> None:
        self._lock = filelock.FileLock(file.with_name(f"{file.name}.lock"))

    def acquire(self) -> bool:
        self._lock.acquire()
        return True

    def release(self) -> None:
        self._lock.release()


@contextlib.contextmanager
def _locked(lock: JournalFileOpenLock) -> Iterator[None]:
    lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _mend_end(file: Path) -> None:
    """Remove a last line that is not whole, to which the next one would be appended."""
    if not file.exists():
        return
    content = file.read_bytes()
    if content and not content.endswith(b"\n"):
        with file.open("r+b") as journal:
            journal.truncate(content.rfind(b"\n") + 1)
