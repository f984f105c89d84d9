"""Many images through the models: read by worker processes while the models work, at constant memory.

What is done is kept as it is done, in a file of JSON lines, so that a kill costs the images in flight alone.
"""

import contextlib
import functools
import hashlib
import json
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import filelock
import numpy as np
import numpy.typing as npt

from catheters.data.decoding.picture import UnreadableImage
from catheters.data.preprocessing import Preprocessing
from catheters.data.radiograph import read_file
from catheters.errors import UserError
from catheters.files import clear_end_when_full
from catheters.inference.inputs import Images
from catheters.inference.predictor import NO_NUMBER, Predictor
from catheters.inference.reading import ReadImage, read_image
from catheters.opencv_threads import end_opencv_threads
from catheters.progress import track
from catheters.workers import Failure, map_guarded

T = TypeVar("T")

BATCHES_AHEAD = 2
"""Batches that are read while the models work."""


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What became of n images, in their order.

    Attributes:
        probabilities: (C, n, K) float32 of each checkpoint; NaN for images that could not be read.
        reasons: (n,) why an image could not be read; empty for one that could.
        doubts: (n,) what a reader should know about it.
    """

    probabilities: npt.NDArray[np.float32]
    reasons: tuple[str, ...]
    doubts: tuple[tuple[str, ...], ...]

    @property
    def is_read(self) -> npt.NDArray[np.bool_]:
        """(n,) whether the image could be read."""
        return np.array([reason == "" for reason in self.reasons], dtype=np.bool_)


def predict_images(
    predictor: Predictor, images: Images, part_file: Path, *, batch_size: int, num_workers: int, key: str
) -> Answers:
    """Predict every image; those that `part_file` has already are taken from it.

    Args:
        predictor: the models.
        images: n of them.
        part_file: what is done, to be removed when the results are written.
        batch_size: images that the models get at a time.
        num_workers: processes that read.
        key: what decides the answers besides the images; a part of another key is refused.

    Raises:
        UserError: the part is of another command, or the disk is full.
    """
    num_checkpoints, num_labels = len(predictor.models.checkpoints), len(predictor.models.labels)
    probabilities = np.full((num_checkpoints, len(images), num_labels), np.nan, dtype=np.float32)
    reasons, doubts = [""] * len(images), [()] * len(images)
    done = np.zeros(len(images), dtype=np.bool_)

    def take(entry: dict[str, Any]) -> None:
        row = entry["row"]
        done[row] = True
        reasons[row], doubts[row] = entry["reason"] or "", tuple(entry["doubts"])
        if entry["reason"] is None:
            probabilities[:, row] = np.array(entry["probabilities"], dtype=np.float32)

    with _open_part(part_file, _full_key(key, images), take) as write:
        waiting = np.flatnonzero(~done).tolist()
        if len(waiting) < len(images):
            print(f"{len(images) - len(waiting)} of {len(images)} images were predicted before: going on from there")
        read = functools.partial(_read_row, images.paths, predictor.preprocessings)
        tasks = map_guarded(read, waiting, num_workers)
        with _ahead(tasks, BATCHES_AHEAD * batch_size) as arriving:
            tracked = track(arriving, "predicting", len(images), num_done=len(images) - len(waiting))
            for batch in _batches(tracked, batch_size):
                new = list(_predict_batch(predictor, batch))
                write(new)
                for entry in new:
                    take(entry)
    return Answers(probabilities=probabilities, reasons=tuple(reasons), doubts=tuple(doubts))


def _read_row(paths: tuple[Path, ...], preprocessings: tuple[Preprocessing, ...], row: int) -> ReadImage:
    """In a worker."""
    end_opencv_threads()
    try:
        return read_image(read_file(paths[row]), preprocessings)
    except UnreadableImage as error:
        return ReadImage(reason=str(error))


def _predict_batch(predictor: Predictor, batch: Sequence[tuple[int, ReadImage | Failure]]) -> Iterator[dict[str, Any]]:
    """What became of each image, as it is written down."""
    readable = [(row, image) for row, image in batch if isinstance(image, ReadImage) and image.reason is None]
    if readable:
        probabilities, doubts = predictor.predict([image for _, image in readable])
        for number, (row, _) in enumerate(readable):
            # As Python's numbers, which hold a float32 exactly.
            answers = probabilities[:, number].tolist()
            if np.isfinite(probabilities[:, number]).all():
                yield {"row": row, "reason": None, "doubts": doubts[number], "probabilities": answers}
            else:
                yield {"row": row, "reason": NO_NUMBER, "doubts": ()}
    for row, outcome in batch:
        if outcome.reason is not None:
            yield {"row": row, "reason": outcome.reason, "doubts": ()}


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


@contextlib.contextmanager
def _only_process(file: Path) -> Iterator[None]:
    lock = filelock.FileLock(f"{file}.lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise UserError(f"{file}: another process is at it; choose another --out, or wait") from None
    try:
        yield
    finally:
        Path(lock.lock_file).unlink(missing_ok=True)  # or one would lie beside all predictions
        lock.release()


@contextlib.contextmanager
def _open_part(
    file: Path, key: str, take: Callable[[dict[str, Any]], None]
) -> Iterator[Callable[[Sequence[dict[str, Any]]], None]]:
    """Hand over what the file holds, an entry after another, and give a function that adds entries to it.

    No other process can have it open meanwhile.
    """
    head = json.dumps({"key": key}) + "\n"
    with clear_end_when_full(file), _only_process(file), file.open("a+b") as stream:
        stream.seek(0)
        first = stream.readline()
        if first and first.decode(errors="replace") != head:
            raise UserError(
                f"{file}: is what an unfinished command with other images, models or options has done; repeat that one "
                "to go on with it, or give --fresh to start over"
            )
        end = len(first)
        for line in stream:
            try:
                entry = json.loads(line)
            except ValueError:
                break  # the kill cut it off
            if not line.endswith(b"\n"):
                break
            take(entry)
            end += len(line)
        stream.truncate(end)  # what is written goes to the end
        if not end:
            stream.write(head.encode())

        def write(new: Sequence[dict[str, Any]]) -> None:
            stream.write("".join(json.dumps(entry) + "\n" for entry in new).encode())
            stream.flush()

        yield write
