"""A run whose evaluation is frozen: its thresholds, its calibration, its own out-of-fold numbers."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from catheters.checkpoints.finished import finished_folds, is_joined
from catheters.config.loading import read_run_settings
from catheters.config.settings import Settings
from catheters.errors import UserError
from catheters.evaluation.calibration import Calibrator, calibrate_across_folds, read_calibrator
from catheters.evaluation.external.known import describe_frozen
from catheters.evaluation.external.own_numbers import read_own_counts, read_own_macro_auc, read_own_numbers
from catheters.evaluation.external.validation import OwnRun
from catheters.evaluation.operating_points import Rule, parse_rule
from catheters.evaluation.options import NO_CALIBRATION
from catheters.evaluation.prediction_set import PredictionSet, fitting_folds
from catheters.evaluation.predictions import read_predictions
from catheters.evaluation.results import CALIBRATION_FILE, METRICS_FILE
from catheters.evaluation.thresholds import Thresholds, read_thresholds
from catheters.io.files import read_json, sha256_of
from catheters.runs.build import build_table_source
from catheters.runs.evaluation.inputs import read_run
from catheters.runs.external.theirs import spacing_columns

PREDICTIONS_FILE = "predictions.csv"


@dataclass(frozen=True, kw_only=True)
class FrozenRun:
    """What is not fitted again.

    Attributes:
        folder: of the run.
        settings: its own.
        thresholds: of its evaluation, for probabilities before calibration.
        calibrator: of its evaluation.
        rule: by which its thresholds were chosen.
        predictions_sha256: of its out-of-fold predictions.
        metrics_sha256: of the evaluation's `metrics.json`.
        own: its own out-of-fold numbers and predictions.
        why_no_truth: why its own truth is not known; empty where it is.
    """

    folder: Path
    settings: Settings
    thresholds: Thresholds
    calibrator: Calibrator
    rule: Rule
    predictions_sha256: str
    metrics_sha256: str
    own: OwnRun
    why_no_truth: str

    @property
    def labels(self) -> tuple[str, ...]:
        """(K,) that it predicts."""
        return self.settings.label_columns

    @property
    def description(self) -> dict[str, str]:
        """What is frozen, see `describe_frozen`."""
        return describe_frozen(self.predictions_sha256, str(self.rule), self.calibrator.method)

    def raw_thresholds(self) -> npt.NDArray[np.float64]:
        """(K,) for probabilities before calibration; NaN where a label could not be judged."""
        return np.array([self.thresholds.labels.get(label, np.nan) for label in self.labels])


def read_frozen_run(run: Path) -> FrozenRun:
    """Read a run folder and what its evaluation has found out.

    Args:
        run: the folder.

    Raises:
        UserError: it is no run folder, or has no evaluation that belongs to its predictions.
    """
    settings = check_run(run)
    how = f"run evaluate.py {run} first: without its thresholds, calibration and numbers nothing is frozen"
    metrics, calibration, predictions = (run / name for name in (METRICS_FILE, CALIBRATION_FILE, PREDICTIONS_FILE))
    if not metrics.is_file() or not calibration.is_file():
        raise UserError(f"{run}: has no evaluation; {how}")
    thresholds = read_thresholds(metrics, tuple(settings.exclusive.values()))
    calibrator, fitted_on = read_calibrator(calibration)
    current = sha256_of(predictions)
    is_own = current == thresholds.predictions_sha256 and fitted_on in (None, current) and is_joined(run)
    if not is_own or thresholds.calibration_sha256 not in (None, sha256_of(calibration)):
        raise UserError(f"{metrics}: is the evaluation of other predictions than {predictions} holds now; {how}")
    missing = [label for label in settings.label_columns if label not in calibrator.labels]
    if missing:
        raise UserError(f"{calibration}: has no calibration of {missing[0]}; {how}")
    own, why_no_truth = _read_own(run, settings, metrics, calibrator)
    return FrozenRun(
        folder=run,
        settings=settings,
        thresholds=thresholds,
        calibrator=calibrator,
        rule=parse_rule(thresholds.rule),
        predictions_sha256=current,
        metrics_sha256=sha256_of(metrics),
        own=own,
        why_no_truth=why_no_truth,
    )


def check_run(run: Path) -> Settings:
    """The settings of a run folder that has out-of-fold predictions.

    Raises:
        UserError: it is none.
    """
    if not run.exists():
        raise UserError(f"--external {run}: no such folder; give a run folder that train.py wrote")
    if (run / "ensemble.json").is_file():
        raise UserError(
            f"--external {run}: is an ensemble; validate its runs one by one, or evaluate its predictions of these "
            "images with --predictions and --labels"
        )
    if not (run / "settings.json").is_file():
        raise UserError(f"--external {run}: no run folder (it has no settings.json); give one that train.py wrote")
    settings = read_run_settings(run / "settings.json")
    if settings.all_data:
        raise UserError(
            f"--external {run}: was trained on all data, so it has no numbers of its own to compare with; give the run "
            "of the same config with folds"
        )
    if not (run / PREDICTIONS_FILE).is_file():
        raise UserError(f"{run / PREDICTIONS_FILE}: no such file; no fold of this run is finished: run train.py")
    return settings


def has_own_table(run: Path, settings: Settings) -> bool:
    """Whether the label table that the run was trained and evaluated on is here."""
    file = build_table_source(settings).file
    named = (settings.label_corrections, settings.exclude_ids)
    is_here = file.is_file() and all(name is None or Path(name).is_file() for name in named)
    content = read_json(run / METRICS_FILE)
    return is_here and isinstance(content, dict) and content.get("labels") == str(file)


def _read_own(run: Path, settings: Settings, metrics: Path, calibrator: Calibrator) -> tuple[OwnRun, str]:
    """What is known of the run's own images; and why their truth is not, where it is not."""
    given, why_not = None, "the label table of its evaluation is not here"
    if has_own_table(run, settings):
        given = read_run(run, None, with_lines=False)
        if not _is_as_evaluated(given.evaluated, metrics):
            given, why_not = None, "its label table was changed since its evaluation"
    columns = {}
    if given is not None:
        predicted, why_not = given.evaluated, ""
        if calibrator.method != NO_CALIBRATION:
            folds = fitting_folds(predicted)
            predicted = predicted.with_probabilities(calibrate_across_folds(calibrator.method, predicted, folds))
        columns = {str(name): given.column(str(name)) for name in given.truth.frame.columns}
        columns |= spacing_columns(settings, predicted.uids.tolist())
    else:
        predicted = _without_truth(run, settings, calibrator)
    own = OwnRun(
        numbers=read_own_numbers(metrics),
        macro_auc=read_own_macro_auc(metrics),
        predicted=predicted,
        has_truth=given is not None,
        columns=columns,
        num_models=len(finished_folds(run)),
    )
    return own, why_not


def _is_as_evaluated(evaluated: PredictionSet, metrics: Path) -> bool:
    """Whether images, known labels and positives are as many as in the evaluation."""
    counts = [
        (label, int((~np.isnan(targets)).sum()), int((targets == 1).sum()))
        for label, targets in zip(evaluated.labels, evaluated.targets.T, strict=True)
    ]
    return read_own_counts(metrics) == (len(evaluated), counts)


def _without_truth(run: Path, settings: Settings, calibrator: Calibrator) -> PredictionSet:
    uid_column, frame, _ = read_predictions(run / PREDICTIONS_FILE, settings.uid_column, caveats=[])
    probabilities = frame[list(settings.label_columns)].to_numpy(dtype=np.float64)
    return PredictionSet(
        name=str(run),
        labels=settings.label_columns,
        uids=frame[uid_column].to_numpy(dtype=np.str_),
        patient_ids=frame["patient"].to_numpy(dtype=np.str_),
        folds=None,
        targets=np.full(probabilities.shape, np.nan),
        probabilities=calibrator(settings.label_columns, probabilities),
    )
