"""The image cache: every X-ray decoded and resized once, in one `.npy` that anyone can open.

`<name>_<size>.npy` is uint8 (N, H, W). Beside it `<name>_<size>.json`, the index: for each row the image's uid, its
file with size and time of change, what was kept of it, why it could not be read; and the settings that decided the
pixels. The index is written last, so a cache without one is not a cache.
"""

import hashlib
import os
import weakref
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from catheters.data.cache.index import (
    ABSENT,
    CacheError,
    CacheIndex,
    CacheRow,
    grey_statistics,
    index_file,
    older_colours,
    pixels_may_be_older,
    read_index,
    source_state,
)
from catheters.data.preprocessing import Preprocessing
from catheters.data.tables.label_table import LabelTable
from catheters.errors import one_line
from catheters.io.files import UnreadableFileError, printable
from catheters.io.npy_files import open_npy

IMAGES_CHECKED = 32
"""Images whose checksums are compared whenever a cache is opened; training compares each at its first read, and
preproc_npy.py all."""


@dataclass(frozen=True)
class CacheFile:
    """The `.npy` that was checked, to be opened again by other processes.

    Attributes:
        path: its name.
        identity: device, inode, size and time of change of the file that had this name.
    """

    path: Path
    identity: tuple[int, int, int, int]

    @classmethod
    def of(cls, path: Path) -> "CacheFile":
        """The file that has this name now."""
        return cls(path, _identity(path.stat()))

    def load(self) -> npt.NDArray[np.uint8]:
        """(N, H, W) uint8, mapped from disk.

        Raises:
            CacheError: another file has this name now, whose rows may be others.
        """
        try:
            images: npt.NDArray[np.uint8] = open_npy(self.path)
            is_same = _identity(self.path.stat()) == self.identity
        except (UnreadableFileError, OSError) as error:
            raise CacheError(f"{one_line(error)}") from None
        if not is_same:
            raise CacheError(f"{self.path}: was rebuilt meanwhile, and its rows may be others")
        return images

    def open_rows(self) -> "CacheRows":
        """To read single images.

        Raises:
            CacheError: as `load`.
        """
        return CacheRows(self)


class CacheRows:
    """Images read from the file one by one.

    Not mapped: the pages of a mapped file that were read stay with the process, whose memory then seems to grow by the
    whole cache, and a disk that fails kills it without a word.
    """

    def __init__(self, file: CacheFile) -> None:
        """Open the file that was checked, and no other.

        Raises:
            CacheError: it is not there, not readable or not the same any more.
        """
        self._path = file.path
        try:
            self._descriptor = os.open(file.path, os.O_RDONLY)
        except OSError as error:
            raise CacheError(f"{file.path}: {one_line(error)}") from None
        weakref.finalize(self, os.close, self._descriptor)
        if _identity(os.fstat(self._descriptor)) != file.identity:
            raise CacheError(f"{file.path}: was rebuilt meanwhile, and its rows may be others")
        with os.fdopen(os.dup(self._descriptor), "rb") as stream:
            version = np.lib.format.read_magic(stream)
            assert version == (1, 0), "open_cache has read it, and build_cache writes no other"
            shape, _, _ = np.lib.format.read_array_header_1_0(stream)
            self._offset = stream.tell()
        self._shape = (shape[1], shape[2])

    def read(self, row: int) -> npt.NDArray[np.uint8]:
        """(H, W) uint8, the process's own.

        Raises:
            CacheError: the disk cannot read it, or the file has become shorter.
        """
        image = np.empty(self._shape, dtype=np.uint8)
        pixels = image.data.cast("B")
        start = self._offset + row * image.nbytes
        num_done = 0
        while num_done < image.nbytes:  # a network's disk may give less at once than was asked for
            try:
                # At a place of its own for each read: forked processes share the file's position.
                num_read = os.preadv(self._descriptor, [pixels[num_done:]], start + num_done)
            except OSError as error:
                raise CacheError(f"{self._path}: row {row} cannot be read ({one_line(error)})") from None
            if num_read == 0:
                raise CacheError(f"{self._path}: damaged: ends within row {row}")
            num_done += num_read
        return image


def _identity(stat: os.stat_result) -> tuple[int, int, int, int]:
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns


