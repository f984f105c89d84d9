"""Heatmaps of a run's out-of-fold images, held against the tips that were drawn in them."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from catheters.checkpoints.checkpoint import Checkpoint, load_checkpoint
from catheters.checkpoints.finished import check_finished
from catheters.checkpoints.parts import build_classifier, build_preprocessing
from catheters.config.settings import Settings
from catheters.data.annotations import Annotation, check_annotations, read_annotations
from catheters.data.cache.cache import ImageCache, open_cache
from catheters.data.cache.row_checks import RowChecks
from catheters.data.loader import BatchesInOrder, create_loader
from catheters.data.preprocessing import place
from catheters.data.samples import CachedRadiographs
from catheters.data.tables.label_table import LabelTable, read_label_table
from catheters.errors import UserError
from catheters.evaluation.evaluation import Evaluation
from catheters.evaluation.lines.explanations import Explanations, Hits, score_explanations
from catheters.evaluation.operating_points import OperatingPoint
from catheters.evaluation.prediction_set import PredictionSet, fitting_folds
from catheters.inference.heatmaps import check_maps_of
from catheters.inference.pointing import Target, hits_of, shown_window
from catheters.models.classifier import Classifier
from catheters.runs.build import build_table_source
from catheters.runs.evaluation.inputs import Input
from catheters.runtime.console import say, warn
from catheters.runtime.device import device_name, open_device
from catheters.runtime.progress import track

IMAGES_PER_BATCH = 16
"""Their gradients need some times the memory of a prediction; a GPU is hardly faster with more."""
SEED_OF_RANDOMISED = 2018
"""The fold's number is added: the model that has learnt nothing is another one for each fold."""
THRESHOLD_WITHOUT_POINT = 0.5
"""From which on a device type is predicted positive where no operating point could be judged."""


@dataclass(frozen=True, kw_only=True)
class DrawnImages:
    """A run's cached images and the lines that were drawn in them.

    Attributes:
        settings: of the run.
        table: its label table.
        cache: of the table's images.
        annotations: uid -> the drawn lines.
    """

    settings: Settings
    table: LabelTable
    cache: ImageCache
    annotations: Mapping[str, Sequence[Annotation]]


@dataclass(frozen=True, kw_only=True)
class _Case:
    """An image in which a device type is predicted positive and drawn.

    Attributes:
        row: of the image in the evaluation.
        position: of the image in the label table.
        type_number: of the device type.
        label: the most probable one of the device type.
        lines: those that its heatmap should point at the tip of.
    """

    row: int
    position: int
    type_number: int
    label: str
    lines: Sequence[Annotation]


def read_drawn_images(given: Input) -> DrawnImages:
    """Whatever heatmaps can be made of, and their tips.

    Raises:
        UserError: the predictions are no run's, the run has no annotation table, or a table or the cache is missing,
            wrong or of other images.
    """
    settings = given.settings
    if settings is None:
        raise UserError(
            f"{given.file}: has no models whose heatmaps could be made; --explanations needs a run folder of train.py"
        )
    if settings.annotation_table is None:
        raise UserError(
            f"{given.file.parent}: was trained without annotation_table, so no tip is known that --explanations could "
            "look for; train with annotation_table=FILE, a CSV of drawn lines (lines may stay None)"
        )
    if not settings.device_types:
        raise UserError(
            f"{given.file.parent}: its labels are of no device type, so --explanations has no line to look for; name "
            "the labels of each device type in heads"
        )
    table = read_label_table(build_table_source(settings))
    cache = open_cache(settings.cache_file, table, build_preprocessing(settings))
    if given.lines is not None:  # those that lines are compared with
        annotations = given.lines.drawn
    else:
        annotations = read_annotations(Path(settings.dataset_folder) / settings.annotation_table, settings.uid_column)
    return DrawnImages(settings=settings, table=table, cache=cache, annotations=annotations)


