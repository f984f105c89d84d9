"""The image cache: every X-ray decoded and resized once, in one `.npy` that anyone can open.

`<name>_<size>.npy` is uint8 (N, H, W), rows in the order of the label table. Beside it `<name>_<size>.json`, the index:
the rows' uids, the source files with size and time of change, how they were decoded and resized, which could not be
read and why, mean and standard deviation of the grey values, and a fingerprint of all that. The index is written last,
so a cache without one is not a cache.
"""

import hashlib
import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from catheters.data.radiograph import RESIZE_RULE, UnreadableImage, one_opencv_thread, read_radiograph, resize
from catheters.data.table import LabelTable
from catheters.errors import UserError, one_line
from catheters.files import write_text
from catheters.host import available_cores
from catheters.progress import track

FORMAT_VERSION = 1
"""Goes up when the same sources would give other pixels."""

ABSENT = (-1, -1)
"""State of a source file that is not there."""


class CacheError(UserError):
    """A cache that is missing or does not match its sources, the label table or the settings.

    Attributes:
        found: what is wrong, without the advice that the message ends with.
    """

    def __init__(self, found: str) -> None:
        super().__init__(f"{found}; run preproc_npy.py with the same settings")
        self.found = found


@dataclass(frozen=True, kw_only=True)
class ImageCache:
    """An open cache.

    Attributes:
        images: (N, H, W) uint8, mapped from disk.
        failed: uid -> why that X-ray could not be read; its row is black.
        mean: mean of the grey values of all readable images, in 0..1.
        std: their standard deviation, in 0..1.
        pixels_hash: hash of all pixels, which a cache made anew of the same X-rays has too.
    """

    images: npt.NDArray[np.uint8]
    failed: dict[str, str]
    mean: float
    std: float
    pixels_hash: str


@dataclass(frozen=True, kw_only=True)
class _Row:
    """What became of one X-ray."""

    size: int
    mtime_ns: int
    digest: bytes = b""
    source_shape: tuple[int, int] | None = None
    reason: str | None = None


def index_file(cache_file: Path) -> Path:
    """The index beside a cache's `.npy`."""
    return cache_file.with_suffix(".json")


def build_cache(table: LabelTable, cache_file: Path, image_size: int) -> dict[str, str]:
    """Decode and resize every X-ray of the table into `cache_file`, at constant memory.

    Args:
        table: the images.
        cache_file: the `.npy` to write.
        image_size: height and width, in pixels.

    Returns:
        uid -> reason, for the X-rays that could not be read.

    Raises:
        UserError: no room on the disk, another data set's cache stands there, or not one X-ray could be read.
    """
    cache_file.parent.mkdir(parents=True, exist_ok=True)
    _check_same_data_set(cache_file, table)
    shape = (len(table), image_size, image_size)
    part_file = cache_file.with_suffix(".npy.part")
    part_file.unlink(missing_ok=True)  # of a build that was killed
    _check_free_space(cache_file.parent, int(np.prod(shape, dtype=np.int64)))
    index_file(cache_file).unlink(missing_ok=True)
    try:
        rows, grey_counts = _write_rows(table, part_file, shape)
    except BaseException:
        part_file.unlink(missing_ok=True)
        raise
    failed = {str(uid): row.reason for uid, row in zip(table.uids, rows, strict=True) if row.reason is not None}
    if len(failed) == len(table):
        part_file.unlink()
        raise UserError(
            f"{table.paths[0]}: {rows[0].reason}; nor could any other of the {len(table)} X-rays be read: "
            "check dataset_folder and path_pattern"
        )
    index = _describe(table, rows, failed, grey_counts, shape)
    part_file.replace(cache_file)
    write_text(index_file(cache_file), json.dumps(index))
    return failed


def open_cache(cache_file: Path, table: LabelTable) -> ImageCache:
    """Open a cache and make sure that it is what its index says, made of this table's X-rays as they are now.

    X-rays that are gone are no error: a cache may travel without them.

    Args:
        cache_file: the `.npy`.
        table: the images that it has to hold, in this order.

    Raises:
        CacheError: says what does not match, and to run preproc_npy.py.
    """
    index = _read_index(cache_file)
    try:
        images = np.load(cache_file, mmap_mode="r")
    except (OSError, ValueError) as error:
        raise CacheError(f"{cache_file}: damaged ({one_line(error)})") from None
    if list(images.shape) != index["shape"]:
        raise CacheError(f"{cache_file}: holds {images.shape}, its index says {tuple(index['shape'])}")
    cache = ImageCache(
        images=images,
        failed=index["failed"],
        mean=index["mean"],
        std=index["std"],
        pixels_hash=index["pixels_hash"],
    )
    _check_rows(cache_file, index, table)
    _check_sources(cache_file, index, table)
    return cache


