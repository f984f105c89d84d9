"""Evaluation in Python: `catheters.evaluate("saved_models/config").report("report.html")`, what `evaluate.py` does."""

import base64
import dataclasses
import functools
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from catheters.audit.examination import thumbnails
from catheters.config.settings import Settings
from catheters.errors import UserError
from catheters.evaluation.ensemble import Ensemble
from catheters.evaluation.evaluation import Choices, Evaluation
from catheters.evaluation.evaluation import evaluate as evaluate_predictions
from catheters.evaluation.report.figures import ReportFigure
from catheters.evaluation.report.report import Background, Comparison, write_report
from catheters.io.run_record import describe_environment_in_words, read_record
from catheters.runs.evaluation_inputs import Input, LabelSource, read_file, read_run
from catheters.runtime.console import warn
from catheters.synthetic import is_synthetic

AnyPath = str | os.PathLike[str]


@dataclass(frozen=True, kw_only=True, repr=False)
class EvaluationResult:
    """What is found out about predictions, as objects, and the page of it. Research software, not a medical device.

    Attributes:
        evaluation: scores with intervals, operating points, calibration, folds, subgroups, hardest cases, probable
            label errors: what `metrics.json` holds, and more.
    """

    evaluation: Evaluation
    _given: Input

    def __repr__(self) -> str:
        """A line, since a notebook shows it."""
        num_images, num_patients = self.evaluation.scores.num_images, self.evaluation.scores.num_patients
        of = f"{num_images} images of {num_patients} patients"
        return f"EvaluationResult of {self._given.file}: {of}, macro AUC {self.macro_auc:.4f}"

    @property
    def macro_auc(self) -> float:
        """Mean ROC AUC over the labels that have one; `evaluation.scores.macro("roc_auc")` has its interval too."""
        return self.evaluation.scores.macro("roc_auc").value

    def report(self, file: AnyPath) -> None:
        """Write the page, one HTML file that needs nothing else.

        Raises:
            UserError: its folder does not exist.
        """
        if not Path(file).absolute().parent.is_dir():
            raise UserError(f"{file}: no such folder; make it first")
        background = background_of(self._given, "catheters.evaluate", None, None)
        write_report(Path(file), self.evaluation, background, thumbnails_of(self._given))


def evaluate(
    predictions: AnyPath,
    labels: AnyPath | None = None,
    *,
    choices: Choices | None = None,
    rules: Settings | None = None,
    id_column: str | None = None,
    patient_column: str | None = None,
    logits: bool = False,
) -> EvaluationResult:
    """Score predictions against labels, with intervals over patients; nothing is written.

    Args:
        predictions: a run folder, or a CSV with an id column and one column of probabilities per label.
        labels: the label table, as CSV; None: the run's own.
        choices: resamples, operating points, prevalences, calibration, columns of subgroups; None: evaluate.py's.
        rules: settings that tell how to read `labels`; None: those of the run, or else plain 0/1 columns.
        id_column: name of the id column; None: as the predictions call it, or the rules.
        patient_column: name of the patient column in `labels`; None: the rules', or one that is named as usual.
        logits: whether the CSV holds logits.

    Raises:
        UserError: a file is missing or wrong, or they do not fit each other.
    """
    file = Path(predictions)
    source = None
    if labels is not None:
        source = LabelSource(file=Path(labels), rules=rules, id_column=id_column, patient_column=patient_column)
    if not file.exists():
        raise UserError(f"{file}: no such file or folder; a run folder or a CSV of predictions is expected")
    if file.is_dir():
        given = read_run(file, source)
    elif source is None:
        raise UserError(f"{file}: is no run folder, so the true labels have to be given: labels='FILE.csv'")
    else:
        given = read_file(file, source, are_logits=logits)
    choices = choices or Choices()
    columns = {column: given.column(column) for column in choices.band_edges}
    return EvaluationResult(
        evaluation=evaluate_predictions(given.evaluated, given.heads, columns, choices), _given=given
    )


def background_of(given: Input, command: str, comparison: Comparison | None, ensemble: Ensemble | None) -> Background:
    """What the page says besides the evaluation.

    Args:
        given: the predictions.
        command: that makes the page.
        comparison: with another model.
        ensemble: how the predictions were combined.
    """
    return Background(
        predictions=str(given.file),
        labels=given.truth.source,
        num_labelled=len(given.truth.uids),
        is_synthetic=is_synthetic(Path(given.truth.source).parent),
        command=command,
        settings={} if given.settings is None else dataclasses.asdict(given.settings),
        environment=_describe_environment(given),
        curves=[] if given.settings is None else _read_curves(given.file.parent),
        comparison=comparison,
        ensemble=ensemble,
    )


def thumbnails_of(given: Input) -> Callable[[list[int]], dict[int, str]] | None:
    """Rows -> the thumbnail of each row as a data URL; None where the image files are not known."""
    return None if given.paths is None else functools.partial(thumbnails, given.paths)


def _read_curves(run: Path) -> list[ReportFigure]:
    """The figures that training left, one per fold."""
    return [
        ReportFigure(
            url="data:image/png;base64," + base64.b64encode(file.read_bytes()).decode(),
            text=f"Loss, macro AUC and learning rate of {file.parent.name} over the epochs",
        )
        for file in sorted(run.glob("fold*/curves.png"))
    ]


def _describe_environment(given: Input) -> list[str]:
    """What the run was trained with, one text for each time that it was resumed under another environment."""
    if given.settings is None:
        return []
    try:
        fingerprint, environments = read_record(given.file.parent)
    except UserError as error:
        warn(f"{error}: what it was trained with is not known")
        return []
    first, *later = map(describe_environment_in_words, environments)
    return [f"data fingerprint: {fingerprint}\n{first}", *later]