def check_explainable(given: Input) -> None:
    """See that `explain_run` will find all that it needs, before anything is computed.

    Raises:
        UserError: see `read_drawn_images`; or a model is missing or damaged, or there are no heatmaps of it.
    """
    read_drawn_images(given)
    assert given.evaluated.folds is not None, "a run's predictions name their folds"
    for fold in np.unique(given.evaluated.folds).tolist():
        _load_fold(given.file.parent / f"fold{fold}")


def explain_run(given: Input, evaluation: Evaluation) -> Explanations:
    """Make the heatmaps of a run's images with drawn tips, each by the model that had not seen it, and score them.

    Args:
        given: a run.
        evaluation: of its predictions, whose operating points say what is predicted positive.

    Raises:
        UserError: see `check_explainable`.
    """
    drawn, choices = read_drawn_images(given), evaluation.choices
    if given.lines is None:  # else it has been said what is odd about them
        for text in _mistakes_of(drawn):
            warn(text)
    device_types = drawn.settings.device_types
    all_cases = _find_cases(drawn, evaluation)
    cases = _choose(all_cases, choices.max_explained, choices.seed)
    num_images, num_with_cases = len({case.row for case in cases}), len({case.row for case in all_cases})
    hits = _play(given.file.parent, drawn, evaluation.evaluated, cases) if cases else {}
    if not cases:
        warn(f"{given.file.parent}: no image has a drawn device type that is predicted positive: no heatmap is scored")
    rows = np.array([case.row for case in cases], dtype=np.intp)
    scores = score_explanations(
        hits,
        tuple(device_types),
        np.array([case.type_number for case in cases], dtype=np.intp),
        evaluation.evaluated.patient_ids[rows],
    )
    return Explanations(num_images=num_images, num_images_with_cases=num_with_cases, scores=scores)


def _mistakes_of(drawn: DrawnImages) -> list[str]:
    shapes = {entry.uid: entry.full_shape for entry in drawn.cache.entries}
    settings, source = drawn.settings, f"annotation_table={drawn.settings.annotation_table}"
    return check_annotations(drawn.annotations, settings.label_columns, settings.device_types, shapes, shapes, source)


def _load_fold(folder: Path) -> Checkpoint:
    """A fold's best model, of which heatmaps can be made."""
    check_finished(folder, names=("best.pt",))
    checkpoint = load_checkpoint(folder / "best.pt")
    check_maps_of(checkpoint, torch.device("cpu"))
    return checkpoint


def _find_cases(drawn: DrawnImages, evaluation: Evaluation) -> list[_Case]:
    """Every image and device type that is predicted positive and drawn, in the order of the evaluation's images."""
    evaluated, device_types = evaluation.evaluated, drawn.settings.device_types
    is_positive = _predicted_positive(evaluation, list(device_types.items()))
    position_of = {uid: position for position, uid in enumerate(drawn.table.uids.tolist())}
    column_of = {label: column for column, label in enumerate(evaluated.labels)}
    failed = drawn.cache.failed
    cases = []
    for row, uid in enumerate(evaluated.uids.tolist()):
        lines = drawn.annotations.get(uid, [])
        if not lines or uid not in position_of or uid in failed:
            continue
        for number, labels in enumerate(device_types.values()):
            of_type = [line for line in lines if line.label in labels]
            if not of_type or not is_positive[row, number]:
                continue
            label = max(labels, key=lambda name: evaluated.probabilities[row, column_of[name]])
            of_label = [line for line in of_type if line.label == label]
            cases.append(
                _Case(
                    row=row,
                    position=position_of[uid],
                    type_number=number,
                    label=label,
                    lines=of_label or of_type,  # a wrong label should point at the tip of its device type all the same
                )
            )
    return cases


def _predicted_positive(
    evaluation: Evaluation, device_types: Sequence[tuple[str, Sequence[str]]]
) -> npt.NDArray[np.bool_]:
    """(n, T) whether a device type is at or above the threshold that the other folds chose for its image."""
    folds = fitting_folds(evaluation.evaluated)

    def decide(of: PredictionSet, points: Sequence[OperatingPoint], name: str) -> npt.NDArray[np.bool_]:
        number = of.labels.index(name)
        thresholds = np.array([points[number].fold_thresholds[int(fold)] for fold in folds])
        thresholds = np.where(np.isnan(thresholds), THRESHOLD_WITHOUT_POINT, thresholds)
        return np.asarray(of.probabilities[:, number] >= thresholds)

    columns = []
    for name, labels in device_types:
        if name in evaluation.presence.labels:
            columns.append(decide(evaluation.presence, evaluation.presence_points, name))
        else:  # of a single label
            columns.append(decide(evaluation.evaluated, evaluation.points, labels[0]))
    return np.stack(columns, axis=1)


