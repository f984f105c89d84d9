"""What was found out as text, for a terminal."""

import dataclasses
import math
from collections.abc import Iterable, Sequence

from catheters.errors import counted
from catheters.evaluation.comparison import Comparison
from catheters.evaluation.ensemble import METHODS, Ensemble
from catheters.evaluation.evaluation import Evaluation
from catheters.evaluation.hard_cases import SharedCases
from catheters.evaluation.intervals import FEW_PATIENTS_MARK, Estimate
from catheters.evaluation.lines.comparison import TipCase
from catheters.evaluation.lines.evaluation import LineEvaluation
from catheters.evaluation.lines.explanations import Explanations
from catheters.evaluation.lines.measurements import MeasuredLengths, Pair, RuleEvaluation
from catheters.evaluation.lines.pointing_game import HOTTEST_SHARE
from catheters.evaluation.operating_points import OperatingPoint
from catheters.evaluation.paired_tests import describe_p
from catheters.evaluation.recalibration import Recalibration
from catheters.evaluation.scores import METRICS, Scores
from catheters.evaluation.selective_prediction import Abstention
from catheters.evaluation.subgroups import Subgroup


def text_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Columns side by side, the first one to the left, the others to the right."""
    cells = [list(header), *(list(row) for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
        for row in cells
    )


def with_interval(estimate: Estimate, decimals: int = 3) -> str:
    """`0.912 (0.900 to 0.923)`, without a bracket where there is no interval; `undefined` for NaN.

    Marked where a few patients decide the number. Infinite is the error of a tip that no predicted one
    is left for: `missed`.
    """
    if math.isnan(estimate.value):
        return "undefined"
    value, low, high = (
        "missed" if math.isinf(number) else f"{number:.{decimals}f}"
        for number in (estimate.value, estimate.low, estimate.high)
    )
    if math.isnan(estimate.low):
        return value
    return f"{value} ({low} to {high}){FEW_PATIENTS_MARK if estimate.few_patients else ''}"


def number(value: float) -> str:
    """`0.9123`; `undefined` for NaN."""
    return "undefined" if math.isnan(value) else f"{value:.4f}"


def threshold_text(threshold: float) -> str:
    """As `number`; `never` where no probability reaches it."""
    return "never" if threshold > 1 else number(threshold)


def scores_table(scores: Scores, *, with_mean: bool) -> str:
    """One row per label: positives, images, each metric with its 95% interval."""
    rows = [
        [
            label,
            f"{scores.num_positives[k]}",
            f"{scores.num_known[k]}",
            *(with_interval(scores.estimate(metric, label)) for metric in METRICS),
        ]
        for k, label in enumerate(scores.labels)
    ]
    if with_mean:
        rows.append(["macro mean", "", "", *(with_interval(scores.macro(metric)) for metric in METRICS)])
    return text_table(["label", "positives", "images", *METRICS.values()], rows)


def points_table(points: Sequence[OperatingPoint]) -> str:
    """One row per label: threshold, sensitivity, specificity, predictive values."""
    return text_table(
        ["label", "threshold", "sensitivity", "specificity", "PPV", "NPV", "prevalence"],
        [
            [
                point.label,
                threshold_text(point.threshold),
                *map(with_interval, (point.sensitivity, point.specificity, point.ppv, point.npv)),
                f"{number(point.prevalence)}{' (given)' if point.is_restated else ''}",
            ]
            for point in points
        ],
    )


def abstention_table(abstentions: Sequence[Abstention]) -> str:
    """One row per label: where it is deferred, how much is decided, and how well."""
    return text_table(
        ["label", "deferred from", "to below", "decided", "missed", "false alarms", "accuracy of decided"],
        [
            [
                abstention.label,
                *(edge(value) for value in (abstention.band.low, abstention.band.high)),
                *map(
                    with_interval,
                    (abstention.decided, abstention.missed, abstention.false_alarms, abstention.accuracy),
                ),
            ]
            for abstention in abstentions
        ],
    )


def edge(value: float) -> str:
    """Of a band; a dash where the label is never decided so."""
    return f"{value:.4f}" if math.isfinite(value) else "-"


def calibration_table(evaluation: Evaluation) -> str:
    """One row per method."""
    return text_table(
        ["calibration", "Brier skill", "log loss", "calibration error"],
        [
            [
                f"{calibrated.method}{' (chosen)' if calibrated is evaluation.calibrated else ''}",
                *map(number, (calibrated.brier_skill, calibrated.log_loss, calibrated.expected_error)),
            ]
            for calibrated in evaluation.calibrations
        ],
    )


def recalibration_table(recalibrations: Sequence[Recalibration], of: str) -> str:
    """One row per label: calibration slope and intercept, calibration in the large, observed over expected."""
    return text_table(
        [of, "slope", "intercept", "in the large", "observed / expected"],
        [
            [
                label.label,
                *map(with_interval, (label.slope, label.intercept, label.in_the_large)),
                with_interval(label.observed_to_expected),
            ]
            for label in recalibrations
        ],
    )


def folds_table(evaluation: Evaluation) -> str:
    """One row per fold, and their spread."""
    macros = [evaluation.fold_macros(metric) for metric in METRICS]
    rows = [
        [
            f"fold {fold.fold}",
            f"{fold.scores.num_images}",
            f"{fold.scores.num_patients}",
            *(with_interval(of_metric[number]) for of_metric in macros),
        ]
        for number, fold in enumerate(evaluation.folds)
    ]
    if len(rows) > 1:
        spreads = (f"{evaluation.fold_spread(metric):.3f}" for metric in METRICS)
        rows.append(["standard deviation", "", "", *spreads])
    return text_table(["macro means of", "images", "patients", *METRICS.values()], rows)


def subgroups_table(subgroups: Sequence[Subgroup]) -> str:
    """One row per group: its macro AUC beside that of the rest, their difference, and the labels that are apart."""
    return text_table(
        ["group", "images", "patients", "macro AUC", "of all others", "difference", "apart"],
        [
            [
                f"{group.column}: {group.value}",
                f"{group.scores.num_images}",
                f"{group.scores.num_patients}",
                *map(with_interval, group.macros("roc_auc")),
                describe_apart(group),
            ]
            for group in subgroups
        ],
    )


def describe_apart(group: Subgroup) -> str:
    """The labels whose ROC AUC differs from the rest's by more than chance; that it is case mix where it is."""
    return "case mix" if group.is_case_mix else ", ".join(group.apart("roc_auc")) or "-"


