"""The index of an image cache: what became of each X-ray, and of which state of which file its row was made."""

import hashlib
import importlib.metadata
import math
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from catheters.config.settings import MEANT_BEFORE
from catheters.data.decoding.dicom import depth_of_colours
from catheters.data.decoding.polarity import POLARITY_CHECK
from catheters.errors import UserError, is_of_path, listed
from catheters.io.files import UnreadableFileError, read_json, read_utf8, write_text

FORMAT_VERSION = 2
"""Goes up when most sources would give other pixels, or the index looks different. `pixels_may_be_older` and
`older_colours` tell of the few whose pixels have changed since."""
DECODERS = ("simplejpeg", "pillow", "opencv-python-headless", "pydicom", "python-gdcm")
"""Packages whose version may change the pixels of a new cache; what an old one holds stays valid."""
POLARITY = "polarity check"
"""Where its version stands among the decoders'."""
MAX_GREY_OF_OLDER_COLOURS = 128
"""What version 0.2.0 made of colours of 15 bits at most: 32767 / 65535 of 255."""
MADE_BY = "first_stage"
"""Where the index of a cache of maps, see `catheters.data.input_maps`, tells what they were made of."""
ABSENT = (-1, -1)
"""State of a source file that is not there."""


class CacheError(UserError):
    """A cache that is missing or does not match its sources, the label table or the settings.

    Attributes:
        found: what is wrong, without the advice that the message ends with.
    """

    def __init__(self, found: str, other_advice: str | None = None) -> None:
        """Say what is wrong and what to do.

        Args:
            found: what is wrong.
            other_advice: what else may be done than to bring the cache up to date.
        """
        either = "" if other_advice is None else f"{other_advice}, or "
        super().__init__(f"{found}; {either}run preproc_npy.py with the same settings")
        self.found = found


@dataclass(frozen=True, kw_only=True, slots=True)
class CacheRow:
    """What became of one X-ray.

    Attributes:
        uid: the image's name.
        file: its path, as the table gives it.
        size: the file's size in bytes; -1: it was not there.
        mtime_ns: its time of change, in nanoseconds.
        crc32: checksum of its content.
        reason: why it could not be read; its row is black, and what follows has no meaning.
        digest: SHA-256 of its pixels in the cache, in hexadecimal.
        grey_sum: sum of these pixels.
        grey_square_sum: sum of their squares.
        full_shape: (H, W) of the image in the file, in pixels.
        box: (top, left, bottom, right) of the part that was kept, in pixels of the image.
        notes: its quality flags, kind -> text.
    """

    uid: str
    file: str
    size: int
    mtime_ns: int
    crc32: int = 0
    reason: str | None = None
    digest: str = ""
    grey_sum: int = 0
    grey_square_sum: int = 0
    full_shape: tuple[int, int] = (0, 0)
    box: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    notes: dict[str, str]

    @property
    def state(self) -> tuple[int, int]:
        """Size and time of change of the file."""
        return self.size, self.mtime_ns


@dataclass(frozen=True, kw_only=True)
class CacheIndex:
    """A cache's description.

    Attributes:
        format_version: see `FORMAT_VERSION`.
        shape: (N, H, W) of the `.npy`.
        preprocessing: the settings that decided the pixels, by name.
        decoders: package -> version.
        mean: of the grey values of all readable images, in 0..1.
        std: their standard deviation, in 0..1.
        rows: (N,) in the order of the `.npy`.
    """

    format_version: int
    shape: tuple[int, int, int]
    preprocessing: dict[str, Any]
    decoders: dict[str, str]
    mean: float
    std: float
    rows: list[CacheRow]


_index_adapter = TypeAdapter(CacheIndex)


def index_file(cache_file: Path) -> Path:
    """The index beside a cache's `.npy`."""
    return cache_file.with_suffix(".json")


def decoder_versions() -> dict[str, str]:
    """The versions of the packages that decode, and of the polarity check."""
    return {**{package: importlib.metadata.version(package) for package in DECODERS}, POLARITY: POLARITY_CHECK}


def source_state(path: Path) -> tuple[int, int]:
    """Size in bytes and time of change in nanoseconds; `ABSENT` where there is no such file.

    Raises:
        OSError: the machine cannot tell.
    """
    try:
        stat = path.stat()
    except OSError as error:
        if not is_of_path(error):
            raise
        return ABSENT
    return stat.st_size, stat.st_mtime_ns


