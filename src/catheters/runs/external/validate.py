"""External validation from files to files: a frozen run, images and labels from elsewhere, a page and a card."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from catheters.audit.examination import thumbnails
from catheters.config.settings import Settings
from catheters.errors import UserError, counted, listed
from catheters.evaluation.caveats import Caveat
from catheters.evaluation.external.case_mix import FeatureShift, feature_shift
from catheters.evaluation.external.files import (
    CARD_FILE,
    CSV_FILE,
    JSON_FILE,
    PAGE_FILE,
    write_table,
    write_validation,
)
from catheters.evaluation.external.known import add_to_model_card, read_validations
from catheters.evaluation.external.measures import FrozenPredictions, Judged
from catheters.evaluation.external.own_numbers import read_fold_thresholds
from catheters.evaluation.external.page import ExternalBackground, write_card, write_page
from catheters.evaluation.external.validation import ExternalChoices, ExternalValidation, validate
from catheters.evaluation.prediction_set import PredictionSet
from catheters.evaluation.predictions import write_predictions
from catheters.evaluation.results import METRICS_FILE
from catheters.evaluation.subgroups import make_groups
from catheters.inference.loading import read_models
from catheters.inference.predictor import NO_NUMBER, Predictor
from catheters.runs.evaluation.label_source import LabelSource
from catheters.runs.external.frozen_run import PREDICTIONS_FILE, FrozenRun, check_run, read_frozen_run
from catheters.runs.external.overlap import check_ids, check_images
from catheters.runs.external.prediction import PredictionOptions, measure_own_distances, predict_theirs
from catheters.runs.external.theirs import Theirs, read_config, read_predicted, untold_caveat
from catheters.runtime.console import say
from catheters.synthetic import kind_of_images

Floats = npt.NDArray[np.float64]

PART_FILE = "predictions.unfinished"
"""In the folder of the results: what is predicted, image by image, so that the same command takes seconds."""
MAX_REASONS = 3
"""Why images could not be predicted, that are said."""


@dataclass(frozen=True, kw_only=True)
class Validated:
    """A validation and where it comes from.

    Attributes:
        validation: the numbers.
        theirs: the images.
        frozen: the run.
        folder: for the results.
        why_no_distances: why there are no distances of features; empty where there are.
    """

    validation: ExternalValidation
    theirs: Theirs
    frozen: FrozenRun
    folder: Path
    why_no_distances: str


def validate_config(
    run: Path,
    theirs: Settings,
    config: Path,
    folder: Path,
    options: PredictionOptions,
    choices: ExternalChoices,
) -> Validated:
    """Predict the images of a config from elsewhere by a run's models, and validate them there.

    Args:
        run: the run folder.
        theirs: settings whose table and images count.
        config: their file.
        folder: for the results; it exists.
        options: how images are predicted.
        choices: of the validation.

    Raises:
        UserError: the run has no evaluation, the images overlap with its training, or cannot be read; and more.
    """
    settings = check_run(run)
    images = read_config(theirs, config, settings.label_columns)
    frozen = read_frozen_run(run)  # before the models, which take seconds
    _check_groups(images, choices)
    caveats = check_ids(frozen, images)
    models = read_models([run]).without_calibration()
    predictor = Predictor(models, options.device)
    predictions = predict_theirs(predictor, images, folder / PART_FILE, options)
    is_read = predictions.is_read
    if not is_read.any():
        first = next(iter(predictions.reasons))
        raise UserError(f"{images.source}: none of its {counted(len(is_read), 'image')} could be predicted: {first}")
    rows = np.flatnonzero(is_read)
    if len(rows) < len(is_read):
        reasons = sorted({reason for reason in predictions.reasons if reason})
        say(f"not predicted: {'; '.join(reasons[:MAX_REASONS])}")  # which may name files
        text = (
            f"{images.source}: {len(is_read) - len(rows)} of {counted(len(is_read), 'image')} could not be predicted "
            "and are left out"
        )
        caveats.append(Caveat(kind="left_out_images", text=text))
    images = images.take(rows)
    caveats += check_images(frozen, images, [predictions.image_hashes[row] for row in rows])
    raw = predictor.combine(predictions.probabilities[:, rows])
    if not np.isfinite(raw).all():
        raise UserError(f"{run}: {NO_NUMBER}")
    own_distances, why_not = measure_own_distances(predictor, frozen, choices.seed)
    features = feature_shift(predictions.distances[:, rows], own_distances, images.patient_ids)
    if features is None:
        why_not = "the checkpoints do not know where features of ordinary images lie"
    evaluated = PredictionSet(
        name=images.source,
        labels=frozen.labels,
        uids=images.uids,
        patient_ids=images.patient_ids,
        folds=None,
        targets=images.targets,
        probabilities=frozen.calibrator(frozen.labels, raw),
        exclusive=tuple(frozen.settings.exclusive.values()),
    )
    folds = [int(checkpoint.file.parent.name.removeprefix("fold")) for checkpoint in models.checkpoints]
    of_models = dict(zip(folds, predictions.probabilities[:, rows].astype(np.float64), strict=True))
    validation = _validate(frozen, images, evaluated, raw, of_models, features, caveats, choices)
    return Validated(
        validation=validation,
        theirs=images,
        frozen=frozen,
        folder=folder,
        why_no_distances=why_not if features is None else "",
    )


def validate_predictions(
    run: Path,
    predictions: Path,
    source: LabelSource,
    folder: Path,
    choices: ExternalChoices,
    *,
    are_logits: bool,
    are_calibrated: bool,
) -> Validated:
    """Validate predictions that a run's models have made elsewhere; no model is run.

    Args:
        run: the run folder.
        predictions: a CSV, as predict.py writes it.
        source: the label table.
        folder: for the results; it exists.
        choices: of the validation.
        are_logits: whether the predictions are logits.
        are_calibrated: whether the run's calibration has been applied to them.

    Raises:
        UserError: as `validate_config`.
    """
    settings = check_run(run)
    theirs, predicted = read_predicted(predictions, source, settings, are_logits=are_logits)
    frozen = read_frozen_run(run)
    _check_groups(theirs, choices)
    caveats = check_ids(frozen, theirs)
    text = "only predictions came, no images: whether images of the training are among them is known by their ids alone"
    caveats.append(Caveat(kind="images_not_compared", text=text))
    given = predicted.probabilities
    raw = None if are_calibrated and frozen.calibrator.changes_probabilities else given
    evaluated = predicted.with_probabilities(given if raw is None else frozen.calibrator(frozen.labels, given))
    validation = _validate(frozen, theirs, evaluated, raw, {}, None, caveats, choices)
    why_not = "only predictions came, no images"
    return Validated(validation=validation, theirs=theirs, frozen=frozen, folder=folder, why_no_distances=why_not)


def _check_groups(theirs: Theirs, choices: ExternalChoices) -> None:
    """Raise a UserError where a column of subgroups is missing or cannot be put into groups."""
    for column, edges in choices.band_edges.items():
        if column not in theirs.columns:
            there = f"there are {listed(theirs.columns)}" if theirs.columns else "it has ids, patients and labels alone"
            raise UserError(f"--by {column}: {theirs.source} has no such column; {there}")
        make_groups(column, theirs.columns[column], edges)


def _validate(
    frozen: FrozenRun,
    theirs: Theirs,
    evaluated: PredictionSet,
    raw: Floats | None,
    of_models: Mapping[int, Floats],
    features: FeatureShift | None,
    caveats: list[Caveat],
    choices: ExternalChoices,
) -> ExternalValidation:
    """Hold predictions against frozen thresholds, and those of each fold model against its fold's.

    Args:
        frozen: the run.
        theirs: the images.
        evaluated: their calibrated probabilities and truth.
        raw: (n, K) before calibration; None: not known.
        of_models: fold -> (n, K) of its model alone, before calibration; empty where they are not known.
        features: how far the images lie.
        caveats: what is known of them so far.
        choices: of the validation.
    """
    fold_thresholds = read_fold_thresholds(frozen.folder / METRICS_FILE)
    folds = sorted({fold for of_label in fold_thresholds.values() for fold in of_label})
    by_fold = {
        fold: np.array([fold_thresholds.get(label, {}).get(fold, np.nan) for label in frozen.labels]) for fold in folds
    }

    def judge(raw: Floats | None, probabilities: Floats, thresholds: Sequence[Floats]) -> Judged:
        scores = probabilities if raw is None else raw
        if raw is None:  # thresholds for calibrated probabilities
            thresholds = [frozen.calibrator.of_thresholds(frozen.labels, threshold) for threshold in thresholds]
        predicted = np.mean([scores >= threshold for threshold in thresholds], axis=0)  # never with NaN
        return Judged(probabilities=probabilities, scores=scores, predicted=predicted)

    if set(of_models) == set(folds):
        alike = [
            judge(of_model, frozen.calibrator(frozen.labels, of_model), [by_fold[fold]])
            for fold, of_model in of_models.items()
        ]
    else:  # patients were split for the thresholds, or the single models' predictions are not known
        alike = [judge(raw, evaluated.probabilities, list(by_fold.values()) or [frozen.raw_thresholds()])]
    thresholds = np.stack([frozen.raw_thresholds(), *by_fold.values()])
    predictions = FrozenPredictions(
        evaluated=evaluated,
        frozen=judge(raw, evaluated.probabilities, [frozen.raw_thresholds()]),
        alike=tuple(alike),
        has_threshold=~np.isnan(thresholds).any(axis=0),
    )
    all_caveats = [*theirs.caveats, *caveats, *untold_caveat(theirs, frozen.labels), *_caveats_of_own(frozen)]
    return validate(
        predictions,
        frozen.own,
        frozen.rule,
        frozen.calibrator.method,
        theirs.columns,
        features,
        all_caveats,
        choices,
    )


def _caveats_of_own(frozen: FrozenRun) -> list[Caveat]:
    caveats = list(frozen.own.predicted.caveats)
    if not frozen.own.has_truth:
        text = (
            f"{frozen.folder}: {frozen.why_no_truth}, so its prevalence, mean predictions, decision curves and columns "
            "are not compared"
        )
        caveats.append(Caveat(kind="own_table_missing", text=text))
    return caveats


def write_all(validated: Validated, name: str, source: Path, command: str) -> None:
    """Write predictions, page, card and tables, and a line in the run's model card where there is one.

    Args:
        validated: what was found out.
        name: of the validation.
        source: the config, or the predictions, of the images.
        command: that makes it.
    """
    folder, validation, theirs, frozen = validated.folder, validated.validation, validated.theirs, validated.frozen
    (folder / JSON_FILE).unlink(missing_ok=True)  # of an earlier one: it says that all files are of one validation
    background = ExternalBackground(
        name=name,
        run=str(frozen.folder),
        labels=theirs.source,
        image_kind=kind_of_images(Path(theirs.source).parent),
        command=command,
        metrics_sha256=frozen.metrics_sha256,
        why_no_distances=validated.why_no_distances,
    )
    if theirs.paths is not None:
        evaluated = validation.predictions.evaluated
        write_predictions(
            folder / PREDICTIONS_FILE,
            theirs.uid_column,
            evaluated.uids,
            evaluated.patient_ids,
            None,
            evaluated.probabilities,
            frozen.labels,
        )
    make_thumbnails = None if theirs.paths is None else functools.partial(thumbnails, theirs.paths)
    write_table(folder / CSV_FILE, validation)
    write_page(folder / PAGE_FILE, validation, background, make_thumbnails)
    write_card(folder / CARD_FILE, validation, background)
    inputs = {
        "name": name,
        "source": str(source.resolve()),
        "run": str(frozen.folder),
        "labels": theirs.source,
        "metrics_sha256": frozen.metrics_sha256,
        "frozen": frozen.description,
        "image_kind": background.image_kind,
        "command": command,
    }
    write_validation(folder / JSON_FILE, validation, inputs)
    add_to_model_card(frozen.folder, read_validations(frozen.folder, frozen.description))
