"""The figures of a comparison's page."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from catheters.evaluation.report.figures import GREY, LEGEND, ReportFigure, as_svg
from catheters.evaluation.variants.comparison import VariantComparison
from catheters.evaluation.variants.seeds import MACRO, SeedDifference
from catheters.viz.curves import BLUE, ORANGE

COLOURS = (GREY, BLUE, ORANGE, "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
"""Of the variants, the first one first; from the palette of Okabe and Ito, which the colour-blind can tell apart."""
STYLES = ("-", "--", "-.", ":")
MARKERS = "osD^vP"
MAX_NAME = 28
"""Letters of a name beside a figure; more would leave the figure no room."""


def draw_macro(comparison: VariantComparison) -> ReportFigure | None:
    """One row per variant: the difference of the macro mean with its interval, and that of each seed as a dot."""
    found = [(result.name, result.macro) for result in comparison.others if result.macro is not None]
    return _forest([(name, difference) for name, difference in found if difference], "macro ROC AUC")


def draw_labels(comparison: VariantComparison, number: int) -> ReportFigure | None:
    """One row per label: the difference of a variant, by its number from 1."""
    result = comparison.results[number]
    rows = [(label, found) for label, found in result.differences.items() if label != MACRO]
    return _forest(rows, f"ROC AUC, {_short(result.name)} - {_short(comparison.first.name)}")


def _forest(rows: Sequence[tuple[str, SeedDifference]], what: str) -> ReportFigure | None:
    rows = [(name, found) for name, found in rows if found.estimate.is_defined]
    if not rows:
        return None
    figure = Figure(figsize=(6.2, 1.25 + 0.34 * len(rows)), layout="constrained")
    axes = figure.subplots()
    for row, (_, found) in enumerate(rows):
        estimate = found.estimate
        colour = BLUE if found.leaves_out_zero else GREY
        if estimate.has_interval:
            axes.plot([estimate.low, estimate.high], [row, row], color=colour, linewidth=2, solid_capstyle="butt")
            axes.plot([estimate.low, estimate.high], [row, row], "|", color=colour, markersize=9)
        seeds = found.of_seeds
        axes.plot(seeds, np.full(len(seeds), row + 0.22), ".", color=ORANGE, markersize=5, alpha=0.8)
        axes.plot([estimate.value], [row], "o", color=colour, markersize=6)
    axes.axvline(0, color="black", linewidth=1)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_yticks(range(len(rows)), [_short(name) for name, _ in rows], parse_math=False)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6))
    axes.set_xlabel(f"difference of {what}\nblue: the interval leaves out 0; small dots: seeds", parse_math=False)
    axes.grid(axis="x", alpha=0.3)
    words = ", ".join(f"{name} {found.estimate.value:+.4f}" for name, found in rows)
    return as_svg(figure, f"Differences of {what} with intervals: {words}")


def draw_seeds(comparison: VariantComparison) -> ReportFigure | None:
    """The macro ROC AUC of each variant's seeds, those of one seed joined by a line."""
    results = [result for result in comparison.results if len(result.aucs)]
    if not results:
        return None
    figure = Figure(figsize=(6.2, 3.4), layout="constrained")
    axes = figure.subplots()
    for position, seed in enumerate(comparison.seeds):
        points = [
            (place, result.aucs[list(result.given.runs).index(seed)])
            for place, result in enumerate(results)
            if seed in result.given.runs
        ]
        if points:
            places, aucs = zip(*points, strict=True)
            marker = MARKERS[position % len(MARKERS)]
            colour = COLOURS[1:][position % (len(COLOURS) - 1)]
            axes.plot(places, aucs, marker=marker, color=colour, linewidth=0.8, markersize=5, label=f"seed {seed}")
    names = [_short(result.name) for result in results]
    is_crowded = sum(map(len, names)) > 60
    axes.set_xticks(range(len(results)), names, parse_math=False)
    if is_crowded:
        for text in axes.get_xticklabels():
            text.set(rotation=30, ha="right", rotation_mode="anchor")
    axes.set_xlim(-0.4, len(results) - 0.6)
    axes.set_ylabel("macro ROC AUC")
    axes.grid(axis="y", alpha=0.3)
    figure.legend(**LEGEND, ncols=min(len(comparison.seeds), 5))
    words = ", ".join(f"{result.name} {np.nanmean(result.aucs):.4f}" for result in results)
    return as_svg(figure, f"Macro ROC AUC of each seed; means: {words}")


def draw_curves(comparison: VariantComparison) -> ReportFigure | None:
    """Learning curves: macro ROC AUC of the validation folds over the epochs, the mean over folds and seeds."""
    results = [result for result in comparison.results if result.given.curve]
    if not results:
        return None
    figure = Figure(figsize=(6.2, 3.4), layout="constrained")
    axes = figure.subplots()
    for number, result in enumerate(results):
        epochs, scores = zip(*sorted(result.given.curve.items()), strict=True)
        colour, style = COLOURS[number % len(COLOURS)], STYLES[number % len(STYLES)]
        axes.plot(epochs, scores, label=_short(result.name), color=colour, linestyle=style)
    axes.set_xlabel("epoch")
    axes.set_ylabel("macro ROC AUC, validation")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    figure.legend(**LEGEND, ncols=min(len(results), 3))
    names = ", ".join(result.name for result in results)
    return as_svg(figure, f"Macro ROC AUC of the validation folds over the epochs, of {names}")


def _short(name: str) -> str:
    return name if len(name) <= MAX_NAME else name[: MAX_NAME - 3] + "..."