def pixels_may_be_older(index: CacheIndex) -> str | None:
    """Why pixels of the cache may be others now whatever their sources are; None: they are not.

    A polarity check decides on pixels where inverted images are turned round. Where they are left out, all that were
    kept have the pixels that they would have now.
    """
    check = index.decoders.get(POLARITY)
    if index.preprocessing.get("inverted") != "invert" or check == POLARITY_CHECK:
        return None
    return (
        f"was made with inverted='invert' by an earlier polarity check ({check or 'version 0.2.0'}; now "
        f"{POLARITY_CHECK}), so other images may have been turned round"
    )


def older_colours(index: CacheIndex, row: CacheRow, source: Path) -> int | None:
    """The bits of a DICOM file's colours that version 0.2.0 took for 16 bits; None: the row's pixels are those of now.

    The index does not tell what kind of file a row was made of, so the source is opened where the row is dark enough
    for such colours, `MAX_GREY_OF_OLDER_COLOURS` at most. A source that is gone counts as unchanged.

    Args:
        index: of the cache.
        row: one of its rows.
        source: the file that the row was made of.
    """
    is_of_0_2_0 = POLARITY not in index.decoders
    # No value above m means that the sum of squares is no more than m times the sum.
    may_be_dark = row.reason is None and row.grey_square_sum <= MAX_GREY_OF_OLDER_COLOURS * row.grey_sum
    if not (is_of_0_2_0 and may_be_dark):
        return None
    bits = depth_of_colours(source)
    return None if bits in (8, 16) else bits


def grey_statistics(rows: Iterable[CacheRow], pixels_per_image: int) -> tuple[float, float]:
    """Mean and standard deviation of the grey values of the readable rows, in 0..1; NaN where there is none."""
    readable = [row for row in rows if row.reason is None]
    count = len(readable) * pixels_per_image
    if not count:
        return math.nan, math.nan
    total = sum(row.grey_sum for row in readable)
    # Whole numbers until the end: nothing is lost, however many pixels there are.
    variance = (count * sum(row.grey_square_sum for row in readable) - total**2) / count**2
    return total / count / 255, math.sqrt(variance) / 255


def write_index(cache_file: Path, index: CacheIndex) -> None:
    """Write the index, whole or not at all; from then on the cache is one."""
    content = _index_adapter.dump_json(index).decode()
    write_text(index_file(cache_file), f'{{"fingerprint":"{_hash(content)}",\n"content":{content}}}\n')


def read_index(cache_file: Path) -> CacheIndex:
    """Read a cache's index.

    Raises:
        CacheError: there is none, it is damaged or of another version.
    """
    file = index_file(cache_file)
    if cache_file.is_file() and not file.is_file():
        raise CacheError(f"{cache_file}: has no index, {file.name}; it is being made, or its making was interrupted")
    if not cache_file.is_file():
        others = sorted(path.name for path in cache_file.parent.glob("*.npy") if _may_hold_images(path))
        have = f" ({cache_file.parent} holds {listed(others)}: set image_size or cache_name)" if others else ""
        raise CacheError(f"{cache_file}: no such image cache{have}")
    try:
        text = read_utf8(file)
    except UnreadableFileError as error:
        raise CacheError(str(error)) from None
    # The first line holds the fingerprint of the second: what is hashed is what was written, to the letter.
    head, _, rest = text.partition(",\n")
    content = rest.removeprefix('"content":').removesuffix("}\n")
    if not head.startswith('{"fingerprint":"'):
        is_earlier = '"format_version": 1' in text
        raise CacheError(f"{file}: {'made by an earlier version' if is_earlier else 'damaged'}")
    if head != f'{{"fingerprint":"{_hash(content)}"':
        raise CacheError(f"{file}: changed by hand or damaged")
    try:
        index = _index_adapter.validate_json(content)
    except ValidationError:
        raise CacheError(f"{file}: made by another version") from None
    if index.format_version != FORMAT_VERSION:
        raise CacheError(f"{file}: format {index.format_version}, this version reads {FORMAT_VERSION}")
    return replace(index, preprocessing={**MEANT_BEFORE, **index.preprocessing})


def _may_hold_images(cache_file: Path) -> bool:
    """Whether there is an index beside a `.npy`, and not one of a first stage's maps."""
    try:
        content = read_json(index_file(cache_file))["content"]
        return MADE_BY not in content["preprocessing"]
    except UnreadableFileError:
        return False
    except (KeyError, TypeError):
        return True  # of another version


def _hash(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()
