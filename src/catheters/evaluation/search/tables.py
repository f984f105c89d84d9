"""A search as text, for a terminal."""

from typing import Any

from catheters.errors import counted, listed
from catheters.evaluation.report.tables import text_table
from catheters.evaluation.search.results import SearchResult, TrialResult
from catheters.runtime.progress import duration

NUM_SHOWN = 10
"""Trials in the table; the page and the CSV have all."""
MAX_CELL = 32
"""Letters of a value in the table."""


def value_text(value: Any) -> str:
    """A value for people: `0.000312`, `resnet18`."""
    if isinstance(value, float):
        return f"{value:.3g}"
    return value if isinstance(value, str) else repr(value)


def auc_text(trial: TrialResult) -> str:
    """`0.8123`; a dash where there is none."""
    return "-" if trial.macro_auc is None else f"{trial.macro_auc:.4f}"


def time_text(trial: TrialResult) -> str:
    """How long it was trained; a dash where that is not known."""
    return "-" if trial.seconds is None else duration(trial.seconds)


def trials_table(result: SearchResult) -> str:
    """One row per complete trial, the best first."""
    rows = []
    for trial in result.complete[:NUM_SHOWN]:
        name = f"{trial.number}{' (base)' if result.is_base_first and trial.number == 0 else ''}"
        values = (value_text(trial.values[setting])[:MAX_CELL] for setting in result.space)
        rows.append([name, auc_text(trial), str(trial.epochs or "-"), time_text(trial), *values])
    return text_table(["trial", "macro AUC", "epochs", "training", *result.space], rows)


def search_text(result: SearchResult) -> str:
    """All that a terminal shows."""
    where = f"fold{'s' if len(result.folds) > 1 else ''} {listed(result.folds)}, seed {result.seed}"
    lines = [f"{result.name}: {counted(len(result.trials), 'trial')} on {where} ({result.describe_states()})", ""]
    if result.complete:
        lines += [trials_table(result), ""]
    if result.failed:
        lines += [f"{counted(len(result.failed), 'trial')} failed:"]
        lines += [f"  trial {trial.number}: {trial.error}" for trial in result.failed] + [""]
    lines.append(result.verdict)
    if result.best is not None and not result.is_base_best:
        lines += ["", f"  {result.comparison}"]
    return "\n".join(lines)
