"""What a search has found: its trials, the best of them, and what may be concluded."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from catheters.errors import counted, listed
from catheters.labels import ImageKind

State = Literal["complete", "pruned", "failed", "unfinished"]
"""What became of a trial; `unfinished`: another process is at it."""


@dataclass(frozen=True, kw_only=True)
class TrialResult:
    """One trial.

    Attributes:
        number: from 0.
        state: what became of it.
        macro_auc: macro ROC AUC of its best epoch, in 0..1, of several folds the mean; of a pruned one until it was
            stopped; None: it has none.
        epochs: of all its folds together; None: none is known.
        seconds: of all its folds together; None: they are not known.
        values: of the settings that vary; empty: it was not begun.
        error: why it failed, or an empty text.
    """

    number: int
    state: State
    macro_auc: float | None
    epochs: int | None
    seconds: float | None
    values: Mapping[str, Any]
    error: str


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    """A search.

    Attributes:
        name: of its folder.
        trials: in the order of their numbers.
        space: setting that varies -> what it may be, in words.
        log_settings: those of them whose values are drawn by their logarithm.
        folds: that each trial was trained and scored on.
        seed: of all trials.
        is_base_first: whether trial 0 has the values of the base.
        image_kind: of the X-rays.
        command: that made it.
        comparison: the command that says what the best trial is worth.
    """

    name: str
    trials: tuple[TrialResult, ...]
    space: Mapping[str, str]
    log_settings: frozenset[str]
    folds: tuple[int, ...]
    seed: int
    is_base_first: bool
    image_kind: ImageKind
    command: str
    comparison: str

    @property
    def complete(self) -> list[TrialResult]:
        """Trials that were trained in whole, the best first; of equal ones the earlier first."""
        complete = [trial for trial in self.trials if trial.state == "complete" and trial.macro_auc is not None]
        return sorted(complete, key=lambda trial: (-(trial.macro_auc or 0), trial.number))

    @property
    def best(self) -> TrialResult | None:
        """The best trial; None: none is complete."""
        return next(iter(self.complete), None)

    @property
    def is_base_best(self) -> bool:
        """Whether no trial was better than the base."""
        return self.is_base_first and self.best is not None and self.best.number == 0

    @property
    def failed(self) -> list[TrialResult]:
        """Trials that have failed."""
        return [trial for trial in self.trials if trial.state == "failed"]

    def describe_states(self) -> str:
        """How many trials there are of each state, in words."""
        states = [trial.state for trial in self.trials]
        return listed(f"{states.count(state)} {state}" for state in dict.fromkeys(sorted(states)))

    @property
    def verdict(self) -> str:
        """What may be concluded, in a sentence or two."""
        if self.best is None:
            return "no trial is complete, so nothing was found"
        where = f"fold{'s' if len(self.folds) > 1 else ''} {listed(self.folds)}"
        if self.is_base_best:
            return f"no trial was better than the base, which is trial 0, on {where}"
        return (
            f"trial {self.best.number} is the best of {counted(len(self.trials), 'trial')} on {where}; it was chosen "
            "by that very score, which is optimistic for it: a comparison with the base, over several seeds, decides"
        )
