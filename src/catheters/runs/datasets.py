"""What a run learns from: the images of its folds, checked, and the batches of them."""

import dataclasses
import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from catheters.checkpoints.parts import build_preprocessing
from catheters.config.settings import Settings
from catheters.data.annotations import Annotation, check_annotations, check_drawn_labels, read_annotations
from catheters.data.augmentation import Augmentation
from catheters.data.cache.cache import ImageCache, open_cache
from catheters.data.cache.row_checks import RowChecks
from catheters.data.gpu_augmentation import GpuAugmentation
from catheters.data.landmarks import Landmarks, check_landmarks, read_landmarks
from catheters.data.line_targets import DrawnLines, LineTargets
from catheters.data.loader import BatchesInOrder, EpochBatches, EpochLoader, Loader, create_loader
from catheters.data.point_checks import check_any_image
from catheters.data.preprocessing import Placement, place
from catheters.data.samples import CachedRadiographs, JoinedRadiographs
from catheters.data.spacing import check_sizes, check_spacing_ids, read_spacing_table, spacings_of
from catheters.data.tables.folds import choose_folds
from catheters.data.tables.label_table import LabelTable, read_label_table
from catheters.errors import UserError, counted
from catheters.labels import tip_name
from catheters.runs.build import build_augmentation, build_table_source
from catheters.runs.run_data import RunData, training_images
from catheters.runtime.console import say, warn
from catheters.runtime.distributed import ALONE, Processes


def load_data(settings: Settings) -> RunData:
    """Label table, cache and folds; images that the cache could not read are left out.

    Those of `extra_tables` are not among them, see `with_extra_tables`.

    Raises:
        UserError: see `read_label_table`, `open_cache`, `choose_folds`.
    """
    table = read_label_table(build_table_source(settings))
    # Folds are assigned before unreadable images are left out: repairing one of them moves no other image.
    folds = choose_folds(table, None if settings.all_data else settings.num_folds, settings.seed_of_folds)
    data = load_table(settings, settings, table, folds)
    if data.lines is not None and not any(data.lines.count(number)[0] for number in range(len(settings.device_types))):
        raise UserError(
            f"annotation_table={settings.annotation_table}: has no line of any image and device type of this run, so "
            f"there is nothing for lines='{settings.lines}' to learn; set lines=None, or look at its ids and labels"
        )
    return data


def load_table(settings: Settings, run: Settings, table: LabelTable, folds: npt.NDArray[np.int8]) -> RunData:
    """The images of a label table that its cache could read, with what a run learns of them.

    Args:
        settings: by which the table was read and its cache built.
        run: the run's own settings, which say what is learnt: the same, but for one of `extra_tables`.
        table: its N rows.
        folds: (N,) the fold of each.

    Raises:
        UserError: see `open_cache`; annotations, landmarks or spacings are not as they have to be.
    """
    cache = open_cache(settings.cache_file, table, build_preprocessing(settings))
    failed = cache.failed
    is_kept = np.array([uid not in failed for uid in table.uids.tolist()])
    if failed:
        warn(f"left out: {counted(len(failed), 'image')} that could not be read")
    if cache.num_absent:
        gone = counted(cache.num_absent, "X-ray")
        say(f"{gone} of the cache gone: whether it still shows what was there cannot be checked")
    if settings.debug:
        is_kept &= _choose_for_debug_run(settings, table.patient_ids, folds)
        images = f"{is_kept.sum()} of {counted(len(table), 'image')}"
        say(f"debug run on {images}, {settings.debug_fraction:.0%} of the patients")
    labels, targets, folds = table.labels[is_kept], table.targets[is_kept], folds[is_kept]
    numbers = {name: values[is_kept] for name, values in table.numbers.items()}
    placements = _place(settings, cache, np.flatnonzero(is_kept)) if run.learns_lines else []
    lines = _read_lines(settings, run, table, cache, np.flatnonzero(is_kept), placements) if placements else None
    shapes = [cache.entries[position].full_shape for position in np.flatnonzero(is_kept)]
    pixels_hash = cache.pixels_hash
    return RunData(
        encoded_uids=np.strings.encode(table.uids[is_kept], "utf-8"),
        encoded_patient_ids=np.strings.encode(table.patient_ids[is_kept], "utf-8"),
        labels=labels,
        targets=targets,
        folds=folds,
        numbers=numbers,
        pixel_ids=_as_numbers(cache.pixel_ids[is_kept].tolist()),
        rows=cache.rows[is_kept],
        cache_file=cache.file,
        checks=RowChecks.of(cache),
        mean=cache.mean,
        std=cache.std,
        pixels_hash=pixels_hash,
        fingerprint=_fingerprint(pixels_hash, table.uids[is_kept], targets, folds, numbers, lines),
        lines=lines,
        placements=None if lines is None else np.array([[*of.scale, *of.offset] for of in placements]),
        full_shapes=None if lines is None else np.array(shapes),
        spacings=_read_spacings(settings, cache, is_kept),
    )


