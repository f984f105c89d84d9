"""Many images through the models: read by worker processes while the models work, at constant memory.

What is done is kept as it is done, see `unfinished`, so that a kill costs the images in flight alone.
"""

import contextlib
import functools
import hashlib
import queue
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from catheters.data.decoding.image import UnreadableImage
from catheters.data.decoding.radiograph import read_file
from catheters.data.image_hashes import perceptual_hash
from catheters.data.preprocessing import Preprocessing
from catheters.errors import counted
from catheters.inference.inputs import Images
from catheters.inference.predictor import NO_NUMBER, Predictor
from catheters.inference.reading import ReadImage, read_image
from catheters.inference.unfinished import Entry, State, file_state, open_unfinished
from catheters.runtime.console import say
from catheters.runtime.opencv_threads import end_opencv_threads
from catheters.runtime.progress import track
from catheters.runtime.workers import Failure, map_guarded

T = TypeVar("T")

BATCHES_AHEAD = 2
"""Batches that are read while the models work."""


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """What became of n images, in their order.

    Attributes:
        probabilities: (C, n, K) float32 of each checkpoint; NaN for images that could not be read.
        reasons: (n,) why an image could not be read; empty for one that could.
        quality_flags: (n,) what a reader should know about it.
        distances: (C, n) see `Predicted`; NaN likewise.
        image_hashes: (n,) perceptual hashes of the pixels that the first checkpoint sees; empty likewise.
    """

    probabilities: npt.NDArray[np.float32]
    reasons: tuple[str, ...]
    quality_flags: tuple[tuple[str, ...], ...]
    distances: npt.NDArray[np.float64]
    image_hashes: tuple[bytes, ...]

    @property
    def is_read(self) -> npt.NDArray[np.bool_]:
        """(n,) whether the image could be read."""
        return np.array([reason == "" for reason in self.reasons], dtype=np.bool_)


def predict_images(
    predictor: Predictor, images: Images, part_file: Path, *, batch_size: int, num_workers: int, key: str
) -> Predictions:
    """Predict every image; those that `part_file` has already, and that have not changed since, are taken from it.

    Args:
        predictor: the models.
        images: n of them.
        part_file: what is done, to be removed when the results are written.
        batch_size: images that the models get at a time.
        num_workers: processes that read.
        key: what decides the predictions besides the images; a part of another key is refused.

    Raises:
        UserError: the part is of another command, or the disk is full.
    """
    num_checkpoints, num_labels = len(predictor.models.checkpoints), len(predictor.models.labels)
    probabilities = np.full((num_checkpoints, len(images), num_labels), np.nan, dtype=np.float32)
    reasons: list[str] = [""] * len(images)
    quality_flags: list[tuple[str, ...]] = [()] * len(images)
    distances = np.full((num_checkpoints, len(images)), np.nan)
    image_hashes = [b""] * len(images)
    done, has_changed = (np.zeros(len(images), dtype=np.bool_) for _ in range(2))

    def take(entry: Entry) -> None:
        row = entry.row
        done[row] = True
        reasons[row], quality_flags[row] = entry.reason or "", entry.quality_flags
        probabilities[:, row] = np.nan if entry.probabilities is None else entry.probabilities
        distances[:, row] = np.nan if entry.distances is None else entry.distances
        image_hashes[row] = entry.image_hash

    def take_if_same_file(entry: Entry) -> None:
        is_same = entry.state == file_state(images.paths[entry.row])
        # Without a state it was missing then, or its reader died: what it is now is no change.
        has_changed[entry.row] = entry.state is not None and not is_same
        done[entry.row] = False  # of an earlier line
        if is_same:
            take(entry)

    shape = (num_checkpoints, num_labels)
    with open_unfinished(part_file, _full_key(key, images), len(images), shape, take_if_same_file) as write:
        waiting = np.flatnonzero(~done).tolist()
        if len(waiting) < len(images):
            num_done = len(images) - len(waiting)
            say(f"{num_done} of {counted(len(images), 'image')} were predicted before: resuming from there")
        if has_changed.any():
            say(f"{has_changed.sum()} of them have changed since they were predicted, and are predicted again")
        read = functools.partial(_read_row, images.paths, predictor.preprocessings)
        tasks = map_guarded(read, waiting, num_workers)
        with _ahead(tasks, BATCHES_AHEAD * batch_size) as arriving:
            tracked = track(arriving, "predicting", len(images), num_done=len(images) - len(waiting))
            for batch in _batches(tracked, batch_size):
                new = list(_predict_batch(predictor, batch))
                write(new)
                for entry in new:
                    take(entry)
    return Predictions(
        probabilities=probabilities,
        reasons=tuple(reasons),
        quality_flags=tuple(quality_flags),
        distances=distances,
        image_hashes=tuple(image_hashes),
    )


