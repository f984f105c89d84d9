"""What a run's models say of images from elsewhere, and how far those lie from the run's own."""

import signal
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from catheters.checkpoints.parts import build_preprocessing
from catheters.data.cache.cache import CacheError, open_cache
from catheters.data.tables.label_table import read_label_table
from catheters.errors import UserError, counted, one_line
from catheters.inference.batch_prediction import Predictions, predict_images
from catheters.inference.inputs import Images
from catheters.inference.loading import LoadedMember, Models
from catheters.inference.predictor import Predictor
from catheters.inference.reading import ReadImage
from catheters.inference.unfinished import remove_parts
from catheters.runs.build import build_table_source
from catheters.runs.external.frozen_run import FrozenRun
from catheters.runs.external.theirs import Theirs
from catheters.runtime.console import say, silent
from catheters.runtime.device import device_name, prepare_device
from catheters.runtime.interrupts import Interrupted, interrupt_signal
from catheters.runtime.precision import warn_of_precision
from catheters.runtime.progress import track
from catheters.runtime.shortage import DeviceError

MAX_OWN_IMAGES = 400
"""Of the run's own whose distances are measured; more cannot be told apart in a histogram."""
OWN_BATCH = 8


@dataclass(frozen=True, kw_only=True)
class PredictionOptions:
    """How images are predicted.

    Attributes:
        device: where.
        batch_size: images at a time.
        num_workers: processes that read.
        fresh: whether what an earlier command has done is of no concern.
    """

    device: torch.device
    batch_size: int
    num_workers: int
    fresh: bool


def predict_theirs(predictor: Predictor, theirs: Theirs, part_file: Path, options: PredictionOptions) -> Predictions:
    """Predict all images from elsewhere; what was done before is taken over.

    Args:
        predictor: the run's models.
        theirs: n images whose files are known.
        part_file: what is done, image by image; it stays, so that the same command takes seconds.
        options: how.

    Raises:
        UserError: the part is of other images or models, the disk is full, or the device has no room.
        Interrupted: a signal asked to stop.
    """
    assert theirs.paths is not None
    if options.fresh:
        remove_parts(part_file)
    models = predictor.models
    warn_of_precision([checkpoint.dtype_on(options.device) for checkpoint in models.checkpoints], options.device)
    prepare_device(options.device, deterministic=True)
    files = [checkpoint.file for checkpoint in models.checkpoints]
    # By their names in the run, which may have been copied since.
    states = [(file.parent.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    images = Images(uids=tuple(theirs.uids.tolist()), paths=theirs.paths)
    say(
        f"{counted(len(images), 'image')} of {theirs.source}, {counted(len(files), 'model')} on "
        f"{device_name(options.device)}"
    )
    try:
        return predict_images(
            predictor,
            images,
            part_file,
            batch_size=options.batch_size,
            num_workers=options.num_workers,
            key=f"external {version('catheters')} {states}",
        )
    except KeyboardInterrupt:
        raise Interrupted("the same command resumes where it stopped", interrupt_signal() or signal.SIGINT) from None
    except DeviceError as error:
        raise UserError(f"{error}. What is done is in {part_file}; the same command resumes from there") from None


def measure_own_distances(
    predictor: Predictor, frozen: FrozenRun, seed: int
) -> tuple[npt.NDArray[np.float64] | None, str]:
    """Distances of the run's own images, each by the model that had not seen it, from the run's cache.

    Args:
        predictor: the run's models.
        frozen: the run.
        seed: of the images that are taken, 400 at most.

    Returns:
        (m,) squared distances over the limit, or None; and why, where there are none.
    """
    own, settings = frozen.own.predicted, frozen.settings
    source = build_table_source(settings)
    if not source.file.is_file() or own.folds is None:
        return None, f"{source.file} is not here"
    try:
        with silent(True):  # training has said all of it
            table = read_label_table(source)
            cache = open_cache(settings.cache_file, table, build_preprocessing(settings))
    except CacheError as error:
        return None, error.found
    except UserError as error:
        return None, one_line(error)
    row_of = {uid: int(row) for uid, row in zip(table.uids.tolist(), cache.rows, strict=True)}
    chosen = np.random.default_rng(seed).permutation(len(own))[:MAX_OWN_IMAGES]
    found = []
    of_fold = {_fold_of(checkpoint.file): checkpoint for checkpoint in predictor.models.checkpoints}
    batches = [
        (fold, rows[start : start + OWN_BATCH])
        for fold in of_fold
        for rows in [chosen[own.folds[chosen] == fold]]
        for start in range(0, len(rows), OWN_BATCH)
    ]
    for fold, rows in track(batches, "distances of the run's own images", len(batches), unit="batch", leave=False):
        single = Predictor(_alone(predictor.models, of_fold[fold].file), predictor.device)
        images = [
            ReadImage(reason=None, pixels=(np.ascontiguousarray(cache.images[row_of[uid]]),))
            for uid in own.uids[rows].tolist()
        ]
        found.append(single.predict(images).distances[0])
    return (np.concatenate(found), "") if found else (None, "no fold's model predicted them")


def _fold_of(checkpoint: Path) -> int:
    """`.../fold3/best.pt` -> 3."""
    return int(checkpoint.parent.name.removeprefix("fold"))


def _alone(models: Models, file: Path) -> Models:
    (checkpoint,) = (checkpoint for checkpoint in models.checkpoints if checkpoint.file == file)
    return replace(models, members=(LoadedMember(name=str(file), checkpoints=(checkpoint,)),))
