"""The figures of an external validation's page."""

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from catheters.evaluation.calibration import reliability
from catheters.evaluation.external.case_mix import FeatureShift
from catheters.evaluation.external.decision_curve import THRESHOLDS, DecisionCurve
from catheters.evaluation.external.measures import MEASURES
from catheters.evaluation.external.validation import ExternalValidation
from catheters.evaluation.intervals import Estimate
from catheters.evaluation.prediction_set import PredictionSet
from catheters.evaluation.report.figures import GREY, LEGEND, ReportFigure, as_svg
from catheters.viz.curves import BLUE, ORANGE

NUM_BINS = 30
RATIOS, RATIO_TICKS = (0.1, 10.0), (0.1, 0.25, 0.5, 1, 2, 4, 10)
"""Of observed over expected, that a figure shows; what is beyond ends at its edge."""
MOST_SHOWN = 99.5
"""Percentile of the distances at which a histogram ends; what is beyond is in its last bin."""


def draw_forest(validation: ExternalValidation, measure: str) -> ReportFigure | None:
    """One row per label: the number here, as the run's own was found, orange where it differs by more than chance."""
    shown = [result for result in validation.judged if result.alike[measure].is_defined]
    if not shown:
        return None
    figure = Figure(figsize=(6.2, 1.2 + 0.42 * len(shown)), layout="constrained")
    axes = figure.subplots()
    for row, result in enumerate(shown):
        colour = ORANGE if measure in result.alarms else BLUE
        for estimate, offset, of_colour, marker in (
            (result.own[measure], -0.15, GREY, "s"),
            (result.alike[measure], 0.15, colour, "o"),
        ):
            if not estimate.is_defined:
                continue
            if estimate.has_interval:
                axes.plot([estimate.low, estimate.high], [row + offset] * 2, color=of_colour, linewidth=2)
            axes.plot([estimate.value], [row + offset], marker, color=of_colour, markersize=5)
    axes.plot([], [], "s-", color=GREY, label="the run's own, out of fold")
    axes.plot([], [], "o-", color=BLUE, label=f"here, {validation.alike_name}")
    axes.plot([], [], "o-", color=ORANGE, label="here, differs by more than chance")
    if measure == "observed_to_expected":
        axes.axvline(1, color="black", linewidth=1, linestyle=":")
        axes.set_xscale("log")
        axes.set_xlim(*RATIOS)
        axes.set_xticks(RATIO_TICKS, [f"{tick:g}" for tick in RATIO_TICKS])
        axes.minorticks_off()
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.set_yticks(range(len(shown)), [result.label for result in shown], parse_math=False)
    axes.set_xlabel(f"{MEASURES[measure]} with 95% confidence interval")
    axes.grid(axis="x", alpha=0.3)
    figure.legend(**LEGEND, ncols=2)
    words = ", ".join(f"{of.label} {of.alike[measure].value:.3f} against {of.own[measure].value:.3f}" for of in shown)
    return as_svg(figure, f"{MEASURES[measure]} here, {validation.alike_name}, and out of fold: {words}")


def draw_calibration(validation: ExternalValidation, k: int, recalibrated: PredictionSet) -> ReportFigure:
    """The calibration curve of a label before and after local recalibration, which is judged on other patients."""
    evaluated = validation.predictions.evaluated
    label, of_label = evaluated.labels[k], evaluated.of_label(k)
    figure = Figure(figsize=(3.8, 4.6), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=":")
    curve = validation.calibration_curves.get(label)
    if curve is not None:
        low, high = ([getattr(of, end) for of in curve.observed] for end in ("low", "high"))
        axes.fill_between(curve.predicted, low, high, color=BLUE, alpha=0.2, linewidth=0)
        axes.plot(curve.predicted, [of.value for of in curve.observed], color=BLUE, label="as it is, with 95% interval")
    errors = []
    for of, style, name in ((of_label, "o", "as it is, tenths of the images"), (recalibrated.of_label(k), "s", None)):
        bins = reliability(of.targets, of.probabilities)
        errors.append(bins.expected_error)
        colour = BLUE if name else ORANGE
        axes.plot(bins.predicted, bins.observed, style, color=colour, markersize=4, label=name or "recalibrated there")
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel="predicted probability", ylabel="share of positives")
    axes.grid(alpha=0.3)
    figure.legend(**LEGEND)
    return as_svg(
        figure,
        f"Calibration curve of {label}: expected calibration error {errors[0]:.3f}, {errors[1]:.3f} after local "
        "recalibration",
    )


