"""Writing the image cache: in worker processes, at constant memory, and so that a kill at any moment costs little.

Rows of an earlier cache whose X-ray did not change are taken over; `partial` keeps what is written.
"""

import contextlib
import functools
import hashlib
import json
import os
import zlib
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from catheters.data.cache.cache import ImageCache
from catheters.data.cache.earlier import EarlierCache, find_earlier_cache, reusable_rows
from catheters.data.cache.index import (
    FORMAT_VERSION,
    CacheIndex,
    CacheRow,
    decoder_versions,
    grey_statistics,
    source_state,
    write_index,
)
from catheters.data.cache.partial import CachePart, discard_journal, discard_unfinished
from catheters.data.decoding.image import UnreadableImage
from catheters.data.decoding.radiograph import read_file
from catheters.data.preprocessing import Preprocessing, preprocess
from catheters.data.tables.label_table import LabelTable
from catheters.errors import UserError, counted, one_line
from catheters.io.files import clear_end_when_full, printable
from catheters.io.locks import exclusive_lock
from catheters.io.near_misses import file_hint
from catheters.runtime.console import say
from catheters.runtime.host import available_cores
from catheters.runtime.opencv_threads import end_opencv_threads
from catheters.runtime.progress import track
from catheters.runtime.workers import Failure, map_guarded

Pixels = npt.NDArray[np.uint8]


def build_cache(
    table: LabelTable, cache_file: Path, preprocessing: Preprocessing, num_workers: int | None = None
) -> None:
    """Decode and resize every X-ray of the table into `cache_file`.

    Args:
        table: the images.
        cache_file: the `.npy` to write.
        preprocessing: what becomes of each image.
        num_workers: processes that decode; None: one per core.

    Raises:
        UserError: no room on the disk, another process is at it, another data set's cache stands there, or not one
            X-ray could be read.
    """
    _make_folder(cache_file.parent)
    with _lock(cache_file), clear_end_when_full(cache_file.parent):
        earlier = find_earlier_cache(cache_file, table, preprocessing)
        reusable = {} if earlier is None else reusable_rows(earlier, table)
        if (
            earlier is not None
            and _has_rows_of(earlier.index, table)
            and len(reusable) == len(table)
            and earlier.is_intact()
        ):
            say("files have another time of change and the same content: the pixels stay")
            write_index(cache_file, _describe(reusable, preprocessing))
            discard_unfinished(cache_file)
            return
        shape = (len(table), *preprocessing.image_shape)
        with contextlib.closing(CachePart(cache_file, shape, _key(table, preprocessing))) as part:
            try:
                part.keep_valid(lambda row, entry: entry.state == source_state(table.paths[row]))
                if earlier is not None:
                    _take_over(part, earlier, reusable)
                _decode(part, table, preprocessing, available_cores() if num_workers is None else num_workers)
            except KeyboardInterrupt:
                say(f"{len(part.done)} of {counted(len(table), 'X-ray')} done; the same command resumes there")
                raise
            if all(entry.reason is not None for entry in part.done.values()):
                part.discard()
                raise UserError(
                    f"{table.paths[0]}: {part.done[0].reason}; nor could any other of the {len(table)} X-rays be read: "
                    f"check dataset_folder and path_pattern{file_hint(table.paths[0])}"
                )
            part.finish(_describe(part.done, preprocessing))


def tidy_up(cache_file: Path) -> None:
    """Delete what a kill at the very end of a build left beside a finished cache, unless another process is at it."""
    if cache_file.with_suffix(".npy.journal").exists():
        with contextlib.suppress(UserError, OSError), _lock(cache_file):
            discard_journal(cache_file)


def can_be_read_now(table: LabelTable, cache: ImageCache, preprocessing: Preprocessing) -> bool:
    """Whether an X-ray that could not be read when the cache was made now can: a disk or network may have recovered."""
    failed = [row for row, entry in enumerate(cache.entries) if entry.reason is not None]
    make_row = functools.partial(_make_row, table.uids, table.paths, preprocessing)
    made = map_guarded(make_row, failed, available_cores())
    return any(not isinstance(outcome, Failure) and outcome[0].reason is None for _, outcome in made)


