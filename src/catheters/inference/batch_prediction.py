"""Many images through the models: read by worker processes while the models work, at constant memory.

What is done is kept as it is done, see `unfinished`, so that a kill costs the images in flight alone.
"""

import contextlib
import functools
import hashlib
import itertools
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from catheters.data.decoding.image import UnreadableImage
from catheters.data.decoding.radiograph import read_file
from catheters.data.image_hashes import perceptual_hash
from catheters.data.preprocessing import Preprocessing
from catheters.errors import UserError, counted
from catheters.inference.inputs import Images
from catheters.inference.predictor import NO_NUMBER, Predictor
from catheters.inference.reading import ReadImage, read_image
from catheters.inference.unfinished import (
    Entry,
    State,
    Write,
    file_state,
    open_unfinished,
)
from catheters.io.journal import MAX_SECONDS_OF_END, file_of_rank, files_of_ranks
from catheters.runtime.console import say
from catheters.runtime.distributed import WITHOUT_TORCHRUN, TorchrunProcesses
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
    predictor: Predictor,
    images: Images,
    part_file: Path,
    *,
    batch_size: int,
    num_workers: int,
    key: str,
    torchrun: TorchrunProcesses = WITHOUT_TORCHRUN,
) -> Predictions:
    """Predict every image; those that `part_file` has already, and that have not changed since, are taken from it.

    Of several ranks each predicts a share into a part of its own, in a folder that all of them see. Rank 0 joins them.

    Args:
        predictor: the models.
        images: n of them.
        part_file: what is done, to be removed when the results are written.
        batch_size: images that the models get at a time.
        num_workers: processes that read.
        key: what decides the predictions besides the images; a part of another key is refused.
        torchrun: all ranks; what the others than rank 0 are given lacks the images of the other ranks.

    Raises:
        UserError: the part is of another command, a rank does not see it, or the disk is full.
    """
    done = _Done(predictor, images)
    key = torchrun.share("key of the predictions", _full_key(key, images))
    if torchrun.rank == 0:
        with done.open(part_file, key) as write:
            for file in files_of_ranks(part_file):
                done.join(file, key, write, done.take_if_same_file)
            done.describe()
            waiting = torchrun.share("images to predict", done.waiting)
            _predict_share(predictor, images, waiting, batch_size, num_workers, torchrun, done, write)
            torchrun.barrier()
            for rank in range(1, torchrun.count):
                # As they are: a file that could not be read, or has changed since, is what that rank has found.
                done.join(file_of_rank(part_file, rank), key, write, done.take)
            if done.waiting:
                raise UserError(
                    f"{part_file}: what other ranks have predicted of {counted(len(done.waiting), 'image')} is not to "
                    "be seen from rank 0; give --out in a folder that all machines share"
                )
    else:
        waiting = torchrun.share("images to predict", [])
        if not part_file.is_file():
            raise UserError(
                f"{part_file}: rank 0 has made it, and it is not to be seen from here; give --out in a folder that all "
                "machines share"
            )
        with done.open(file_of_rank(part_file, torchrun.rank), key) as write:
            _predict_share(predictor, images, waiting, batch_size, num_workers, torchrun, done, write)
        torchrun.barrier()
    return done.predictions()