def explanations_table(explanations: Explanations) -> str:
    """One row per kind of heatmap and device type: how often the drawn tip lies in the hottest part."""
    return text_table(
        [
            f"tip in the hottest {HOTTEST_SHARE:.0%} of",
            "cases",
            "patients",
            "share",
            "randomised model",
            "difference",
            "chance",
        ],
        [
            [
                f"{score.method}, {score.device_type}",
                f"{score.num_cases}",
                f"{score.num_patients}",
                *map(with_interval, score.estimates.values()),
                f"{score.chance:.3f}",
            ]
            for score in explanations.scores
        ],
    )


def differences_table(comparison: Comparison, metric: str) -> str:
    """One row per label: both scores, their paired difference, p-values; * where the adjusted one is below 0.05."""
    first, second, tests = comparison.first, comparison.second, comparison.tests
    three = (first, second, comparison.differences)

    def row(name: str, estimates: Sequence[Estimate], p: float, p_holm: str, *, is_marked: bool) -> list[str]:
        of_first, of_second, gap = estimates
        star = " *" if is_marked else "  "
        return [
            name,
            with_interval(of_first),
            with_interval(of_second),
            with_interval(gap, 4),
            describe_p(p),
            p_holm + star,
        ]

    rows = []
    for label in first.labels:
        p, p_holm = tests.of(metric, label)
        estimates = [scores.estimate(metric, label) for scores in three]
        rows.append(row(label, estimates, p, describe_p(p_holm), is_marked=tests.is_significant(metric, label)))
    macros, is_marked = [scores.macro(metric) for scores in three], tests.is_significant(metric, None)
    rows.append(row("macro mean", macros, tests.p_macro[metric], "one test", is_marked=is_marked))
    return text_table([METRICS[metric], first.name, second.name, "difference", "p", "Holm's p  "], rows)


def read_again_table(shared: SharedCases) -> str:
    """One row per label: how many each model names to be read again, how many all of them do, and any."""
    rows = []
    for label in (*shared.labels, None):
        by_each, by_all, by_any = shared.count(label)
        rows.append([label or "all labels", *map(str, by_each), f"{by_all}", f"{by_any}"])
    return text_table(["to be read again", *shared.names, "by all of them", "by any"], rows)


def ensemble_table(ensemble: Ensemble) -> str:
    """One row per ensemble member."""
    rows = [
        [member.name, f"{member.weight:.3f}", f"{member.macro_auc:.4f}", f"{member.macro_auc_without:.4f}"]
        for member in ensemble.members
    ]
    table = text_table(["member", "weight", "macro AUC alone", "of the ensemble without it"], rows)
    return f"{METHODS[ensemble.method].meaning}\n{table}"


def per_cent(estimate: Estimate) -> str:
    """`1.23 (1.01 to 1.52)` of a share."""
    value, low, high = (100 * number for number in (estimate.value, estimate.low, estimate.high))
    return with_interval(dataclasses.replace(estimate, value=value, low=low, high=high), 2)


