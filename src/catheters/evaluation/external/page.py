"""`external.html`, a page for a committee, and `EXTERNAL_CARD.md`, which ships with the model."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from catheters.evaluation.calibration import calibrate_across_folds
from catheters.evaluation.external.case_mix import intercept_by_prevalence
from catheters.evaluation.external.figures import draw_calibration, draw_decision, draw_distances, draw_forest
from catheters.evaluation.external.local_fit import METHODS, NUM_DRAWS, NUM_LOCAL_PATIENTS, Drawn
from catheters.evaluation.external.measures import MEASURES
from catheters.evaluation.external.validation import ExternalValidation
from catheters.evaluation.external.verdict import advise, headline, judge, summarise
from catheters.evaluation.intervals import FEW_PATIENTS_MARK, FEW_PATIENTS_NOTE, METHOD
from catheters.evaluation.paired_tests import SIGNIFICANT
from catheters.evaluation.prediction_set import PredictionSet, fitting_folds
from catheters.evaluation.report.figures import ReportFigure
from catheters.evaluation.report.report import page_environment
from catheters.io.files import write_text
from catheters.labels import ImageKind

NUM_MOVED = 12
"""Images that moved most, of which the page shows a thumbnail."""
FORESTS = ("roc_auc", "observed_to_expected", "sensitivity", "specificity")
"""Drawn beside each other."""
TABLES = ("roc_auc", "sensitivity", "specificity", "ppv", "npv", "observed_to_expected", "slope", "intercept", "brier")
"""A table each."""
CARD_MEASURES = ("roc_auc", "sensitivity", "specificity", "observed_to_expected", "slope", "brier")
LOCAL_METHOD = "platt"
"""What the curves show as local recalibration."""


@dataclass(frozen=True, kw_only=True)
class ExternalBackground:
    """What the page says besides the numbers.

    Attributes:
        name: of the validation.
        run: the model's folder.
        labels: where the true labels come from.
        image_kind: whether the X-rays are real, and what is drawn on them.
        command: that made the page.
        metrics_sha256: of the run's `metrics.json`.
        why_no_distances: why there are no distances of features; empty where there are.
    """

    name: str
    run: str
    labels: str
    image_kind: ImageKind
    command: str
    metrics_sha256: str
    why_no_distances: str


def write_page(
    file: Path,
    validation: ExternalValidation,
    background: ExternalBackground,
    make_thumbnails: Callable[[list[int]], dict[int, str]] | None,
) -> None:
    """Write the page: one file, without anything from elsewhere.

    Args:
        file: the `.html`; it is whole or absent.
        validation: what was found out.
        background: where it comes from.
        make_thumbnails: rows -> the thumbnail of each as a data URL; None where the image files are not known.
    """
    forests = [draw_forest(validation, measure) for measure in FORESTS]
    page = (
        _environment()
        .get_template("external.html.jinja")
        .render(
            **_common(validation, background),
            headline=headline(validation),
            forests=[figure for figure in forests if figure is not None],
            tables={measure: MEASURES[measure] for measure in TABLES},
            figures=_figures(validation),
            distance_figure=None if validation.features is None else draw_distances(validation.features),
            moved=_moved(validation, make_thumbnails),
            methods=METHODS,
            num_draws=NUM_DRAWS,
            fewest_local=NUM_LOCAL_PATIENTS[0],
            significant=SIGNIFICANT,
            interval_method=METHOD,
            few_patients_mark=FEW_PATIENTS_MARK,
            few_patients_note=FEW_PATIENTS_NOTE,
        )
    )
    write_text(file, page)


def write_card(file: Path, validation: ExternalValidation, background: ExternalBackground) -> None:
    """Write the card; the file is whole or absent."""
    template = _environment(autoescape=False).get_template("external_card.md.jinja")
    write_text(file, template.render(**_common(validation, background), card_measures=CARD_MEASURES))


def _environment(*, autoescape: bool = True) -> jinja2.Environment:
    environment = page_environment(autoescape=autoescape)
    environment.filters["verdict"] = judge
    environment.filters["advice"] = advise
    environment.filters["by_prevalence"] = intercept_by_prevalence
    environment.filters["whole"] = _whole
    environment.filters["bold"] = _bold
    environment.filters["drawn_number"] = _drawn_number
    return environment


def _common(validation: ExternalValidation, background: ExternalBackground) -> dict[str, Any]:
    return {
        "validation": validation,
        "summary": summarise(validation),
        "measures": MEASURES,
        **{field.name: getattr(background, field.name) for field in dataclasses.fields(background)},
    }


def _figures(validation: ExternalValidation) -> dict[str, list[ReportFigure]]:
    """Label -> calibration curve and decision curve."""
    evaluated = validation.predictions.evaluated
    recalibrated = _recalibrated(evaluated)
    return {
        label: [
            draw_calibration(validation, k, recalibrated),
            draw_decision(validation.decision_curves[label], validation.own_decision_curves.get(label)),
        ]
        for k, label in enumerate(evaluated.labels)
        if label in validation.decision_curves
    }


def _recalibrated(evaluated: PredictionSet) -> PredictionSet:
    """Each fifth of the patients by a fit on the others, every label by itself."""
    alone = dataclasses.replace(evaluated, exclusive=(), folds=None)
    return alone.with_probabilities(calibrate_across_folds(LOCAL_METHOD, alone, fitting_folds(alone)))


def _moved(
    validation: ExternalValidation, make_thumbnails: Callable[[list[int]], dict[int, str]] | None
) -> Sequence[dict[str, Any]]:
    if validation.features is None:
        return []
    rows = validation.features.farthest(NUM_MOVED)
    thumbnails = {} if make_thumbnails is None else make_thumbnails(rows)
    evaluated = validation.predictions.evaluated
    return [
        {
            "uid": str(evaluated.uids[row]),
            "patient": str(evaluated.patient_ids[row]),
            "distance": float(validation.features.distances[row]),
            "thumbnail": thumbnails.get(row, ""),
        }
        for row in rows
    ]


def _bold(verdict: str) -> Markup:
    """With its first word, up to the colon, in bold."""
    word, colon, rest = verdict.partition(":")
    return Markup("<strong>{}{}</strong>{}").format(word, colon, rest)


def _whole(value: float) -> str:
    return "undefined" if math.isnan(value) else f"{value:,.0f}"


def _drawn_number(drawn: Drawn | None) -> Markup:
    """A cell of a table."""
    if drawn is None or math.isnan(drawn.mean):
        return Markup('<td data-value="">-</td>')
    text = f"{drawn.mean:.3f} ({drawn.low:.3f} to {drawn.high:.3f})"
    return Markup('<td data-value="{}">{}</td>').format(f"{drawn.mean:.9g}", text)
