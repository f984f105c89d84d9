"""What the trials of a search gave, and the configs that a comparison takes."""

import dataclasses
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

from optuna.trial import FrozenTrial, TrialState

from catheters.config.loading import config_text
from catheters.evaluation.search.results import SearchResult, State, TrialResult
from catheters.io.files import write_text
from catheters.runs.search.space import Search, Space
from catheters.runs.search.study import SearchQueue, TrialJob

BASE_FILE = "base.py"
BEST_FILE = "best.py"
TEXT_WIDTH = 100
STATES: Mapping[TrialState, State] = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "unfinished",
    TrialState.WAITING: "unfinished",
}


def read_trials(queue: SearchQueue, wanted: Sequence[TrialJob], space: Space) -> tuple[TrialResult, ...]:
    """What is known of each trial."""
    return tuple(_read_trial(job, trial, space) for job, trial in queue.trials(wanted).items())


def _read_trial(job: TrialJob, trial: FrozenTrial, space: Space) -> TrialResult:
    epochs, seconds = (trial.user_attrs.get(name) for name in ("epochs", "seconds"))
    has_score = trial.state in (TrialState.COMPLETE, TrialState.PRUNED)
    return TrialResult(
        number=job.number,
        state=STATES[trial.state],
        macro_auc=trial.value if has_score else None,
        epochs=epochs,
        seconds=seconds,
        values={name: space[name].value(parameter) for name, parameter in trial.params.items()},
        error=str(trial.user_attrs["error"]) if trial.state == TrialState.FAIL else "",
    )


def write_configs(folder: Path, search: Search, result: SearchResult) -> None:
    """Write the base and the best trial as configs, which a comparison takes as they are.

    Where no trial is better than the base there is no best one, and an earlier file of it is removed.
    """
    base = dataclasses.replace(search.base.settings, run_name=None)
    write_text(folder / BASE_FILE, config_text(base))
    best = result.best
    if best is None or result.is_base_best:
        (folder / BEST_FILE).unlink(missing_ok=True)
        return
    verdict = textwrap.fill(f"{result.verdict[:1].upper()}{result.verdict[1:]}:", TEXT_WIDTH)
    said = (
        f'"""{result.name}, trial {best.number}: macro ROC AUC {best.macro_auc:.4f}.\n\n{verdict}\n\n'
        f'  {result.comparison}\n\nResearch software, not a medical device.\n"""\n\n'
    )
    write_text(folder / BEST_FILE, said + config_text(dataclasses.replace(base, **best.values)))
