"""The jobs of a command, as trials of an Optuna study in one file, which several processes and machines share.

A job of a comparison is one variant, seed and fold; that of a search is one trial. It waits, runs, is complete, pruned
or has failed, as Optuna's trials do. Who works on a job holds the lock of its run. A job that runs by its state while
that lock is free was left by a process that was killed, and whoever takes the lock takes it over.
"""

import contextlib
import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Generic, TypeVar

import filelock
import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, TrialState

from catheters.errors import UserError, one_line
from catheters.io.locks import InheritedLock

FILE_NAME = "jobs.journal"


@dataclass(frozen=True, kw_only=True, order=True)
class AnyJob(ABC):
    """What is trained at a time; its fields say what, and are attributes of its trial in the study."""

    NOUN: ClassVar[str] = "job"

    @property
    @abstractmethod
    def run(self) -> str:
        """Name of the run that it is a part of."""


J = TypeVar("J", bound=AnyJob)


@dataclass(frozen=True, kw_only=True, order=True)
class Job(AnyJob):
    """A variant by the name of its files, a seed and a fold."""

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
class TakenJob(Generic[J]):
    """A job that this process works on, until `StudyQueue.finish` or `StudyQueue.fail`."""

    job: J
    trial_id: int
    lock: InheritedLock


class StudyQueue(Generic[J]):
    """The jobs in a folder."""

    IF_DAMAGED: ClassVar[str] = "delete it: what is trained is found again"

    def __init__(
        self,
        folder: Path,
        kind: type[J],
        study_name: str,
        *,
        direction: str = "minimize",
    ) -> None:
        """Open the file, or make it; what a power cut has left of a last line is removed.

        Args:
            folder: holds the file.
            kind: of the jobs.
            study_name: what the jobs are parts of.
            direction: "minimize" or "maximize" the score, for those that propose further trials by it.

        Raises:
            UserError: the file is damaged, or holds jobs of another kind.
        """
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._folder = folder
        self._kind = kind
        file = folder / FILE_NAME
        lock = _JournalLock(file)
        with _locked(lock):
            _mend_end(file)
        try:
            self._storage = JournalStorage(JournalFileBackend(str(file), lock_obj=lock))
            held = [of.study_name for of in self._storage.get_all_studies() if of.study_name != study_name]
            if held:
                raise UserError(f"{folder}: holds a {held[0]}; give the {study_name} another --name")
            study = optuna.create_study(
                storage=self._storage,
                study_name=study_name,
                direction=direction,
                load_if_exists=True,
            )
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{file}: damaged ({one_line(error, 120)}); {self.IF_DAMAGED}") from None
        self._study = study
        self._study_id = self._storage.get_study_id_from_name(study_name)
        self._held: set[str] = set()

    def fill(self, wanted: Iterable[J], is_finished: Callable[[J], bool]) -> None:
        """Enqueue what is wanted and neither waits nor runs, nor is finished.

        Jobs that have failed are enqueued again: the same command tries once more.

        Args:
            wanted: all jobs of the command, in the order in which they are to be done.
            is_finished: whether a job's fold is trained; asked of those that are complete.
        """
        with self.alone():
            latest = self._latest()
            for job in wanted:
                trial = latest.get(job)
                is_open = trial is not None and trial.state in (TrialState.WAITING, TrialState.RUNNING)
                is_pruned = trial is not None and trial.state == TrialState.PRUNED
                is_done = trial is not None and trial.state == TrialState.COMPLETE and is_finished(job)
                if not is_open and not is_pruned and not is_done:
                    parameters = self._first_parameters(job) if trial is None else trial.params
                    self._study.enqueue_trial(dict(parameters), user_attrs=dataclasses.asdict(job))

    def _first_parameters(self, job: J) -> Mapping[str, Any]:
        """Parameters that a new trial has whatever the sampler says."""
        return {}

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """One process of the command after another does what is done in here: reads all jobs, or writes the report."""
        with _locked(_JournalLock(self._folder / "queue")):
            yield

    def take(self, wanted: Collection[J]) -> TakenJob[J] | None:
        """The next job that waits, or was left by a process that was killed; None: there is none at the moment."""
        busy: set[str] = set(self._held)
        for job, listed in self._latest().items():
            if job not in wanted or job.run in busy or listed.state.is_finished():
                continue
            lock = InheritedLock.take(self._folder / f"{job.run}.job.lock")
            busy.add(job.run)
            if lock is None:
                continue
            trial = self._latest()[job]  # it may have been finished in between, or failed and be there once more
            trial_id = self._storage.get_trial_id_from_study_id_trial_number(self._study_id, trial.number)
            if trial.state == TrialState.WAITING:
                is_ours = self._storage.set_trial_state_values(trial_id, state=TrialState.RUNNING)
            else:
                is_ours = trial.state == TrialState.RUNNING
            if is_ours:
                self._held.add(job.run)
                return TakenJob(job=job, trial_id=trial_id, lock=lock)
            lock.release()
            busy.discard(job.run)
        return None

    def finish(
        self,
        taken: TakenJob[J],
        score: float | None,
        memory_bytes: int | None,
        *,
        is_pruned: bool = False,
        facts: Mapping[str, float] = MappingProxyType({}),
    ) -> None:
        """Record that a job is trained.

        Args:
            taken: the job.
            score: macro ROC AUC of its best epoch, of several folds the mean; None: it is not known.
            memory_bytes: the most that its process had; None: it is not known.
            is_pruned: whether it was stopped because others are better.
            facts: further numbers to keep, by name.
        """
        for name, number in facts.items():
            self._storage.set_trial_user_attr(taken.trial_id, name, number)
        if memory_bytes is not None:
            self._storage.set_trial_user_attr(taken.trial_id, "memory_bytes", memory_bytes)
        state = TrialState.PRUNED if is_pruned else TrialState.COMPLETE
        self._storage.set_trial_state_values(taken.trial_id, state, [0.0 if score is None else score])
        self._let_go(taken)

    def fail(self, taken: TakenJob[J], error: str) -> None:
        """Record that it failed, and its last line."""
        self._storage.set_trial_user_attr(taken.trial_id, "error", error)
        self._storage.set_trial_state_values(taken.trial_id, TrialState.FAIL)
        self._let_go(taken)

    def give_back(self, taken: TakenJob[J]) -> None:
        """Leave it to whoever takes it next: its state is that of a job whose process is gone."""
        self._let_go(taken)

    def states(self, wanted: Collection[J]) -> dict[J, TrialState]:
        """How far each job is."""
        latest = self._latest()
        return {job: latest[job].state for job in wanted}

    def errors(self, wanted: Collection[J]) -> dict[J, str]:
        """The last line of each job that has failed."""
        latest = self._latest()
        failed = (job for job in wanted if job in latest and latest[job].state == TrialState.FAIL)
        return {job: str(latest[job].user_attrs["error"]) for job in failed}

    def describe_best(self, wanted: Collection[J]) -> str:
        """Which job is the best so far, as the end of a sentence; nothing where none is sought."""
        return ""

    def memory_bytes(self, job: J) -> int | None:
        """The most that the process of a job had, of all its starts; None: it is not known."""
        known = [
            int(trial.user_attrs["memory_bytes"])
            for trial in self._trials()
            if self._job_of(trial) == job and "memory_bytes" in trial.user_attrs
        ]
        return max(known, default=None)

    def _let_go(self, taken: TakenJob[J]) -> None:
        self._held.discard(taken.job.run)
        taken.lock.release()

    def _trials(self) -> list[FrozenTrial]:
        return self._storage.get_all_trials(self._study_id, deepcopy=False)

    def _latest(self) -> dict[J, FrozenTrial]:
        """The last trial of each job, in the order of the jobs' first ones."""
        latest: dict[J, FrozenTrial] = {}
        for trial in self._trials():
            latest[self._job_of(trial)] = trial
        return latest

    def _job_of(self, trial: FrozenTrial) -> J:
        return self._kind(**{field.name: trial.user_attrs[field.name] for field in dataclasses.fields(self._kind)})


class JobQueue(StudyQueue[Job]):
    """The jobs of a comparison."""

    def __init__(self, folder: Path) -> None:
        """Open the file in the comparison's folder, or make it; see `StudyQueue`."""
        super().__init__(folder, Job, "comparison")


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
