"""`report.html`, one page for people, and `MODEL_CARD.md`."""

import html
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from catheters.evaluation.caveats import LEAKS
from catheters.evaluation.comparison import Comparison
from catheters.evaluation.ensemble import METHODS, Ensemble
from catheters.evaluation.evaluation import Evaluation
from catheters.evaluation.hard_cases import READ_AGAIN_FILE, Case, SharedCases
from catheters.evaluation.intervals import COVERAGE_EXCEPTIONS, FEW_PATIENTS_MARK, FEW_PATIENTS_NOTE, METHOD
from catheters.evaluation.lines.comparison import MAP_WIDTH, TipCase
from catheters.evaluation.lines.tips import TOLERANCE_MM, TOLERANCE_SHARE
from catheters.evaluation.paired_tests import SIGNIFICANT, describe_p
from catheters.evaluation.report.figures import (
    ReportFigure,
    draw_agreement,
    draw_aucs,
    draw_precision_recall,
    draw_reliability,
    draw_roc,
)
from catheters.evaluation.report.tables import (
    agreement_estimates,
    describe_apart,
    describe_counting,
    describe_error,
    edge,
    marked,
    number,
    per_cent,
    threshold_text,
    with_interval,
)
from catheters.evaluation.scores import METRICS
from catheters.io.files import write_text
from catheters.labels import ImageKind

MAX_READ_AGAIN = 30
"""Labels to be read again that the page lists; the CSV file has all."""


@dataclass(frozen=True, kw_only=True)
class Background:
    """What the page says besides the evaluation.

    Attributes:
        predictions: where the predictions come from.
        labels: where the true labels come from.
        num_labelled: images in the label table.
        image_kind: whether the X-rays are real, and what is drawn on them.
        command: that made the page.
        settings: the run's, name -> value; empty for predictions from elsewhere.
        environment: what it was trained under, in words; empty likewise.
        curves: figure of each fold's training.
        comparison: with another model.
        ensemble: how the predictions were combined.
        shared: what this and other models of the same images name to be read again; None for a single model.
    """

    predictions: str
    labels: str
    num_labelled: int
    image_kind: ImageKind
    command: str
    settings: Mapping[str, Any]
    environment: Sequence[str]
    curves: Sequence[ReportFigure]
    comparison: Comparison | None
    ensemble: Ensemble | None
    shared: SharedCases | None = None


def write_report(
    file: Path,
    evaluation: Evaluation,
    background: Background,
    make_thumbnails: Callable[[list[int]], dict[int, str]] | None,
    draw_cases: Callable[[Sequence[TipCase]], list[str]] | None = None,
) -> None:
    """Write the page: one file, without anything from elsewhere.

    Args:
        file: the `.html` to write; it is whole or absent.
        evaluation: what was found out.
        background: where it comes from.
        make_thumbnails: rows -> the thumbnail of each row as a data URL, empty where it cannot be read; None where the
            image files are not known.
        draw_cases: tips that were not found -> each one's X-ray with its lines as a data URL; None likewise.
    """
    scores = evaluation.scores
    rows = sorted({case.row for case in evaluation.hardest})
    thumbnails = None if make_thumbnails is None else make_thumbnails(rows)
    figures = {label: _figures(evaluation, label) for label in scores.labels}
    page = (
        page_environment()
        .get_template("report.html.jinja")
        .render(
            evaluation=evaluation,
            background=background,
            scores=scores,
            metrics=METRICS,
            forest=_forest(evaluation),
            figures=figures,
            is_out_of_fold=bool(evaluation.folds and background.settings),
            may_leak=any(caveat.kind in LEAKS for caveat in evaluation.caveats),
            has_own_weights=bool(background.settings) and isinstance(background.settings["pretrained"], str),
            hardest=_hardest(evaluation, thumbnails),
            read_again=[_describe(evaluation, case, None) for case in evaluation.read_again[:MAX_READ_AGAIN]],
            read_again_file=READ_AGAIN_FILE,
            num_models={} if background.shared is None else background.shared.num_models(),
            significant=SIGNIFICANT,
            ensemble_methods=METHODS,
            **_of_lines(evaluation, draw_cases),
        )
    )
    write_text(file, page)


def write_model_card(file: Path, evaluation: Evaluation, background: Background) -> None:
    """Write the model card: what it is for, what it was trained on, how good it is, where it is not.

    Its headings are those of Mitchell et al., Model cards for model reporting, FAT* 2019.
    """
    card = (
        page_environment(autoescape=False)
        .get_template("model_card.md.jinja")
        .render(
            evaluation=evaluation,
            background=background,
            scores=evaluation.scores,
            metrics=METRICS,
            ensemble_methods=METHODS,
            read_again_file=READ_AGAIN_FILE,
        )
    )
    write_text(file, card)


