"""The figures of a search's page: how the score rose with the trials, and with each setting."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from catheters.evaluation.report.figures import GREY, LEGEND, ReportFigure, as_svg
from catheters.evaluation.search.results import SearchResult, TrialResult
from catheters.evaluation.search.tables import value_text
from catheters.viz.curves import BLUE, ORANGE

NUM_LOG_TICKS = 3
"""Of a narrow figure; matplotlib's own run into each other."""
MAX_NAME = 18
"""Letters of a choice below an axis."""


def draw_history(result: SearchResult) -> ReportFigure | None:
    """The score of each trial in their order, and the best so far; None where none has a score."""
    scored = [trial for trial in result.trials if trial.macro_auc is not None]
    if not scored:
        return None
    figure = Figure(figsize=(6.2, 3.4), layout="constrained")
    axes = figure.subplots()
    _scatter(axes, scored, [float(trial.number) for trial in scored])
    complete = sorted(result.complete, key=lambda trial: trial.number)
    if complete:
        numbers = [trial.number for trial in complete]
        best = np.maximum.accumulate([trial.macro_auc or 0.0 for trial in complete])
        axes.step([*numbers, scored[-1].number], [*best, best[-1]], where="post", color=ORANGE, label="best so far")
    axes.set_xlabel("trial")
    axes.set_ylabel("macro ROC AUC, validation")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    figure.legend(**LEGEND, ncols=3)
    words = "none complete" if result.best is None else f"the best is trial {result.best.number}"
    return as_svg(figure, f"Macro ROC AUC of {len(scored)} trials in their order; {words}")


def draw_setting(result: SearchResult, name: str) -> ReportFigure | None:
    """The score of each trial over a setting's value; None where none has a score."""
    scored = [trial for trial in result.trials if trial.macro_auc is not None]
    if not scored:
        return None
    figure = Figure(figsize=(3.3, 3.0), layout="constrained")
    axes = figure.subplots()
    values = [trial.values[name] for trial in scored]
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        _scatter(axes, scored, [float(value) for value in values])
        if name in result.log_settings:
            axes.set_xscale("log")
            ticks = np.unique(np.geomspace(min(values), max(values), NUM_LOG_TICKS))
            axes.set_xticks(ticks, [f"{tick:.2g}" for tick in ticks])
            axes.minorticks_off()
    else:
        texts = list(dict.fromkeys(sorted(map(value_text, values))))
        _scatter(axes, scored, [float(texts.index(value_text(value))) for value in values])
        axes.set_xticks(range(len(texts)), [text[:MAX_NAME] for text in texts], parse_math=False)
        axes.set_xlim(-0.5, len(texts) - 0.5)
        for label in axes.get_xticklabels():
            label.set(rotation=30, ha="right", rotation_mode="anchor")
    axes.set_xlabel(name, parse_math=False)
    axes.set_ylabel("macro ROC AUC")
    axes.grid(alpha=0.3)
    return as_svg(figure, f"Macro ROC AUC of {len(scored)} trials over {name}")


def _scatter(axes: Axes, trials: list[TrialResult], places: list[float]) -> None:
    """A dot per complete trial, a cross per pruned one."""
    for state, marker, colour in (("complete", "o", BLUE), ("pruned", "x", GREY)):
        chosen = [(place, trial.macro_auc) for place, trial in zip(places, trials, strict=True) if trial.state == state]
        if chosen:
            axes.plot(*zip(*chosen, strict=True), marker, color=colour, markersize=5, label=state)
