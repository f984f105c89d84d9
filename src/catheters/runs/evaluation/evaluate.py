"""Evaluation in Python: `catheters.evaluate("saved_models/config").report("report.html")`, what `evaluate.py` does."""

import base64
import dataclasses
import functools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from catheters.audit.examination import thumbnails
from catheters.config.settings import Settings
from catheters.errors import UserError, counted, look_up
from catheters.evaluation.calibration import write_calibrator
from catheters.evaluation.comparison import Comparison
from catheters.evaluation.ensemble import Ensemble
from catheters.evaluation.evaluation import Choices, Evaluation
from catheters.evaluation.evaluation import evaluate as evaluate_predictions
from catheters.evaluation.external.known import add_to_model_card, describe_frozen, read_validations
from catheters.evaluation.hard_cases import READ_AGAIN_FILE, SharedCases, write_cases
from catheters.evaluation.lines.comparison import TipCase
from catheters.evaluation.lines.results import CASES_FILE, write_tip_cases
from catheters.evaluation.prediction_set import fitting_folds
from catheters.evaluation.readers import compare_readers
from catheters.evaluation.report.figures import ReportFigure
from catheters.evaluation.report.report import Background, write_model_card, write_report
from catheters.evaluation.results import CALIBRATION_FILE, METRICS_FILE, write_comparison, write_metrics, write_table
from catheters.io.files import sha256_of
from catheters.io.run_record import describe_environment_in_words, read_record
from catheters.runs.evaluation.explanations import explain_run
from catheters.runs.evaluation.inputs import Input, read_file, read_run
from catheters.runs.evaluation.label_source import LabelSource
from catheters.runs.evaluation.line_figures import draw_cases
from catheters.runs.evaluation.lines import evaluate_lines
from catheters.runs.evaluation.reader_inputs import read_readings
from catheters.runs.paper.study import (
    CHECKLISTS,
    Study,
    describe_study,
    study_figures,
    write_checklists,
    write_study,
)
from catheters.runtime.console import warn
from catheters.synthetic import kind_of_images

COMPARISON_FILE = "comparison.json"
READ_AGAIN_OF_0_2 = "label_errors.csv"
"""What version 0.2.0 called `READ_AGAIN_FILE`."""
AnyPath = str | os.PathLike[str]


@dataclass(frozen=True, kw_only=True, repr=False)
class EvaluationResult:
    """What is found out about predictions, as objects, and the page of it. Research software, not a medical device.

    Attributes:
        evaluation: scores with intervals, caveats, operating points, calibration, folds, subgroups, hardest cases,
            labels to be read again: what `metrics.json` holds, and more.
    """

    evaluation: Evaluation
    _given: Input

    def __repr__(self) -> str:
        """A line, since a notebook shows it."""
        num_images, num_patients = self.evaluation.scores.num_images, self.evaluation.scores.num_patients
        of = f"{counted(num_images, 'image')} of {counted(num_patients, 'patient')}"
        return f"EvaluationResult of {self._given.file}: {of}, macro AUC {self.macro_auc:.4f}"

    @property
    def macro_auc(self) -> float:
        """Mean ROC AUC over the labels that have one; `evaluation.scores.macro("roc_auc")` has its interval too."""
        return self.evaluation.scores.macro("roc_auc").value

    def write(self, folder: AnyPath | None = None, *, checklists: Sequence[str] = ()) -> Path:
        """Write what `evaluate.py` writes: `metrics.json`, `calibration.json`, `report.html` and more.

        `catheters.load` and `predict.py` then use calibration and operating points.

        Args:
            folder: for the files; None: the run folder, or FILE_evaluation beside a file.
            checklists: reporting checklists to be answered: `claim2024`, `tripod-ai`, `stard-ai`.

        Returns:
            The folder.

        Raises:
            UserError: it cannot be made, or a checklist is not known.
        """
        for key in checklists:
            look_up(CHECKLISTS, key, "checklists")
        given = self._given if folder is None else dataclasses.replace(self._given, folder=Path(folder))
        try:
            given.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{given.folder}: results cannot be written there ({error.strerror})") from None
        write_evaluation(given, self.evaluation, "catheters.evaluate", None, None, checklists=checklists)
        return given.folder

    def report(self, file: AnyPath) -> None:
        """Write the page, one HTML file that needs nothing else.

        Raises:
            UserError: its folder does not exist.
        """
        if not Path(file).absolute().parent.is_dir():
            raise UserError(f"{file}: no such folder; make it first")
        study = describe_study(self._given, self.evaluation)
        background = background_of(self._given, study, "catheters.evaluate", None, None)
        write_report(Path(file), self.evaluation, background, thumbnails_of(self._given), line_figures_of(self._given))