def lines_table(lines: LineEvaluation) -> str:
    """One row per device type: images, tips, how many are found, false lines, Dice's coefficient."""
    header = ["lines", "images", "tips", "tips found", "false per image", "Dice"]
    return text_table(
        header,
        [
            [
                device.summary.device_type,
                f"{device.summary.num_images}",
                f"{device.summary.num_tips}",
                *map(with_interval, (device.summary.found, device.summary.false_per_image, device.summary.dice)),
            ]
            for device in lines.per_device
        ],
    )


def line_errors_table(lines: LineEvaluation) -> str:
    """One row per device type and unit: errors of tips and of paired lines, their number, median, 90th percentile."""
    rows = []
    for device in lines.per_device:
        name, summary = device.summary.device_type, device.summary
        of_tips = [per_cent(error) for error in (summary.median_error, summary.error_90)]
        of_lines = [per_cent(error) for error in (device.distance, device.distance_90)]
        rows.append([name, "% of width", f"{summary.num_tips}", *of_tips, f"{device.num_pairs}", *of_lines])
        if device.num_tips_in_mm:
            of_tips = [with_interval(error, 1) for error in (device.tip_error_mm, device.tip_error_90_mm)]
            of_lines = [with_interval(error, 1) for error in (device.distance_mm, device.distance_90_mm)]
            rows.append([name, "mm", f"{device.num_tips_in_mm}", *of_tips, f"{device.num_pairs_in_mm}", *of_lines])
    header = ["errors", "in", "tips", "tip, median", "tip, 90%", "lines", "centreline, median", "centreline, 90%"]
    return text_table(header, rows)


def lengths_table(lengths: Sequence[MeasuredLengths]) -> str:
    """One row per measurement: how many were measured, mean difference, limits of agreement, median error."""
    header = ["predicted - true", "in", "true", "pairs", "measured", "mean", "lower limit", "upper limit"]
    return text_table(
        [*header, "median absolute"],
        [
            [
                of_name.name,
                of_name.unit,
                f"{len(of_name.truth)}",
                f"{of_name.agreement.num_pairs}",
                with_interval(of_name.measured),
                *(with_interval(estimate, 2) for estimate in agreement_estimates(of_name)),
            ]
            for of_name in lengths
        ],
    )


def agreement_estimates(lengths: MeasuredLengths) -> tuple[Estimate, Estimate, Estimate, Estimate]:
    """Mean difference, limits of agreement, median absolute error."""
    agreement = lengths.agreement
    return (
        agreement.mean_difference,
        agreement.lower_limit,
        agreement.upper_limit,
        agreement.median_absolute_error,
    )


def rules_table(rules: Sequence[RuleEvaluation]) -> str:
    """Rates by rule beside those by model, and of how many images; * where the difference's interval leaves out 0."""
    rows = []
    for rule in rules:
        rows.append([rule.name, "accuracy", f"{rule.num_images}", *_of_pair(rule.accuracy)])
        rows.append([rule.name, "they disagree", f"{rule.num_images}", with_interval(rule.disagreement), "", ""])
        for label in rule.labels:
            rows.append([label.label, "sensitivity", f"{label.num_positives}", *_of_pair(label.sensitivity)])
            rows.append([label.label, "specificity", f"{label.num_negatives}", *_of_pair(label.specificity)])
    return text_table(["label by rule", "", "of images", "by rule", "by model", "difference  "], rows)


def describe_counting(rule: RuleEvaluation) -> str:
    """How images with several labels by rule, or with no label of the device type, count in the accuracy."""
    sentences = []
    if rule.num_several:
        sentences.append(
            f"{counted(rule.num_several, 'image')} with several labels by rule: in its accuracy each counts as "
            "the share of its labels by rule that it has."
        )
    if rule.num_without_label:
        sentences.append(
            f"{counted(rule.num_without_label, 'image')} with no label of the device type: any label is wrong there, "
            "by rule and by model."
        )
    return " ".join(sentences)


def _of_pair(pair: Pair) -> list[str]:
    return [with_interval(pair.rule), with_interval(pair.model), marked(pair.difference, 3)]


def marked(difference: Estimate, decimals: int = 4) -> str:
    """A difference, with a star where its interval leaves out 0."""
    return with_interval(difference, decimals) + (" *" if difference.low > 0 or difference.high < 0 else "")


def describe_error(case: TipCase) -> str:
    """Of a tip that was not found, in words."""
    if case.predicted is None:
        return "missed"
    in_mm = "" if math.isnan(case.error_mm) else f", {case.error_mm:.0f} mm"
    return f"{case.error:.1%} of the width off{in_mm}"