def _as_numbers(texts: Sequence[str]) -> npt.NDArray[np.int64]:
    """(N,) equal for equal texts, in 8 bytes each."""
    digests = b"".join(hashlib.sha256(text.encode()).digest()[:8] for text in texts)
    return np.frombuffer(digests, dtype=np.int64)


def _place(settings: Settings, cache: ImageCache, kept: npt.NDArray[np.intp]) -> list[Placement]:
    """Where the original pixels of the kept images lie in the cached ones."""
    preprocessing = build_preprocessing(settings)
    return [place(cache.entries[position].box, preprocessing) for position in kept]


def _read_lines(
    settings: Settings,
    run: Settings,
    table: LabelTable,
    cache: ImageCache,
    kept: npt.NDArray[np.intp],
    placements: Sequence[Placement],
) -> DrawnLines:
    """The drawn lines of the kept images of a table, in pixels of the cached ones."""
    folder, device_types = Path(settings.dataset_folder), run.device_types
    annotations: dict[str, list[Annotation]] = {}
    landmarks: Landmarks = {}
    shapes = {entry.uid: entry.full_shape for entry in cache.entries}
    warnings: list[str] = []
    if settings.annotation_table is not None:
        annotations = read_annotations(folder / settings.annotation_table, settings.uid_column)
        source = f"annotation_table={settings.annotation_table}"
        check_any_image(annotations, shapes, source)
        warnings += check_annotations(annotations, run.label_columns, device_types, shapes, shapes, source)
        warnings += check_drawn_labels(annotations, table.uids.tolist(), table.targets, run.label_columns, source)
    if settings.landmark_table is not None:
        landmarks = read_landmarks(folder / settings.landmark_table, settings.uid_column)
        source = f"landmark_table={settings.landmark_table}"
        tips = list(map(tip_name, device_types))
        warnings += check_landmarks(landmarks, run.landmarks, shapes, shapes, source, tips)
    for text in warnings:
        warn(text)
    entries = [cache.entries[position] for position in kept]
    lines = DrawnLines.of(
        [annotations.get(entry.uid, []) for entry in entries],
        placements,
        [entry.full_shape for entry in entries],
        table.labels[kept],
        run.label_columns,
        device_types,
        [landmarks.get(entry.uid, {}) for entry in entries],
        run.landmarks,
    )
    for number, name in enumerate(device_types):
        drawn, absent, unknown = lines.count(number)
        say(f"lines of {name}: drawn in {counted(drawn, 'image')}, absent in {absent}, unknown in {unknown}")
    return lines


def _read_spacings(
    settings: Settings, cache: ImageCache, is_kept: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float64] | None:
    """(N, 2) pixel spacing of the kept images of a label table; None where no table says, or nothing is measured."""
    if settings.spacing_table is None or not settings.measurements or not settings.learns_lines:
        return None
    known = read_spacing_table(Path(settings.dataset_folder) / settings.spacing_table, settings.uid_column)
    source, shapes = f"spacing_table={settings.spacing_table}", {entry.uid: entry.full_shape for entry in cache.entries}
    check_spacing_ids(known, shapes, source)
    for text in check_sizes(known, shapes, source):
        warn(text)
    spacings = spacings_of(known, [cache.entries[position].uid for position in np.flatnonzero(is_kept)])
    num_missing = int(np.isnan(spacings[:, 0]).sum())
    if num_missing:
        images = counted(len(spacings), "image")
        warn(f"{source}: no row for {num_missing} of {images}, so no lengths in mm there")
    return spacings


def _fingerprint(
    pixels_hash: str,
    uids: npt.NDArray[np.str_],
    targets: npt.NDArray[np.float32],
    folds: npt.NDArray[np.int8],
    numbers: Mapping[str, npt.NDArray[np.float32]],
    lines: DrawnLines | None,
) -> str:
    digest = hashlib.sha256(pixels_hash.encode())
    digest.update("\n".join(uids.tolist()).encode())
    # Of labels that are 0 and 1 alone as earlier versions had it: their runs go on.
    digest.update((targets.astype(np.uint8) if np.isin(targets, (0, 1)).all() else targets).tobytes())
    digest.update(folds.tobytes())
    for name, values in sorted(numbers.items()):
        digest.update(name.encode() + values.tobytes())
    if lines is not None:
        for field in dataclasses.fields(lines):
            digest.update(getattr(lines, field.name).tobytes())
    return digest.hexdigest()