class _Done:
    """What is known of each image, as it becomes known."""

    def __init__(self, predictor: Predictor, images: Images) -> None:
        """Nothing yet."""
        num_checkpoints, num_labels = len(predictor.models.checkpoints), len(predictor.models.labels)
        self._images = images
        self._shape = (num_checkpoints, num_labels)
        self._probabilities = np.full((num_checkpoints, len(images), num_labels), np.nan, dtype=np.float32)
        self._reasons: list[str] = [""] * len(images)
        self._quality_flags: list[tuple[str, ...]] = [()] * len(images)
        self._distances = np.full((num_checkpoints, len(images)), np.nan)
        self._image_hashes = [b""] * len(images)
        self._is_done, self._has_changed = (np.zeros(len(images), dtype=np.bool_) for _ in range(2))

    def open(self, file: Path, key: str) -> contextlib.AbstractContextManager[Write]:
        """A part: what it holds is taken, as far as the images have not changed since; more can be written to it."""
        return open_unfinished(file, key, len(self._images), self._shape, self.take_if_same_file)

    def join(self, file: Path, key: str, write: Write, take: Callable[[Entry], None]) -> None:
        """Take what another rank has done into the one part, and remove its own."""
        entries: list[Entry] = []
        # One of a launch that was killed ends by itself.
        of_images = (len(self._images), self._shape)
        with open_unfinished(file, key, *of_images, entries.append, timeout_s=MAX_SECONDS_OF_END):
            write(entries)
        for entry in entries:
            take(entry)
        file.unlink()

    def take(self, entry: Entry) -> None:
        """What became of an image."""
        row = entry.row
        self._is_done[row] = True
        self._reasons[row], self._quality_flags[row] = entry.reason or "", entry.quality_flags
        self._probabilities[:, row] = np.nan if entry.probabilities is None else entry.probabilities
        self._distances[:, row] = np.nan if entry.distances is None else entry.distances
        self._image_hashes[row] = entry.image_hash

    def take_if_same_file(self, entry: Entry) -> None:
        """What became of an image, unless its file is another one since."""
        is_same = entry.state == file_state(self._images.paths[entry.row])
        # Without a state it was missing then, or its reader died: what it is now is no change.
        self._has_changed[entry.row] = entry.state is not None and not is_same
        self._is_done[entry.row] = False  # of an earlier line
        if is_same:
            self.take(entry)

    @property
    def waiting(self) -> list[int]:
        """The rows that are not done."""
        rows: list[int] = np.flatnonzero(~self._is_done).tolist()
        return rows

    def describe(self) -> None:
        """Say what an earlier command has done."""
        num_done = int(self._is_done.sum())
        if num_done:
            say(f"{num_done} of {counted(len(self._images), 'image')} were predicted before: resuming from there")
        if self._has_changed.any():
            say(f"{self._has_changed.sum()} of them have changed since they were predicted, and are predicted again")

    def predictions(self) -> Predictions:
        """All of it."""
        return Predictions(
            probabilities=self._probabilities,
            reasons=tuple(self._reasons),
            quality_flags=tuple(self._quality_flags),
            distances=self._distances,
            image_hashes=tuple(self._image_hashes),
        )


def _predict_share(
    predictor: Predictor,
    images: Images,
    waiting: Sequence[int],
    batch_size: int,
    num_workers: int,
    torchrun: TorchrunProcesses,
    done: _Done,
    write: Write,
) -> None:
    """Predict this rank's share of the rows that wait: every so many-th batch.

    The last digits of a probability depend on how many images are computed with it. A batch has the same rows for any
    number of ranks, and after a kill too.
    """
    batches = [list(rows) for _, rows in itertools.groupby(waiting, lambda row: row // batch_size)]
    batches = batches[torchrun.rank :: torchrun.count]
    share = list(itertools.chain.from_iterable(batches))
    what = "predicting" if torchrun.count == 1 else f"predicting, a share of 1/{torchrun.count}"
    total = len(images) // torchrun.count if torchrun.count > 1 else len(images)
    read = functools.partial(_read_row, images.paths, predictor.preprocessings)
    tasks = map_guarded(read, share, num_workers)
    with _ahead(tasks, BATCHES_AHEAD * batch_size) as arriving:
        tracked = track(arriving, what, max(total, len(share)), num_done=max(total - len(share), 0))
        for batch in _whole_batches(tracked, batches, batch_size):
            new = list(_predict_batch(predictor, batch))
            write(new)
            for entry in new:
                done.take(entry)


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


def _whole_batches(
    arriving: Iterable[tuple[int, _Arrived | Failure]], batches: Sequence[Sequence[int]], batch_size: int
) -> Iterator[list[tuple[int, _Arrived | Failure]]]:
    """Each batch when all of its rows are there, in their order; rows arrive in any."""
    rows_of = {rows[0] // batch_size: rows for rows in batches}
    there: dict[int, dict[int, _Arrived | Failure]] = {}
    for row, outcome in arriving:
        number = row // batch_size
        there.setdefault(number, {})[row] = outcome
        if len(there[number]) == len(rows_of[number]):
            outcomes = there.pop(number)
            yield [(row, outcomes[row]) for row in rows_of[number]]


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
