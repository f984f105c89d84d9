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
from catheters.data.cache.partial import CachePart, CacheRows, discard_journal, discard_unfinished, has_journal
from catheters.data.decoding.image import UnreadableImage
from catheters.data.decoding.radiograph import read_file
from catheters.data.preprocessing import Preprocessing, preprocess
from catheters.data.tables.label_table import LabelTable
from catheters.errors import UserError, counted, one_line
from catheters.io.files import clear_end_when_full, printable
from catheters.io.locks import exclusive_lock
from catheters.io.near_misses import file_hint
from catheters.runtime.console import say
from catheters.runtime.distributed import WITHOUT_TORCHRUN, TorchrunProcesses
from catheters.runtime.host import available_cores, num_local_processes
from catheters.runtime.opencv_threads import end_opencv_threads
from catheters.runtime.progress import track
from catheters.runtime.workers import Failure, map_guarded

Pixels = npt.NDArray[np.uint8]


def build_cache(
    table: LabelTable,
    cache_file: Path,
    preprocessing: Preprocessing,
    num_workers: int | None = None,
    torchrun: TorchrunProcesses = WITHOUT_TORCHRUN,
) -> None:
    """Decode and resize every X-ray of the table into `cache_file`.

    Of several ranks, rank 0 calls this and the others `help_to_build`. The file has the same bytes for any number of
    them.

    Args:
        table: the images.
        cache_file: the `.npy` to write.
        preprocessing: what becomes of each image.
        num_workers: processes that decode; None: one per core, which the ranks of a machine share.
        torchrun: all ranks.

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
            need_no_help(cache_file, torchrun)
            return
        shape = (len(table), *preprocessing.image_shape)
        key = _key(table, preprocessing)
        with contextlib.closing(CachePart(cache_file, shape, key)) as part:
            try:
                part.keep_valid(lambda row, entry: entry.state == source_state(table.paths[row]))
                if earlier is not None:
                    _take_over(part, earlier, reusable)
                waiting = [row for row in range(len(table)) if row not in part.done]
                _share(torchrun, cache_file, key, waiting)
                if waiting:
                    _decode(part, table, preprocessing, waiting, num_workers, torchrun)
                    torchrun.barrier()
                    part.take_from_ranks(torchrun.count)
            except KeyboardInterrupt:
                done = f"{len(part.done)} of {counted(len(table), 'X-ray')} done"
                what = done if torchrun.count == 1 else "what the ranks have done is kept"
                say(f"{what}; the same command resumes there")
                raise
            if all(entry.reason is not None for entry in part.done.values()):
                part.discard()
                raise UserError(
                    f"{table.paths[0]}: {part.done[0].reason}; nor could any other of the {len(table)} X-rays be read: "
                    f"check dataset_folder and path_pattern{file_hint(table.paths[0])}"
                )
            part.finish(_describe(part.done, preprocessing))


def need_no_help(cache_file: Path, torchrun: TorchrunProcesses) -> None:
    """Let the other ranks know that nothing is to be decoded."""
    _share(torchrun, cache_file, "", [])


def help_to_build(
    table: LabelTable,
    cache_file: Path,
    preprocessing: Preprocessing,
    torchrun: TorchrunProcesses,
    num_workers: int | None = None,
) -> None:
    """Decode this rank's share of the X-rays that rank 0 finds missing; of what is there it says that itself.

    Args:
        table: the images, the same as on rank 0.
        cache_file: the `.npy` that rank 0 writes.
        preprocessing: what becomes of each image.
        torchrun: all ranks, this one not being rank 0.
        num_workers: see `build_cache`.

    Raises:
        UserError: no room on the disk, or the folder is not rank 0's.
    """
    key, waiting = _share(torchrun, cache_file, "", [])
    if not waiting:
        return
    shape = (len(table), *preprocessing.image_shape)
    with clear_end_when_full(cache_file.parent):
        rows = CacheRows(cache_file, shape, key, torchrun.rank)
        with contextlib.closing(rows):
            _decode(rows, table, preprocessing, waiting, num_workers, torchrun)
            rows.sync()
    torchrun.barrier()


def _share(torchrun: TorchrunProcesses, cache_file: Path, key: str, waiting: list[int]) -> tuple[str, list[int]]:
    """Rank 0's key and the rows that wait, on every rank: machines may have the X-rays in other folders."""
    key, waiting = torchrun.share(f"rows of {cache_file.name}", (key, waiting))
    return key, waiting


def tidy_up(cache_file: Path) -> None:
    """Delete what a kill at the very end of a build left beside a finished cache, unless another process is at it."""
    if has_journal(cache_file):
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


def _decode(
    part: CachePart | CacheRows,
    table: LabelTable,
    preprocessing: Preprocessing,
    waiting: list[int],
    num_workers: int | None,
    torchrun: TorchrunProcesses,
) -> None:
    """Write this rank's share of the rows that wait: every so many-th one, so that all shares take as long."""
    waiting = waiting[torchrun.rank :: torchrun.count]
    if num_workers is None:
        num_workers = max(1, available_cores() // num_local_processes())
    what = "caching X-rays" if torchrun.count == 1 else f"caching X-rays, a share of 1/{torchrun.count}"
    make_row = functools.partial(_make_row, table.uids, table.paths, preprocessing)
    for row, made in track(map_guarded(make_row, waiting, num_workers), what, len(waiting)):
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
