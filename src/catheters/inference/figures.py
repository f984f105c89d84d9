"""Figures of many X-rays: each is read again, drawn over, and written into a folder, with a contact sheet of some."""

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from catheters.data.decoding.image import UnreadableImage
from catheters.data.decoding.radiograph import decode_radiograph, read_file
from catheters.data.preprocessing import Preprocessed, Preprocessing
from catheters.inference.inputs import Images
from catheters.inference.reading import make_images
from catheters.io.files import write_whole
from catheters.runtime.opencv_threads import end_opencv_threads
from catheters.runtime.progress import track
from catheters.runtime.shortage import DeviceError
from catheters.runtime.workers import Failure, map_guarded
from catheters.viz.layout import Cell, Heading, make_sheet

Pixels = npt.NDArray[np.uint8]
Xray = tuple[Pixels, list[Preprocessed]]
"""(H, W) uint8 as a viewer would show it, every pixel; and as each way of preprocessing makes it."""

JPEG_QUALITY = 90
SHEET_NAME = "contact_sheet.jpg"
MAX_SHEET_IMAGES = 20


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What is drawn of one image.

    Attributes:
        files: path in the folder, without its suffix -> the figure.
        cell: the image on the contact sheet.
    """

    files: Mapping[str, Image.Image]
    cell: Cell


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """What `draw_images` has drawn.

    Attributes:
        num_figures: files, besides the sheet.
        sheet: the contact sheet; None where nothing was drawn.
        missing: id -> why an image has no figures.
    """

    num_figures: int
    sheet: Path | None
    missing: dict[str, str]


def draw_images(
    folder: Path,
    images: Images,
    rows: Sequence[int],
    preprocessings: tuple[Preprocessing, ...],
    draw: Callable[[int, str, Xray], Figures],
    describe: Callable[[int], Heading],
    *,
    doing: str,
    num_workers: int,
) -> Drawn:
    """Read some images, draw them and write the figures as JPEGs, and a contact sheet of the first of them.

    An image that cannot be read any more, of which a model makes no numbers, or for which the device has no room, is
    passed over and named.

    Args:
        folder: for the figures; made where it is not there.
        images: n of them.
        rows: of those that are drawn.
        preprocessings: how the models want them.
        draw: from the row, a name that is one part of a path and no other image's, and the X-ray, to its figures.
        describe: from the number of images on the sheet to its heading.
        doing: what stands before the progress bar.
        num_workers: processes that read.
    """
    folder.mkdir(exist_ok=True)
    read = functools.partial(_read_row, images.paths, preprocessings)
    cells: dict[int, Cell] = {}
    missing: dict[str, str] = {}
    num_figures = 0
    names = safe_names(images.uids, [SHEET_NAME, Path(SHEET_NAME).stem])
    for row, outcome in track(map_guarded(read, rows, num_workers), doing, len(rows)):
        if isinstance(outcome, Failure | str):  # it could be read a moment ago
            missing[images.uids[row]] = outcome if isinstance(outcome, str) else outcome.reason
            continue
        try:
            figures = draw(row, names[row], outcome)
        except (DeviceError, UnreadableImage) as error:
            missing[images.uids[row]] = str(error)
            continue
        for name, figure in figures.files.items():
            file = folder / f"{name}.jpg"
            file.parent.mkdir(exist_ok=True)
            _write_jpeg(file, figure)
            num_figures += 1
        if len(cells) < MAX_SHEET_IMAGES:
            cells[row] = figures.cell
    if not cells:
        return Drawn(num_figures=0, sheet=None, missing=missing)
    _write_jpeg(folder / SHEET_NAME, make_sheet(describe(len(cells)), [cells[row] for row in sorted(cells)]))
    return Drawn(num_figures=num_figures, sheet=folder / SHEET_NAME, missing=missing)


def _write_jpeg(file: Path, figure: Image.Image) -> None:
    write_whole(file, functools.partial(figure.save, format="JPEG", quality=JPEG_QUALITY))


def _read_row(paths: tuple[Path, ...], preprocessings: tuple[Preprocessing, ...], row: int) -> Xray | str:
    return try_to_read(preprocessings, paths[row])


def try_to_read(preprocessings: tuple[Preprocessing, ...], source: Path | bytes) -> Xray | str:
    """In a worker: `read_xray` of a file or the content of one, or the reason why it cannot be read."""
    end_opencv_threads()
    try:
        return read_xray(source if isinstance(source, bytes) else read_file(source), preprocessings)
    except UnreadableImage as error:
        return str(error)


def read_xray(data: bytes, preprocessings: Sequence[Preprocessing]) -> Xray:
    """The content of a file as the whole image, and as the models want it.

    Raises:
        UnreadableImage: see `make_images`.
    """
    made = make_images(data, preprocessings)
    return decode_radiograph(data).image, made


def safe_names(names: Sequence[str], reserved: Sequence[str] = ()) -> list[str]:
    """Names of files or folders, each once whatever the case of its letters, and none of those reserved."""
    taken = {name.lower() for name in reserved}
    safe = []
    for name in names:
        wanted = candidate = _safe(name)
        number = 1
        while candidate.lower() in taken:
            number += 1
            candidate = f"{wanted}_{number}"
        taken.add(candidate.lower())
        safe.append(candidate)
    return safe


def _safe(name: str) -> str:
    """A name that is one part of a path on any system."""
    return re.sub(r"[^\w.-]+", "_", name).strip("._")[:100] or "image"
