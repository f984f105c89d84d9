"""A comparison of variants as text, for a terminal."""

import math

from catheters.errors import counted, listed
from catheters.evaluation.intervals import Estimate
from catheters.evaluation.report.tables import marked, number, text_table
from catheters.evaluation.variants.comparison import Cost, VariantComparison, VariantResult
from catheters.evaluation.variants.seeds import MACRO
from catheters.runtime.progress import duration


def p_text(p_value: float) -> str:
    """`0.0312`, `< 0.0001`; a dash where it is undefined."""
    if math.isnan(p_value):
        return "-"
    return "< 0.0001" if p_value < 0.0001 else f"{p_value:.4f}"


def memory_text(cost: Cost | None) -> str:
    """Of the GPU where there is one, else of the process; a dash where it is not known."""
    if cost is None:
        return "-"
    gigabytes = cost.memory_gb if cost.gpu_memory_gb is None else cost.gpu_memory_gb
    return "-" if gigabytes is None else f"{gigabytes:.2f} GB"


def seconds_text(cost: Cost | None) -> tuple[str, str, str]:
    """Epochs, time of an epoch, time of a fold."""
    if cost is None:
        return "-", "-", "-"
    return f"{cost.epochs:.4g}", f"{cost.seconds_per_epoch:.3g} s", duration(cost.seconds)


def mean_auc(result: VariantResult) -> float:
    """Over the seeds; NaN without any."""
    return float(result.aucs.mean()) if len(result.aucs) else math.nan


def difference_of(result: VariantResult, label: str) -> Estimate | None:
    """Of a label or the macro mean; None where there is none."""
    found = result.differences.get(label)
    return None if found is None else found.estimate


def variants_table(comparison: VariantComparison) -> str:
    """One row per variant: macro AUC, difference from the first, p-value, cost."""
    rows = []
    for result in comparison.results:
        estimate = difference_of(result, MACRO)
        gap = "-" if estimate is None else marked(estimate)
        if result is comparison.first:
            gap = "(the first)"
        seeds = f"{len(result.given.runs) if result is comparison.first else len(result.seeds)}"
        cost = (*seconds_text(result.given.cost), memory_text(result.given.cost))
        rows.append([result.name, seeds, number(mean_auc(result)), gap, p_text(result.adjusted_p_value), *cost])
    header = ["variant", "seeds", "macro AUC", "difference", "p (Holm)", "epochs", "an epoch", "a fold", "memory"]
    return text_table(header, rows)


def labels_table(comparison: VariantComparison) -> str:
    """One row per label, one column per variant but the first: the differences."""
    rows = []
    for label in comparison.labels:
        estimates = [difference_of(result, label) for result in comparison.others]
        rows.append([label, *("-" if estimate is None else marked(estimate) for estimate in estimates)])
    return text_table(["ROC AUC, difference", *(result.name for result in comparison.others)], rows)


def describe_interval(comparison: VariantComparison) -> str:
    """What the intervals hold."""
    patients = counted(comparison.num_patients, "patient")
    if all(len(result.seeds) <= 1 for result in comparison.others):
        return f"95% intervals over {patients} alone: one seed does not say what another one would give"
    text = f"95% intervals over {patients} and the seeds of weights and order"
    alone = [result.name for result in comparison.others if len(result.seeds) == 1]
    return text + (f"; of {listed(alone)}, with one seed, over patients alone" if alone else "")


def comparison_text(comparison: VariantComparison) -> str:
    """All that a terminal shows."""
    folds = f"fold{'s' if len(comparison.folds) > 1 else ''} {listed(comparison.folds)}"
    lines = [
        f"{comparison.name}: {counted(comparison.num_images, 'image')} out of fold, {folds}, seeds "
        f"{listed(comparison.seeds)}",
        f"{describe_interval(comparison)}; *: the interval leaves out 0",
        "",
        variants_table(comparison),
        "",
        labels_table(comparison),
    ]
    failures = [failure for result in comparison.results for failure in result.given.failures]
    if failures:
        lines += ["", f"{counted(len(failures), 'job')} failed:", *(f"  {failure}" for failure in failures)]
    partial = [result.name for result in comparison.results if result.is_partial]
    if partial:
        lines += ["", f"not of all seeds and folds, but of those that both have: {listed(partial)}"]
    lines += ["", *comparison.notes] if comparison.notes else []
    return "\n".join([*lines, "", comparison.verdict])