def evaluate(
    predictions: AnyPath,
    labels: AnyPath | None = None,
    *,
    choices: Choices | None = None,
    rules: Settings | None = None,
    id_column: str | None = None,
    patient_column: str | None = None,
    logits: bool = False,
    annotations: AnyPath | None = None,
    images: str | None = None,
) -> EvaluationResult:
    """Score predictions against labels, with intervals over patients; nothing is written.

    Args:
        predictions: a run folder, or a CSV with an id column and one column of probabilities per label.
        labels: the label table, as CSV; None: the run's own.
        choices: operating points, prevalences, calibration, columns of subgroups, and whether heatmaps are
            held against drawn tips; None: evaluate.py's.
        rules: settings that tell how to read `labels`; None: those of the run, or else plain 0/1 columns.
        id_column: name of the id column; None: as the predictions call it, or the rules.
        patient_column: name of the patient column in `labels`; None: the rules', or one that is named as usual.
        logits: whether the CSV holds logits.
        annotations: drawn lines, as CSV, to compare predicted ones with; None: the run's own.
        images: where the X-rays of `labels` are, relative to that table or to the folder above it, as in
            "test/{uid}.jpg", for predictions in a CSV; None: not known.

    Raises:
        UserError: a file is missing or wrong, or they do not fit each other.
    """
    file = Path(predictions)
    drawn = None if annotations is None else Path(annotations)
    source = None
    if labels is not None:
        source = LabelSource(file=Path(labels), rules=rules, id_column=id_column, patient_column=patient_column)
    if not file.exists():
        raise UserError(f"{file}: no such file or folder; a run folder or a CSV of predictions is expected")
    if file.is_dir():
        given = read_run(file, source, drawn)
    elif source is None:
        raise UserError(f"{file}: is no run folder, so the true labels have to be given: labels='FILE.csv'")
    else:
        given = read_file(file, source, are_logits=logits, annotations=drawn, path_pattern=images)
    return evaluate_input(given, choices or Choices())


def evaluate_input(given: Input, choices: Choices) -> EvaluationResult:
    """Score predictions that are read and matched to their labels, and warn of what has to be known of them.

    Raises:
        UserError: a column cannot be put into groups, or is no reader's; for explanations see `explain_run`.
    """
    readings = read_readings(given, choices.reader_columns)
    columns = {column: given.column(column) for column in choices.band_edges}
    evaluation = evaluate_predictions(given.evaluated, given.heads, columns, choices)
    for caveat in evaluation.caveats:
        warn(caveat.text)
    readers = None
    if readings is not None:
        readers = compare_readers(given.evaluated, readings, evaluation.points, fitting_folds(given.evaluated))
    evaluation = dataclasses.replace(evaluation, lines=evaluate_lines(given), readers=readers)
    if choices.max_explained:
        evaluation = dataclasses.replace(evaluation, explanations=explain_run(given, evaluation))
    return EvaluationResult(evaluation=evaluation, _given=given)


