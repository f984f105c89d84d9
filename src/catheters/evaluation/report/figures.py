"""The report's figures: small, one thing each, as SVG in a data URL."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.metrics import precision_recall_curve, roc_curve

from catheters.errors import counted
from catheters.evaluation.calibration import reliability
from catheters.evaluation.intervals import Estimate
from catheters.evaluation.lines.agreement import Agreement
from catheters.evaluation.operating_points import OperatingPoint
from catheters.viz import svg
from catheters.viz.curves import BLUE, ORANGE

Floats = npt.NDArray[np.float64]

MAX_POINTS = 200
"""Of a curve that is drawn: more cannot be seen."""
MAX_PAIRS = 1000
"""Of measurements that are drawn, a dot each; the lines are those of all."""
GREY = "#6e7781"
CHANCE_AUC = 0.5
LEGEND: Mapping[str, Any] = MappingProxyType({"loc": "outside lower center", "fontsize": 9, "edgecolor": "none"})
"""Of each figure: below the axes, so that it covers nothing."""


@dataclass(frozen=True, kw_only=True)
class ReportFigure:
    """A figure with what it shows in words, for who cannot see it."""

    url: str
    text: str


def draw_aucs(names: Sequence[str], estimates: Sequence[Estimate]) -> ReportFigure:
    """One row per label: its ROC AUC and the interval."""
    figure = Figure(figsize=(6.2, 0.9 + 0.28 * len(names)), layout="constrained")
    axes = figure.subplots()
    rows = np.arange(len(names))
    values = np.array([estimate.value for estimate in estimates])
    # A value may lie outside of its interval, by rounding or by chance; without one it is a dot.
    below = np.nan_to_num(np.maximum(values - [estimate.low for estimate in estimates], 0))
    above = np.nan_to_num(np.maximum([estimate.high for estimate in estimates] - values, 0))
    axes.errorbar(values, rows, xerr=[below, above], fmt="o", color=BLUE, ecolor=BLUE, capsize=3, markersize=5)
    axes.set_yticks(rows, names, parse_math=False)
    axes.invert_yaxis()
    axes.axvline(CHANCE_AUC, color=GREY, linewidth=1, linestyle=":")
    axes.set_xlabel("ROC AUC with 95% confidence interval; dotted: chance")
    axes.grid(axis="x", alpha=0.3)
    words = ", ".join(f"{name} {value:.3f}" for name, value in zip(names, values, strict=True))
    return as_svg(figure, f"ROC AUC with intervals: {words}")


def draw_roc(
    label: str, targets: npt.NDArray[np.uint8], scores: Floats, area: Estimate, point: OperatingPoint
) -> ReportFigure:
    """The ROC curve of a label, with its operating point."""
    figure, axes = _small("1 - specificity", "sensitivity")
    false, found, _ = roc_curve(targets, scores)
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=":", label="chance")
    axes.plot(*thin(false, found), color=BLUE)
    axes.plot([1 - point.specificity.value], [point.sensitivity.value], "o", color=ORANGE, label="operating point")
    figure.legend(**LEGEND)
    axes.set_title(f"ROC, AUC {area.value:.3f}")
    return as_svg(
        figure,
        f"ROC curve of {label}, AUC {area.value:.3f}; the operating point has sensitivity "
        f"{point.sensitivity.value:.3f} and specificity {point.specificity.value:.3f}",
    )


def draw_precision_recall(
    label: str, targets: npt.NDArray[np.uint8], scores: Floats, precision: Estimate, point: OperatingPoint
) -> ReportFigure:
    """The precision-recall curve of a label, with its operating point and the prevalence."""
    figure, axes = _small("sensitivity (recall)", "PPV (precision)")
    precisions, recalls, _ = precision_recall_curve(targets, scores)
    precisions[-1] = precisions[-2]  # the last one, 1 at a recall of 0, is scikit-learn's and no threshold's
    prevalence = float(targets.mean())
    axes.axhline(prevalence, color=GREY, linewidth=1, linestyle=":", label=f"prevalence {prevalence:.3f}")
    axes.plot(*thin(recalls, precisions), color=BLUE, drawstyle="steps-post")
    found, false, missed, _ = point.confusion
    if found + false:
        axes.plot([found / (found + missed)], [found / (found + false)], "o", color=ORANGE, label="operating point")
    figure.legend(**LEGEND)
    axes.set_title(f"precision and recall, AP {precision.value:.3f}")
    return as_svg(
        figure,
        f"Precision-recall curve of {label}, average precision {precision.value:.3f}, prevalence {prevalence:.3f}",
    )


def draw_reliability(
    label: str, targets: npt.NDArray[np.uint8], before: Floats, after: Floats, method: str
) -> ReportFigure:
    """The reliability curve of a label, as it is and calibrated."""
    figure, axes = _small("predicted probability", "share of positives")
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=":")
    curve = reliability(targets, before)
    axes.plot(
        curve.predicted,
        curve.observed,
        "o-",
        color=BLUE,
        markersize=4,
        label=f"not calibrated, ECE {curve.expected_error:.3f}",
    )
    words = f"expected calibration error {curve.expected_error:.3f}"
    if method != "none":
        calibrated = reliability(targets, after)
        name = f"{method}, ECE {calibrated.expected_error:.3f}"
        axes.plot(calibrated.predicted, calibrated.observed, "s--", color=ORANGE, markersize=4, label=name)
        words += f", {calibrated.expected_error:.3f} after calibration by {method}"
    figure.legend(**LEGEND)
    axes.set_title("reliability")
    return as_svg(figure, f"Reliability curve of {label}: {words}")


def draw_agreement(name: str, unit: str, predicted: Floats, truth: Floats, agreement: Agreement) -> ReportFigure:
    """Difference against mean of two measurements, with the mean difference and the limits (Bland and Altman 1986).

    Args:
        name: what was measured.
        unit: of the measurements.
        predicted: (n,); NaN where there is none.
        truth: (n,) likewise.
        agreement: of the same measurements.
    """
    figure = Figure(figsize=(4.6, 3.75), layout="constrained")
    axes = figure.subplots()
    rows = np.flatnonzero(~np.isnan(predicted - truth))
    shown = rows[np.unique(np.linspace(0, len(rows) - 1, min(len(rows), MAX_PAIRS)).astype(np.intp))]
    means, differences = (predicted + truth)[shown] / 2, (predicted - truth)[shown]
    axes.axhline(0, color=GREY, linewidth=1, linestyle=":")
    axes.plot(means, differences, "o", color=BLUE, markersize=4, alpha=0.6)
    words = "nothing to compare"
    if agreement.mean_difference.is_defined:
        value = agreement.mean_difference.value
        axes.axhline(value, color=ORANGE, label=f"mean {value:.2f}")
        words = f"mean difference {value:.2f} {unit}, no limits of agreement"
    if agreement.lower_limit.is_defined:
        lower, upper = agreement.lower_limit.value, agreement.upper_limit.value
        axes.axhline(lower, color=ORANGE, linestyle="--", label=f"limits {lower:.2f} to {upper:.2f}")
        axes.axhline(upper, color=ORANGE, linestyle="--")
        words = f"mean difference {value:.2f} {unit}, limits of agreement {lower:.2f} to {upper:.2f} {unit}"
    if agreement.num_pairs:
        figure.legend(**LEGEND)
    axes.set_xlabel(f"mean of predicted and true ({unit})", parse_math=False)
    axes.set_ylabel(f"predicted - true ({unit})", parse_math=False)
    axes.set_title(name if len(shown) == len(rows) else f"{name}, {len(shown)} of {len(rows)}", parse_math=False)
    axes.grid(alpha=0.3)
    pairs = counted(agreement.num_pairs, "pair")
    return as_svg(figure, f"Difference against mean of {name}, {pairs}: {words}")


def _small(x: str, y: str) -> tuple[Figure, Axes]:
    """A square with both axes from 0 to 1, and room for a legend of two lines below."""
    figure = Figure(figsize=(3.3, 3.75), layout="constrained")
    axes = figure.subplots()
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel=x, ylabel=y, aspect="equal")
    axes.grid(alpha=0.3)
    return figure, axes


def thin(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Of a curve's points at most about `MAX_POINTS`, evenly along its length, the ends among them."""
    length = np.append(0, np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y))))
    kept = np.unique(np.searchsorted(length, np.linspace(0, length[-1], MAX_POINTS)))
    return x[kept], y[kept]


def as_svg(figure: Figure, text: str) -> ReportFigure:
    """A figure for a page, with what it shows in words."""
    return svg_figure(svg.as_svg(figure), text)


def svg_figure(content: bytes, text: str) -> ReportFigure:
    """The same of an SVG."""
    return ReportFigure(url="data:image/svg+xml;base64," + base64.b64encode(content).decode(), text=text)