class _Arrived(NamedTuple):
    """What a worker read, the state of the file before that, and the perceptual hash of the pixels."""

    image: ReadImage
    state: State | None
    image_hash: bytes = b""


def _read_row(paths: tuple[Path, ...], preprocessings: tuple[Preprocessing, ...], row: int) -> _Arrived:
    """In a worker."""
    end_opencv_threads()
    state = file_state(paths[row])  # first: what replaces the file from now on is then known for another one
    try:
        image = read_image(read_file(paths[row]), preprocessings)
        return _Arrived(image, state, perceptual_hash(image.pixels[0]) if image.reason is None else b"")
    except UnreadableImage as error:
        return _Arrived(ReadImage(reason=str(error)), state)


def _predict_batch(predictor: Predictor, batch: Sequence[tuple[int, _Arrived | Failure]]) -> Iterator[Entry]:
    """What became of each image."""
    arrived = [(row, outcome) for row, outcome in batch if isinstance(outcome, _Arrived)]
    readable = [(row, outcome) for row, outcome in arrived if outcome.image.reason is None]
    if readable:
        probabilities, quality_flags, distances = predictor.predict([outcome.image for _, outcome in readable])
        for number, (row, (_, state, image_hash)) in enumerate(readable):
            predictions = probabilities[:, number]
            if np.isfinite(predictions).all():
                yield Entry(
                    row=row,
                    state=state,
                    reason=None,
                    quality_flags=tuple(quality_flags[number]),
                    probabilities=predictions,
                    distances=distances[:, number],
                    image_hash=image_hash,
                )
            else:
                yield Entry(row=row, state=state, reason=NO_NUMBER)
    for row, (image, state, _) in arrived:
        if image.reason is not None:
            yield Entry(row=row, state=state, reason=image.reason)
    for row, outcome in batch:
        if isinstance(outcome, Failure):
            yield Entry(row=row, state=None, reason=outcome.reason)


def _batches(items: Iterator[T], size: int) -> Iterator[list[T]]:
    batch: list[T] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


@contextlib.contextmanager
def _ahead(items: Iterator[T], size: int) -> Iterator[Iterator[T]]:
    """The items, fetched by a thread up to `size` of them ahead of who uses them."""
    fetched: queue.Queue[tuple[T] | BaseException | None] = queue.Queue(maxsize=size)
    is_over = threading.Event()

    def put(item: tuple[T] | BaseException | None) -> None:
        while not is_over.is_set():
            with contextlib.suppress(queue.Full):
                fetched.put(item, timeout=0.1)
                return

    def fetch() -> None:
        try:
            for item in items:
                put((item,))
                if is_over.is_set():
                    return
            put(None)
        except BaseException as error:
            put(error)  # raised where the items are used

    def use() -> Iterator[T]:
        while (item := fetched.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item[0]

    thread = threading.Thread(target=fetch, name="reading images", daemon=True)
    thread.start()
    try:
        yield use()
    finally:
        is_over.set()
        thread.join()
        close = getattr(items, "close", None)
        if close is not None:
            close()


def _full_key(key: str, images: Images) -> str:
    listed = "\n".join(f"{uid}\t{path}" for uid, path in zip(images.uids, images.paths, strict=True))
    return hashlib.sha256(f"{key}\n{listed}".encode("utf-8", "surrogateescape")).hexdigest()