def _write_rows(
    table: LabelTable, part_file: Path, shape: tuple[int, int, int]
) -> tuple[list[_Row], npt.NDArray[np.int64]]:
    """Write the `.npy`; returns what became of each row, and how often each of the 256 grey values occurs."""
    rows = []
    grey_counts = np.zeros(256, dtype=np.int64)
    with part_file.open("wb") as file, one_opencv_thread(), ThreadPoolExecutor(available_cores()) as pool:
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        file.flush()
        start = file.tell()
        row_bytes = shape[1] * shape[2]
        file.truncate(start + len(table) * row_bytes)

        def write_row(row: int) -> tuple[_Row, npt.NDArray[np.int64]]:
            path = table.paths[row]
            # Taken before the pixels: a source that changes meanwhile must not look unchanged later.
            size, mtime_ns = _source_state(path)
            try:
                image = read_radiograph(path)
            except UnreadableImage as error:
                return _Row(size=size, mtime_ns=mtime_ns, reason=str(error)), np.zeros(256, dtype=np.int64)
            pixels = resize(image, shape[1])
            # Positioned writes from all threads: neither the pictures nor the file's pages pile up in memory.
            content = pixels.tobytes()
            _write_at(file.fileno(), content, start + row * row_bytes)
            height, width = image.shape
            written = _Row(
                size=size,
                mtime_ns=mtime_ns,
                digest=hashlib.sha256(content).digest(),
                source_shape=(height, width),
            )
            return written, np.bincount(pixels.reshape(-1), minlength=256)

        try:
            for written, counts in track(pool.map(write_row, range(len(table))), "caching X-rays", total=len(table)):
                rows.append(written)
                grey_counts += counts
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
        os.fsync(file.fileno())
    return rows, grey_counts


def _write_at(file_descriptor: int, content: bytes, offset: int) -> None:
    """Write all of `content`, which one call need not do when the disk runs full."""
    written = 0
    while written < len(content):
        written += os.pwrite(file_descriptor, content[written:], offset + written)


def _describe(
    table: LabelTable,
    rows: list[_Row],
    failed: dict[str, str],
    grey_counts: npt.NDArray[np.int64],
    shape: tuple[int, int, int],
) -> dict[str, Any]:
    """The index's content."""
    grey = np.arange(256) / 255
    mean = float(np.average(grey, weights=grey_counts))
    std = float(np.sqrt(np.average((grey - mean) ** 2, weights=grey_counts)))
    content = {
        "format_version": FORMAT_VERSION,
        "shape": list(shape),
        "decoding": "grey, 8 bit, EXIF rotation applied",
        "resize": f"{RESIZE_RULE}; area averaging when shrinking, bilinear when enlarging",
        "mean": mean,
        "std": std,
        "pixels_hash": hashlib.sha256(b"".join(row.digest for row in rows)).hexdigest(),
        "failed": failed,
        "uids": table.uids.tolist(),
        "files": [str(path.absolute()) for path in table.paths],
        "sizes": [row.size for row in rows],
        "mtimes_ns": [row.mtime_ns for row in rows],
        "source_shapes": [row.source_shape for row in rows],
    }
    return {"fingerprint": _hash(content), **content}


def _hash(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _read_index(cache_file: Path) -> dict[str, Any]:
    index = index_file(cache_file)
    if not cache_file.is_file() or not index.is_file():
        others = sorted(path.name for path in cache_file.parent.glob("*.npy") if index_file(path).is_file())
        have = f" ({cache_file.parent} holds {', '.join(others)}: set image_size or cache_name)" if others else ""
        raise CacheError(f"{cache_file}: no such image cache{have}")
    try:
        content: dict[str, Any] = json.loads(index.read_text(encoding="utf-8"))
        fingerprint = content.pop("fingerprint")
    except (ValueError, KeyError, AttributeError):
        raise CacheError(f"{index}: damaged") from None
    if content.get("format_version") != FORMAT_VERSION:
        raise CacheError(f"{index}: format {content.get('format_version')}, this version reads {FORMAT_VERSION}")
    if _hash(content) != fingerprint:
        raise CacheError(f"{index}: changed by hand or damaged")
    return content


def _check_same_data_set(cache_file: Path, table: LabelTable) -> None:
    """Refuse to overwrite what took hours and has not one image in common with this table."""
    try:
        cached = _read_index(cache_file)["uids"]
    except CacheError:
        return
    if set(cached).isdisjoint(table.uids.tolist()):
        raise UserError(
            f"{cache_file}: is the cache of another data set, with images such as {cached[0]}; set another cache_name, "
            "or delete it"
        )


def _check_rows(cache_file: Path, index: dict[str, Any], table: LabelTable) -> None:
    cached = index["uids"]
    if cached == table.uids.tolist():
        return
    missing = sorted(set(table.uids.tolist()) - set(cached))
    if missing:
        found = f"{len(missing)} images of the label table are not in it, {missing[0]} for one"
    else:
        found = "the label table has fewer rows, or another order"
    raise CacheError(f"{cache_file}: {found}")


def _check_sources(cache_file: Path, index: dict[str, Any], table: LabelTable) -> None:
    for path, size, mtime_ns in zip(table.paths, index["sizes"], index["mtimes_ns"], strict=True):
        state = _source_state(path)
        if state not in (ABSENT, (size, mtime_ns)):
            what = "was missing when the cache was made" if size < 0 else "is not the file that it was made of"
            raise CacheError(f"{cache_file}: {path} {what}")


def _source_state(path: Path) -> tuple[int, int]:
    """Size in bytes and time of change in nanoseconds."""
    try:
        stat = path.stat()
    except OSError:
        return ABSENT
    return stat.st_size, stat.st_mtime_ns


def _check_free_space(folder: Path, num_bytes: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < num_bytes:
        raise UserError(
            f"{folder}: the cache needs {num_bytes / 1e9:.1f} GB, {free / 1e9:.1f} GB are free; "
            "set cache_folder to another disk or a smaller image_size"
        )