def _choose_for_debug_run(
    settings: Settings, patient_ids: npt.NDArray[np.str_], folds: npt.NDArray[np.int8]
) -> npt.NDArray[np.bool_]:
    """(N,) whether each image is one of the debug run's: the same share of each fold's patients, at least one."""
    rng = np.random.default_rng(settings.seed_of_folds)
    chosen: list[str] = []
    for fold in np.unique(folds):
        patients = rng.permutation(np.unique(patient_ids[folds == fold]))
        chosen += patients[: math.ceil(settings.debug_fraction * len(patients))].tolist()
    return np.isin(patient_ids, chosen)


Radiographs = CachedRadiographs | JoinedRadiographs
"""Images of one cache, or of several."""


def split_samples(settings: Settings, data: RunData, fold: int) -> tuple[Radiographs, CachedRadiographs]:
    """The images of the other folds, augmented, and the validation images of this fold, as they are, to be scored."""
    return _training_samples(settings, data, fold), plain_samples(settings, data, data.folds == fold)


def all_samples(settings: Settings, data: RunData) -> Radiographs:
    """Every image, augmented."""
    return _training_samples(settings, data, None)


def _training_samples(settings: Settings, data: RunData, fold: int | None) -> Radiographs:
    """The images that the model of a fold, or of all folds, learns from: augmented, with line targets if it does."""
    chosen = [(of, is_chosen) for of, is_chosen in training_images(data, fold) if is_chosen.any()]
    learnt = [of.learnt_targets(fold) for of, _ in chosen]
    tell_known = any(np.isnan(of[is_chosen]).any() for of, (_, is_chosen) in zip(learnt, chosen, strict=True))
    of_tables = [(of.learnt_lines(fold), is_chosen) for of, is_chosen in chosen]
    lines = [None if of_table is None else of_table.take(is_chosen) for of_table, is_chosen in of_tables]
    max_lines = max(1 if of is None else of.max_lines for of in lines)
    parts = []
    for (of, is_chosen), of_labels, drawn in zip(chosen, learnt, lines, strict=True):
        targets = None
        if drawn is not None:
            shapes = {"image_shape": settings.image_shape, "map_shape": settings.map_shape}
            targets = LineTargets(lines=drawn, **shapes, max_lines=max_lines)
        augmentation = build_augmentation(settings)
        parts.append(_samples(settings, of, is_chosen, of_labels, augmentation, targets, tell_known=tell_known))
    return parts[0] if len(parts) == 1 else JoinedRadiographs(parts)


def _samples(
    settings: Settings,
    data: RunData,
    is_chosen: npt.NDArray[np.bool_],
    labels: npt.NDArray[np.float32],
    augmentation: Augmentation | GpuAugmentation | None,
    line_targets: LineTargets | None = None,
    *,
    tell_known: bool = False,
) -> CachedRadiographs:
    return CachedRadiographs(
        data.cache_file,
        data.rows[is_chosen],
        data.uids[is_chosen],
        labels[is_chosen],
        augmentation,
        settings.seed,
        data.checks,
        {name: values[is_chosen] for name, values in data.numbers.items()},
        line_targets,
        None if data.input_maps is None else data.input_maps.take(is_chosen),
        tell_known=tell_known,
    )


def plain_samples(settings: Settings, data: RunData, is_chosen: npt.NDArray[np.bool_]) -> CachedRadiographs:
    """The chosen images, (N,), as they are, to be scored."""
    return _samples(settings, data, is_chosen, data.labels, None)


def create_train_loader(
    settings: Settings, samples: Radiographs, device: torch.device, processes: Processes = ALONE
) -> EpochLoader:
    """Shuffled batches, per epoch as many as make whole optimizer steps; of each global batch this rank's share."""
    batches = EpochBatches(
        len(samples),
        settings.images_per_batch,
        settings.seed,
        settings.accumulation_steps,
        processes.rank,
        processes.count,
    )
    return EpochLoader(create_loader(samples, batches, settings.num_workers, device))


def create_valid_loader(
    settings: Settings, samples: CachedRadiographs, device: torch.device, processes: Processes = ALONE
) -> Loader:
    """Batches in order, of every image once; this rank's share of the images."""
    batch_size = settings.valid_batch_size or 2 * settings.images_per_batch // processes.count
    batches = BatchesInOrder(len(samples), batch_size, processes.rank, processes.count)
    return create_loader(samples, batches, settings.num_workers, device)