@dataclass(frozen=True, kw_only=True)
class ImageCache:
    """An open cache, seen through a label table of n images.

    Attributes:
        file: the `.npy`.
        images: (N, H, W) uint8, mapped from disk; N may be larger than n.
        rows: (n,) the row of each of the table's images.
        entries: (n,) what the index says of them.
        mean: mean of the grey values of the table's readable images, in 0..1.
        std: their standard deviation, in 0..1.
        num_absent: images whose X-ray is gone, so that it cannot be compared.
    """

    file: CacheFile
    images: npt.NDArray[np.uint8]
    rows: npt.NDArray[np.intp]
    entries: list[CacheRow]
    mean: float
    std: float
    num_absent: int

    @property
    def failed(self) -> dict[str, str]:
        """Uid -> why that X-ray could not be read; its row is black."""
        return {entry.uid: entry.reason for entry in self.entries if entry.reason is not None}

    def check_pixels(self, positions: Iterable[int]) -> None:
        """Compare images with the checksums of the index.

        Args:
            positions: of the table's images.

        Raises:
            CacheError: one is not what the index says.
        """
        for position in positions:
            entry = self.entries[position]
            pixels = np.ascontiguousarray(self.images[self.rows[position]])
            if entry.reason is None and hashlib.sha256(pixels.tobytes()).hexdigest() != entry.digest:
                raise CacheError(
                    f"{self.file.path}: damaged: the pixels of {entry.uid} are not those that were written"
                )

    @property
    def quality_flags(self) -> dict[str, dict[str, str]]:
        """Uid -> notes on that X-ray, kind -> text, for those that have any."""
        return {entry.uid: entry.notes for entry in self.entries if entry.notes}

    @property
    def pixel_ids(self) -> npt.NDArray[np.str_]:
        """(n,) equal for images with equal pixels; those of one grey, in which nothing is to be seen, all differ."""
        num_pixels = self.images[0].size
        is_blank = [entry.grey_square_sum * num_pixels == entry.grey_sum**2 for entry in self.entries]
        return np.array(
            [entry.uid if blank else entry.digest for entry, blank in zip(self.entries, is_blank, strict=True)]
        )

    @property
    def pixels_hash(self) -> str:
        """Hash of the table's images, which a cache rebuilt from the same X-rays has too."""
        return hashlib.sha256("\n".join(entry.digest for entry in self.entries).encode()).hexdigest()


def open_cache(cache_file: Path, table: LabelTable, preprocessing: Preprocessing) -> ImageCache:
    """Open a cache and make sure that it is what its index says, made of this table's X-rays as they are now.

    The checksums of some images are compared. X-rays that are gone are no error: a cache may travel without them. Nor
    are images that the table does not have.

    Args:
        cache_file: the `.npy`.
        table: the images that it has to hold.
        preprocessing: how they have to be made.

    Raises:
        CacheError: says what does not match, and to run preproc_npy.py.
    """
    index = read_index(cache_file)
    file = CacheFile.of(cache_file)
    images = file.load()
    if read_index(cache_file) != index:
        raise CacheError(f"{cache_file}: is being rebuilt by another process")
    if images.shape != index.shape or images.dtype != np.uint8:
        raise CacheError(f"{cache_file}: holds {images.dtype} {images.shape}, its index says uint8 {index.shape}")
    _check_preprocessing(cache_file, index, preprocessing)
    rows = _find_rows(cache_file, index, table)
    entries = [index.rows[row] for row in rows]
    num_absent = _check_sources(cache_file, index, entries, table)
    mean, std = grey_statistics(entries, index.shape[1] * index.shape[2])
    cache = ImageCache(file=file, images=images, rows=rows, entries=entries, mean=mean, std=std, num_absent=num_absent)
    cache.check_pixels(range(0, len(entries), max(1, len(entries) // IMAGES_CHECKED)))
    return cache


def _check_preprocessing(cache_file: Path, index: CacheIndex, preprocessing: Preprocessing) -> None:
    for name, value in preprocessing.describe().items():
        made_with = index.preprocessing.get(name)
        if made_with != value:
            raise CacheError(
                f"{cache_file}: was made with {name}={made_with!r}, the settings say {value!r}",
                f"set {name}={made_with!r} to use it as it is",
            )
    why = pixels_may_be_older(index)
    if why is not None:
        raise CacheError(f"{cache_file}: {why}")


def _find_rows(cache_file: Path, index: CacheIndex, table: LabelTable) -> npt.NDArray[np.intp]:
    row_of_uid = {entry.uid: row for row, entry in enumerate(index.rows)}
    missing = sorted(set(table.uids.tolist()) - row_of_uid.keys())
    if missing:
        raise CacheError(f"{cache_file}: {len(missing)} images of the label table are not in it, {missing[0]} for one")
    return np.array([row_of_uid[uid] for uid in table.uids.tolist()], dtype=np.intp)


def _check_sources(cache_file: Path, index: CacheIndex, entries: list[CacheRow], table: LabelTable) -> int:
    """Returns how many X-rays are gone."""
    num_absent = 0
    for path, entry in zip(table.paths, entries, strict=True):
        state = source_state(path)
        if state == ABSENT:
            num_absent += entry.state != ABSENT
        elif state != entry.state or printable(path) != entry.file:
            if entry.size < 0:
                what = "was missing when the cache was made"
            elif state[0] != entry.size:
                what = f"is not the file that it was made of: {state[0]} bytes, not {entry.size}"
            elif state != entry.state:
                what = "has another time of change than the file that it was made of, so it may have changed"
            else:
                what = f"is another file than {entry.file}, which it was made of"
            raise CacheError(f"{cache_file}: {printable(path)} {what}")
        elif (bits := older_colours(index, entry, path)) is not None:
            raise CacheError(
                f"{cache_file}: {printable(path)} holds colours of {bits} bits, which version 0.2.0 made too dark"
            )
    return num_absent


__all__ = ["CacheError", "CacheFile", "CacheRow", "CacheRows", "ImageCache", "index_file", "open_cache"]
