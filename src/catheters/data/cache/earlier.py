"""A finished cache whose rows may be taken over when it is rebuilt."""

import hashlib
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from catheters.data.cache.index import (
    ABSENT,
    POLARITY,
    CacheError,
    CacheIndex,
    CacheRow,
    decoder_versions,
    older_colours,
    read_index,
    source_state,
)
from catheters.data.decoding.image import UnreadableImage
from catheters.data.decoding.radiograph import read_file
from catheters.data.preprocessing import Preprocessing
from catheters.data.tables.label_table import LabelTable
from catheters.errors import UserError
from catheters.io.files import UnreadableFileError, printable
from catheters.io.npy_files import open_npy
from catheters.runtime.console import say, warn
from catheters.runtime.host import available_cores
from catheters.runtime.progress import track

Pixels = npt.NDArray[np.uint8]


class EarlierCache:
    """A finished cache whose rows may be taken over."""

    def __init__(self, index: CacheIndex, images: Pixels) -> None:
        self.index = index
        self._images = images
        self._row_of_uid = {entry.uid: row for row, entry in enumerate(index.rows) if entry.reason is None}

    def entry(self, uid: str) -> CacheRow | None:
        """What its index says of an image, if it could be read."""
        row = self._row_of_uid.get(uid)
        return None if row is None else self.index.rows[row]

    def is_intact(self) -> bool:
        """Whether all pixels are those that the index says."""
        return all(
            hashlib.sha256(self.pixels(entry.uid)).hexdigest() == entry.digest
            for entry in self.index.rows
            if entry.reason is None
        )

    def pixels(self, uid: str) -> bytes:
        """An image's H x W pixels."""
        pixels: Pixels = self._images[self._row_of_uid[uid]]
        return pixels.tobytes()


def find_earlier_cache(cache_file: Path, table: LabelTable, preprocessing: Preprocessing) -> EarlierCache | None:
    """The cache that stands there, if the same X-ray would become the same row again.

    Raises:
        UserError: it took hours, and has not one image in common with this table.
    """
    try:
        index = read_index(cache_file)
    except CacheError:
        return None
    if {row.uid for row in index.rows}.isdisjoint(table.uids.tolist()):
        raise UserError(
            f"{cache_file}: is the cache of another data set, with images such as {index.rows[0].uid}; set another "
            "cache_name, or delete it"
        )
    made_with = {**index.preprocessing, **index.decoders}
    wanted = {**preprocessing.describe(), **decoder_versions()}
    if preprocessing.inverted == "keep":  # where the check decides on notes alone, and not on pixels
        del wanted[POLARITY]
    changed = [
        f"{name} was {made_with.get(name)}, is {value}"
        for name, value in wanted.items()
        if made_with.get(name) != value
    ]
    if changed:
        _refuse_to_lose(cache_file, index, table)
        say(f"nothing is taken over from the earlier cache: {'; '.join(changed)}")
        return None
    try:
        images: Pixels = open_npy(cache_file)
    except UnreadableFileError as error:
        warn(f"{error}; nothing is taken over from it")
        return None
    return EarlierCache(index, images) if images.shape == index.shape and images.dtype == np.uint8 else None


def _refuse_to_lose(cache_file: Path, index: CacheIndex, table: LabelTable) -> None:
    """Raise a UserError where the cache is the last that is left of some X-rays."""
    cached = {row.uid for row in index.rows if row.reason is None}
    lost = [
        uid
        for uid, path in zip(table.uids.tolist(), table.paths, strict=True)
        if uid in cached and source_state(path) == ABSENT
    ]
    if lost:
        raise UserError(
            f"{cache_file}: {len(lost)} of its X-rays are gone, {lost[0]} for one, and could not be rebuilt; set "
            "another cache_name, or delete it"
        )


def reusable_rows(earlier: EarlierCache, table: LabelTable) -> dict[int, CacheRow]:
    """Row of the table -> its entry, for the X-rays whose pixels the earlier cache holds."""
    reusable: dict[int, CacheRow] = {}
    touched: dict[int, CacheRow] = {}
    for row, (uid, path) in enumerate(zip(table.uids.tolist(), table.paths, strict=True)):
        entry = earlier.entry(uid)
        if entry is None or older_colours(earlier.index, entry, path) is not None:
            continue
        state = source_state(path)
        name = printable(path)
        if state == ABSENT or (state == entry.state and name == entry.file):  # what is gone is kept
            reusable[row] = replace(entry, file=name)
        elif state[0] == entry.size:
            touched[row] = replace(entry, file=name, mtime_ns=state[1])
    with ThreadPoolExecutor(available_cores()) as pool:
        checksums = pool.map(lambda row: _checksum(table.paths[row]), touched)
        for (row, entry), checksum in track(
            zip(touched.items(), checksums, strict=True), "comparing files that were touched", len(touched)
        ):
            if checksum == entry.crc32:
                reusable[row] = entry
    return reusable


def _checksum(path: Path) -> int | None:
    try:
        return zlib.crc32(read_file(path))
    except UnreadableImage:
        return None
