"""The trials of a search, in an Optuna study that several processes and machines share."""

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import optuna
from optuna.distributions import BaseDistribution
from optuna.pruners import MedianPruner
from optuna.samplers import BaseSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from catheters.config.compatibility import MAY_CHANGE
from catheters.config.loading import settings_to_json
from catheters.config.settings import FIELDS, Settings
from catheters.errors import UserError
from catheters.runs.comparison.queue import AnyJob, StudyQueue, TakenJob
from catheters.runs.search.space import Space

STUDY = "search"
COMPLETE_BEFORE_PRUNING = 5
"""Trials that are trained in whole before the first one is pruned: Optuna's own default."""
DEFINITION = "definition"


@dataclass(frozen=True, kw_only=True, order=True)
class TrialJob(AnyJob):
    """A trial of the search, by its number from 0."""

    NOUN: ClassVar[str] = "trial"
    number: int

    @property
    def run(self) -> str:
        """Name of its run."""
        return f"trial{self.number:03d}"

    def __str__(self) -> str:
        return f"trial {self.number}"


class SeededSampler(BaseSampler):
    """The tree-structured Parzen estimator, whose draws follow from seed, trial and setting and from earlier trials.

    There is no state of a generator that a killed process could lose, or that two processes would share: Optuna's own
    starts over with each process and proposes the same again. Each setting is drawn by itself, as is Optuna's default
    (Bergstra et al. 2011, "Algorithms for hyper-parameter optimization").
    """

    def __init__(self, seed: int) -> None:
        """Draw by a seed."""
        self._seed = seed

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Nothing is drawn together."""
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Nothing is drawn together."""
        return {}

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """The value of a setting."""
        text = json.dumps([self._seed, trial.user_attrs["number"], param_name])
        seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
        return TPESampler(seed=seed).sample_independent(study, trial, param_name, param_distribution)


class SearchQueue(StudyQueue[TrialJob]):
    """The trials of a search."""

    IF_DAMAGED: ClassVar[str] = "restore it, or give the search another --name: a new file proposes other trials"

    def __init__(self, folder: Path, seed: int, *, first: Mapping[str, Any] | None = None, warmup_epochs: int = 0):
        """Open the file in the search's folder, or make it.

        Args:
            folder: of the search.
            seed: of what is proposed.
            first: what trial 0 has, as Optuna keeps it; nothing: it is drawn.
            warmup_epochs: of a trial that asks whether to be pruned: it is not, before the epoch after them.

        Raises:
            UserError: the file is damaged, or holds a comparison.
        """
        super().__init__(folder, TrialJob, STUDY, direction="maximize")
        self._sampler = SeededSampler(seed)
        self._pruner = MedianPruner(n_startup_trials=COMPLETE_BEFORE_PRUNING, n_warmup_steps=warmup_epochs + 1)
        self._first = dict(first or {})

    def _first_parameters(self, job: TrialJob) -> Mapping[str, Any]:
        return self._first if job.number == 0 else {}

    def define(self, definition: Mapping[str, Any]) -> None:
        """Keep what the search is, or make sure that it is the same.

        Args:
            definition: name -> what JSON can hold, see `definition_of`.

        Raises:
            UserError: the folder holds another search.
        """
        with self.alone():
            earlier = self._study.user_attrs.get(DEFINITION)
            if earlier is None:
                self._study.set_user_attr(DEFINITION, dict(definition))
                return
        for name in {**earlier, **definition}:
            old, new = earlier.get(name, "absent"), definition.get(name, "absent")
            is_of_version = name in FIELDS and "absent" in (old, new)  # a setting that another version has
            if old != new and not is_of_version:
                raise UserError(
                    f"{self._folder}: holds another search: {name} was {old!r}, is {new!r}; set it as it was, or give "
                    "another --name"
                )

    def trial(self, trial_id: int) -> optuna.Trial:
        """A trial that is being worked on, as Optuna gives it."""
        # Of a study object of its own: one that is not asked by `ask` reads the other trials once and no more.
        study = optuna.load_study(study_name=STUDY, storage=self._storage, sampler=self._sampler, pruner=self._pruner)
        return optuna.Trial(study, trial_id)

    def suggest(self, taken: TakenJob[TrialJob], space: Space) -> dict[str, Any]:
        """The values of a trial's settings; those of a trial that was begun before are what they were."""
        trial = self.trial(taken.trial_id)
        return {name: dimension.suggest(trial, name) for name, dimension in space.items()}

    def trials(self, wanted: Collection[TrialJob]) -> dict[TrialJob, FrozenTrial]:
        """The last attempt at each."""
        latest = self._latest()
        return {job: latest[job] for job in wanted if job in latest}

    def describe_best(self, wanted: Collection[TrialJob]) -> str:
        """The best trial so far, as the end of a sentence."""
        complete = {job: trial for job, trial in self.trials(wanted).items() if trial.state == TrialState.COMPLETE}
        best = max(complete, key=lambda job: (complete[job].value, -job.number), default=None)
        return "" if best is None else f", the best so far is {best} with {complete[best].value:.4f}"


def definition_of(base: Settings, space: Space, folds: Sequence[int], seed: int) -> dict[str, Any]:
    """What has to stay the same for trials to be comparable: name -> what JSON can hold."""
    settings = {name: value for name, value in json.loads(settings_to_json(base)).items() if name not in MAY_CHANGE}
    described = {f"space[{name!r}]": str(dimension) for name, dimension in space.items()}
    return {**settings, **described, "--folds": list(folds), "--seeds": seed}