def write_evaluation(
    given: Input,
    evaluation: Evaluation,
    command: str,
    comparison: Comparison | None,
    ensemble: Ensemble | None,
    shared: SharedCases | None = None,
    checklists: Sequence[str] = (),
) -> Background:
    """Write all files of an evaluation into the folder of its predictions.

    Args:
        given: the predictions.
        evaluation: of them.
        command: that makes it, for the page.
        comparison: with another model.
        ensemble: how the predictions were combined.
        shared: what several models name to be read again.
        checklists: keys of `CHECKLISTS`, to be answered.

    Returns:
        What the page says besides the evaluation.
    """
    folder = given.folder
    metrics, calibration = folder / METRICS_FILE, folder / CALIBRATION_FILE
    # Of an earlier evaluation. The metrics say that all files are of one evaluation: they go first and come last.
    metrics.unlink(missing_ok=True)
    (folder / COMPARISON_FILE).unlink(missing_ok=True)
    if comparison is not None:
        write_comparison(folder / COMPARISON_FILE, comparison)
    write_table(folder / "metrics.csv", evaluation)
    write_calibrator(calibration, evaluation.calibrator, given.sha256)
    write_cases(folder / "hardest_cases.csv", given.evaluated, evaluation.hardest, given.uid_column)
    write_cases(folder / READ_AGAIN_FILE, given.evaluated, evaluation.read_again, given.uid_column, shared)
    (folder / READ_AGAIN_OF_0_2).unlink(missing_ok=True)
    (folder / CASES_FILE).unlink(missing_ok=True)
    if evaluation.lines is not None:
        write_tip_cases(folder / CASES_FILE, given.evaluated, evaluation.lines.cases, given.uid_column)
    study = describe_study(given, evaluation)
    write_study(folder, study)
    background = dataclasses.replace(background_of(given, study, command, comparison, ensemble), shared=shared)
    frozen = describe_frozen(given.sha256, str(evaluation.choices.rule), evaluation.calibrator.method)
    validations = read_validations(folder, frozen)
    answered = write_checklists(given, evaluation, background, study, validations, checklists)
    background = dataclasses.replace(background, checklists=answered)
    write_report(folder / "report.html", evaluation, background, thumbnails_of(given), line_figures_of(given))
    write_model_card(folder / "MODEL_CARD.md", evaluation, background)
    add_to_model_card(folder, validations)
    sha256_of_calibration = sha256_of(calibration)
    write_metrics(
        metrics,
        evaluation,
        given.file,
        given.sha256,
        sha256_of_calibration,
        given.truth.source,
        background.num_labelled,
        shared,
        study.flow.describe(),
    )
    return background


def background_of(
    given: Input, study: Study, command: str, comparison: Comparison | None, ensemble: Ensemble | None
) -> Background:
    """What the page says besides the evaluation.

    Args:
        given: the predictions.
        study: their images and patients.
        command: that makes the page.
        comparison: with another model.
        ensemble: how the predictions were combined.
    """
    return Background(
        predictions=str(given.file),
        labels=given.truth.source,
        num_labelled=len(given.truth.uids),
        image_kind=kind_of_images(Path(given.truth.source).parent),
        command=command,
        settings={} if given.settings is None else dataclasses.asdict(given.settings),
        environment=_describe_environment(given),
        curves=[] if given.settings is None else _read_curves(given.file.parent),
        comparison=comparison,
        ensemble=ensemble,
        study_figures=study_figures(study),
    )


def thumbnails_of(given: Input) -> Callable[[list[int]], dict[int, str]] | None:
    """Rows -> the thumbnail of each row as a data URL; None where the image files are not known."""
    return None if given.paths is None else functools.partial(thumbnails, given.paths)


def line_figures_of(given: Input) -> Callable[[Sequence[TipCase]], list[str]] | None:
    """Tips that were not found -> each one's X-ray with its lines; None where the image files are not known."""
    return None if given.paths is None else functools.partial(draw_cases, given.paths)


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