def page_environment(*, autoescape: bool = True) -> jinja2.Environment:
    """What fills the templates of this folder."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("catheters.evaluation.report", "."),
        autoescape=autoescape,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {
        "interval_method": METHOD,
        "few_patients_mark": FEW_PATIENTS_MARK,
        "few_patients_note": FEW_PATIENTS_NOTE,
        "coverage_exceptions": COVERAGE_EXCEPTIONS,
    }
    environment.filters["interval"] = with_interval
    environment.filters["per_cent"] = per_cent
    environment.filters["agreement"] = agreement_estimates
    environment.filters["rule_note"] = describe_counting
    environment.filters["number"] = number
    environment.filters["sentence"] = _begin_sentence
    environment.filters["threshold"] = threshold_text
    environment.filters["edge"] = edge
    environment.filters["markdown"] = _escape_markdown
    environment.filters["marked"] = marked
    environment.filters["sortable"] = _sortable
    environment.filters["p"] = describe_p
    environment.filters["apart"] = describe_apart
    return environment


def _begin_sentence(text: str) -> str:
    """With a capital; the other letters stay."""
    return text[:1].upper() + text[1:]


def _sortable(value: float) -> str:
    """For a table's sorting, as JavaScript reads numbers; empty where it is undefined."""
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return "" if math.isnan(value) else f"{value:.9g}"


def _escape_markdown(text: object) -> str:
    """Text that comes from tables and settings, so that it neither breaks a row nor becomes HTML."""
    return html.escape(" ".join(str(text).split()), quote=False).replace("|", "&#124;").replace("`", "'")


def _forest(evaluation: Evaluation) -> ReportFigure | None:
    """ROC AUCs of labels and device types; None where all are undefined."""
    names, estimates = [], []
    for scores, suffix in ((evaluation.scores, ""), (evaluation.presence_scores, " (any)")):
        for label in scores.labels:
            estimate = scores.estimate("roc_auc", label)
            if not math.isnan(estimate.value):
                names.append(label + suffix)
                estimates.append(estimate)
    return None if not names else draw_aucs(names, estimates)


def _figures(evaluation: Evaluation, label: str) -> list[ReportFigure]:
    """Curves of a label; none where its images are of one class."""
    evaluated, scores = evaluation.evaluated, evaluation.scores
    k = evaluated.labels.index(label)
    of_label = evaluated.of_label(k)
    targets, probabilities = of_label.targets, of_label.probabilities
    if not of_label.has_both:
        return []
    point, calibrated = evaluation.points[k], evaluation.calibrated
    return [
        draw_roc(label, targets, probabilities, scores.estimate("roc_auc", label), point),
        draw_precision_recall(label, targets, probabilities, scores.estimate("average_precision", label), point),
        draw_reliability(label, targets, probabilities, calibrated.probabilities[of_label.rows, k], calibrated.method),
    ]


def _hardest(evaluation: Evaluation, thumbnails: Mapping[int, str] | None) -> dict[str, list[dict[str, Any]]]:
    """Label -> its hardest cases."""
    of_label: dict[str, list[dict[str, Any]]] = {label: [] for label in evaluation.evaluated.labels}
    for case in evaluation.hardest:
        thumbnail = None if thumbnails is None else thumbnails[case.row]
        of_label[case.label].append(_describe(evaluation, case, thumbnail))
    return {label: cases for label, cases in of_label.items() if cases}


def _of_lines(evaluation: Evaluation, draw_cases: Callable[[Sequence[TipCase]], list[str]] | None) -> dict[str, Any]:
    """What the section about lines says; nothing where there are none."""
    lines = evaluation.lines
    if lines is None:
        return {}
    cases = lines.cases
    figures = [None] * len(cases) if draw_cases is None else draw_cases(cases)
    evaluated = evaluation.evaluated
    of_device: dict[str, list[dict[str, Any]]] = {}
    for case, figure in zip(cases, figures, strict=True):
        of_device.setdefault(case.device_type, []).append(
            {
                "uid": str(evaluated.uids[case.row]),
                "patient": str(evaluated.patient_ids[case.row]),
                "error": describe_error(case),
                "figure": figure,
            }
        )
    return {
        "lines": lines,
        "tolerance_mm": TOLERANCE_MM,
        "tolerance_share": TOLERANCE_SHARE,
        "map_width": MAP_WIDTH,
        "agreement_figures": [
            draw_agreement(of_name.name, of_name.unit, of_name.predicted, of_name.truth, of_name.agreement)
            for of_name in lines.lengths
        ],
        "tip_cases": of_device,
    }


def _describe(evaluation: Evaluation, case: Case, thumbnail: str | None) -> dict[str, Any]:
    evaluated = evaluation.evaluated
    present = [
        label for label, target in zip(evaluated.labels, evaluated.targets[case.row], strict=True) if target == 1
    ]
    return {
        "row": case.row,
        "uid": str(evaluated.uids[case.row]),
        "patient": str(evaluated.patient_ids[case.row]),
        "fold": None if evaluated.folds is None else int(evaluated.folds[case.row]),
        "label": case.label,
        "in_table": case.target,
        "probability": case.probability,
        "error": case.error,
        "labels": ", ".join(present) or ("none" if evaluated.is_known[case.row].all() else "none that is known"),
        "thumbnail": thumbnail,
    }