def _choose(cases: list[_Case], max_images: int, seed: int) -> list[_Case]:
    """The cases of at most so many images, drawn by the seed."""
    rows = sorted({case.row for case in cases})
    chosen = set(np.random.default_rng(seed).permutation(rows)[:max_images].tolist())
    return [case for case in cases if case.row in chosen]


def _play(run: Path, drawn: DrawnImages, evaluated: PredictionSet, cases: Sequence[_Case]) -> dict[str, Hits]:
    """What the heatmaps of the cases hit, in their order."""
    assert evaluated.folds is not None, "a run's predictions name their folds"
    device = open_device("auto")
    say(f"heatmaps of {len(cases)} drawn device types on {device_name(device)}")
    folds = evaluated.folds[[case.row for case in cases]]
    found: dict[str, npt.NDArray[np.float64]] = {}
    for fold in np.unique(folds).tolist():
        places = np.flatnonzero(folds == fold).tolist()
        for kind, hits in _play_fold(run / f"fold{fold}", fold, drawn, [cases[k] for k in places], device).items():
            found.setdefault(kind, np.full((2, len(cases)), np.nan))[:, places] = hits
    return {kind: Hits(trained=hits[0], randomised=hits[1]) for kind, hits in found.items()}


def _play_fold(
    folder: Path, fold: int, drawn: DrawnImages, cases: Sequence[_Case], device: torch.device
) -> dict[str, npt.NDArray[np.float64]]:
    """Kind of heatmap -> (2, n) what those of the fold's model hit, and of a randomised one."""
    checkpoint = _load_fold(folder)
    classifiers = [model.to(device) for model in (checkpoint.model, randomised(checkpoint, SEED_OF_RANDOMISED + fold))]
    positions = np.array([case.position for case in cases])
    samples = CachedRadiographs(
        drawn.cache.file,
        drawn.cache.rows[positions],
        drawn.table.uids[positions],
        drawn.table.labels[positions],
        None,
        drawn.settings.seed,
        RowChecks.of(drawn.cache),
    )
    loader = create_loader(samples, BatchesInOrder(len(samples), IMAGES_PER_BATCH), 0, device)
    batches = track(loader, f"heatmaps of {folder.name}", len(loader), unit="batch", leave=False)
    return hits_of(classifiers, batches, list(_targets(drawn, cases)), device)


def randomised(checkpoint: Checkpoint, seed: int) -> Classifier:
    """A model of the same architecture, in evaluation mode, with weights as training from nothing begins with.

    Adebayo et al., Sanity checks for saliency maps, NeurIPS 2018, section 3.1, with all layers at once. A first stage
    stays as it is, since its maps are input.
    """
    settings = dataclasses.replace(checkpoint.settings.with_random_weights(), grad_checkpointing=False)
    trained = checkpoint.model
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build_classifier(settings, float(trained.mean), float(trained.std)).eval()
    model.first_stage = trained.first_stage
    return model


def _targets(drawn: DrawnImages, cases: Sequence[_Case]) -> Iterator[Target]:
    settings, preprocessing = drawn.settings, build_preprocessing(drawn.settings)
    head_of = {label: head for head, labels in enumerate(settings.heads.values()) for label in labels}
    for case in cases:
        entry = drawn.cache.entries[case.position]
        placement = place(entry.box, preprocessing)
        tips = np.stack([line.towards_tip(entry.full_shape)[-1] for line in case.lines])
        yield Target(
            column=settings.label_columns.index(case.label),
            head=head_of.get(case.label, 0),  # without device types there is one head
            tips=placement.apply(tips),
            window=shown_window(entry.box, placement),
        )