def draw_decision(curve: DecisionCurve, own: DecisionCurve | None) -> ReportFigure:
    """The net benefit of a label's probabilities, of acting on everybody and on nobody; the run's own where known."""
    figure = Figure(figsize=(3.8, 4.6), layout="constrained")
    axes = figure.subplots()

    def values(estimates: tuple[Estimate, ...], name: str = "value") -> list[float]:
        return [getattr(estimate, name) for estimate in estimates]

    here, low, high = (values(curve.net_benefit, name) for name in ("value", "low", "high"))
    axes.fill_between(THRESHOLDS, low, high, color=BLUE, alpha=0.2, linewidth=0)
    axes.plot(THRESHOLDS, here, color=BLUE, label="act on the model, with 95% interval")
    axes.plot(THRESHOLDS, values(curve.treat_all), color=ORANGE, linestyle="--", label="act on everybody")
    axes.axhline(0, color=GREY, linewidth=1, label="act on nobody")
    of_own = [] if own is None else values(own.net_benefit)
    if of_own:
        axes.plot(THRESHOLDS, of_own, color=GREY, linestyle=":", label="the model, own images")
    highest = max([*here, *values(curve.treat_all), *of_own, 0.01])
    axes.set_ylim(-0.25 * highest, 1.15 * highest)
    acted = [threshold for threshold, value in zip(THRESHOLDS, here, strict=True) if value]
    axes.set_xlim(0, max(acted[-1] + 0.05 if acted else 0, 0.3))
    axes.set(xlabel="probability from which on one acts", ylabel="net benefit")
    axes.grid(alpha=0.3)
    figure.legend(**LEGEND)
    useful = f"from {curve.useful[0]:g} to {curve.useful[-1]:g}" if curve.useful else "nowhere"
    return as_svg(figure, f"Decision curve of {curve.label}: better than acting on everybody or nobody {useful}")


def draw_distances(features: FeatureShift) -> ReportFigure:
    """How far the images lie from what the models were validated on."""
    figure = Figure(figsize=(6.2, 3.2), layout="constrained")
    axes = figure.subplots()
    here = features.of_models[np.isfinite(features.of_models)]
    own = features.own
    both = here if own is None else np.concatenate([here, own])
    end = max(float(np.percentile(both, MOST_SHOWN)), 1.1)
    bins = np.linspace(0, end, NUM_BINS + 1).tolist()

    def draw(distances: npt.NDArray[np.float64], colour: str, label: str) -> None:
        weights = np.full(len(distances), 1 / len(distances))
        axes.hist(np.minimum(distances, end), bins, weights=weights, color=colour, alpha=0.55, label=label)

    if own is not None:
        draw(own, GREY, "the run's own images")
    draw(here, BLUE, "images from elsewhere")
    axes.axvline(1, color="black", linewidth=1, linestyle=":", label="99% of ordinary images are nearer")
    axes.set(xlabel="distance of the features", ylabel="share of the images")
    axes.grid(axis="y", alpha=0.3)
    figure.legend(**LEGEND, ncols=2)
    beside = "" if own is None else f", of the run's own {float(np.median(own)):.2f}"
    return as_svg(figure, f"Distance of the features: median here {float(np.median(here)):.2f}{beside}")