def _key(table: LabelTable, preprocessing: Preprocessing) -> str:
    """What an unfinished build has to be of to be resumed."""
    sources = "\n".join([*table.uids.tolist(), *map(printable, table.paths)])
    return json.dumps(
        {
            "format_version": FORMAT_VERSION,
            "num_images": len(table),
            "preprocessing": preprocessing.describe(),
            "decoders": decoder_versions(),
            "sources": hashlib.sha256(sources.encode()).hexdigest(),
        }
    )


def _describe(entries: dict[int, CacheRow], preprocessing: Preprocessing) -> CacheIndex:
    height, width = preprocessing.image_shape
    rows = [entries[row] for row in range(len(entries))]
    mean, std = grey_statistics(rows, height * width)
    return CacheIndex(
        format_version=FORMAT_VERSION,
        shape=(len(rows), height, width),
        preprocessing=preprocessing.describe(),
        decoders=decoder_versions(),
        mean=mean,
        std=std,
        rows=rows,
    )


def _has_rows_of(index: CacheIndex, table: LabelTable) -> bool:
    uids: list[str] = table.uids.tolist()
    return [row.uid for row in index.rows] == uids


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise UserError(f"cache_folder={folder}: is a file") from None
    except OSError as error:
        raise UserError(f"cache_folder={folder}: cannot be made: {error.strerror}") from None
    if not os.access(folder, os.W_OK):
        raise UserError(f"cache_folder={folder}: cannot be written; set another")


def _lock(cache_file: Path) -> contextlib.AbstractContextManager[None]:
    refusal = f"{cache_file}: another process is building it; wait until it has finished"
    return exclusive_lock(cache_file.with_suffix(".lock"), refusal)


def _take_over(part: CachePart, earlier: EarlierCache, reusable: dict[int, CacheRow]) -> None:
    waiting = {row: entry for row, entry in reusable.items() if row not in part.done}
    for row, entry in track(waiting.items(), "taking over what did not change", len(waiting)):
        pixels = earlier.pixels(entry.uid)
        if hashlib.sha256(pixels).hexdigest() == entry.digest:
            part.write(row, entry, pixels)


def _decode(part: CachePart, table: LabelTable, preprocessing: Preprocessing, num_workers: int) -> None:
    waiting = [row for row in range(len(table)) if row not in part.done]
    make_row = functools.partial(_make_row, table.uids, table.paths, preprocessing)
    for row, made in track(map_guarded(make_row, waiting, num_workers), "caching X-rays", len(waiting)):
        if isinstance(made, Failure):
            uid, path = str(table.uids[row]), table.paths[row]
            size, mtime_ns = source_state(path)
            entry = CacheRow(uid=uid, file=printable(path), size=size, mtime_ns=mtime_ns, reason=made.reason, notes={})
            part.write(row, entry, b"")
        else:
            part.write(row, *made)


def _make_row(
    uids: npt.NDArray[np.str_], paths: tuple[Path, ...], preprocessing: Preprocessing, row: int
) -> tuple[CacheRow, bytes]:
    """A row of the cache: what became of the X-ray, and its pixels; none where it could not be read."""
    end_opencv_threads()
    path = paths[row]
    # Taken before the pixels: a source that changes meanwhile must not look unchanged later.
    size, mtime_ns = source_state(path)
    entry = CacheRow(uid=str(uids[row]), file=printable(path), size=size, mtime_ns=mtime_ns, notes={})
    try:
        data = read_file(path)
        entry = replace(entry, crc32=zlib.crc32(data))
        made = preprocess(data, preprocessing)
    except UnreadableImage as error:
        return replace(entry, reason=str(error)), b""
    except cv2.error as error:  # mostly of memory
        return replace(entry, reason=f"cannot be processed: {one_line(error)}"), b""
    pixels = made.pixels.tobytes()
    entry = replace(
        entry,
        digest=hashlib.sha256(pixels).hexdigest(),
        grey_sum=int(cv2.sumElems(made.pixels)[0]),
        grey_square_sum=round(cv2.norm(made.pixels, cv2.NORM_L2SQR)),  # a whole number but for a root and its square
        full_shape=made.full_shape,
        box=made.box,
        notes={note.kind: note.text for note in made.notes},
    )
    return entry, pixels
