"""Real radiographs to draw on: read from a folder, each with its patient and with the atlas fitted to it."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from catheters.data.decoding.image import UnreadableImage
from catheters.data.decoding.radiograph import read_radiograph
from catheters.data.tables.image_folder import folder_table
from catheters.errors import UserError, counted
from catheters.io.csv_files import TableError, read_csv
from catheters.runtime.console import warn
from catheters.runtime.opencv_threads import without_opencv_threads
from catheters.runtime.progress import track
from catheters.synthetic.registration import AtlasFit, exposed, fit_atlas

LEAST_CORRELATION = 0.25
"""Fits below it are no fits: 52 frontal chest radiographs reached 0.33 to 0.75."""
LEAST_EXPOSED = 0.3
"""Share of the pixels that the beam has reached."""
LEFT_OUT_SHOWN = 5
"""Files left out that a warning names."""


@dataclass(frozen=True)
class Radiograph:
    """A frontal chest radiograph whose anatomy is estimated."""

    patient_id: str
    file: Path
    image_size: int
    """The longer side in pixels to which a larger one is reduced."""
    fit: AtlasFit

    def image(self) -> NDArray[np.uint8]:
        """(H, W), bone white, decoded anew."""
        return reduced(read_radiograph(self.file).image, self.image_size)


@dataclass(frozen=True)
class RadiographFiles:
    """The image files of a folder and whose they are."""

    folder: Path
    names: tuple[str, ...]
    """Relative to the folder."""
    patient_ids: tuple[str, ...]

    def digest(self) -> str:
        """SHA-256 over names, patients and sizes in bytes."""
        sizes = [(self.folder / name).stat().st_size for name in self.names]
        rows = zip(self.names, self.patient_ids, sizes, strict=True)
        return hashlib.sha256("\n".join("\0".join(map(str, row)) for row in rows).encode()).hexdigest()


def find_radiographs(folder: Path, patients: Path | None) -> RadiographFiles:
    """The images of a folder; each is a patient of its own unless a table says whose it is.

    Args:
        folder: of images, in any format that the caches read.
        patients: a CSV with the columns `file` (relative to the folder) and `patient_id`; images that it does not name
            are passed over.

    Raises:
        UserError: no image there, or a table that lacks a column, a patient or a file.
    """
    names = tuple(str(uid) for uid in folder_table(folder).uids)
    if patients is None:
        return RadiographFiles(folder, names, names)
    table = read_csv(patients)
    for column in ("file", "patient_id"):
        if column not in table:
            raise TableError(f"{patients}: no column '{column}'; it needs file and patient_id")
    patient_of = dict(zip(table["file"], table["patient_id"], strict=True))
    if (repeated := table["file"][table["file"].duplicated()]).size:
        raise TableError(f"{patients}: {repeated.iloc[0]} stands twice")
    if nameless := [file for file, patient in patient_of.items() if not patient]:
        raise TableError(f"{patients}: no patient_id for {nameless[0]}")
    if missing := sorted(patient_of.keys() - set(names)):
        raise TableError(f"{patients}: {missing[0]} is not in {folder}")
    names = tuple(name for name in names if name in patient_of)
    return RadiographFiles(folder, names, tuple(patient_of[name] for name in names))


def read_radiographs(
    files: RadiographFiles, num_wanted: int, *, image_size: int, seed: int, num_workers: int
) -> list[Radiograph]:
    """Read and fit so many of them, drawn at random, or all; a warning says which ones are left out, and why.

    Args:
        files: of one folder.
        num_wanted: at most so many.
        image_size: the longer side in pixels to which larger images are reduced.
        seed: of the draw.
        num_workers: threads.

    Returns:
        In the order of the files.

    Raises:
        UserError: none of them can be drawn on.
    """
    order = np.random.default_rng(seed).permutation(len(files.names)).tolist()
    found: dict[int, Radiograph] = {}
    left_out: list[str] = []
    with without_opencv_threads(), ThreadPoolExecutor(num_workers) as pool:
        while order and len(found) < num_wanted:  # those that are left out are made up for by others
            chosen, order = order[: num_wanted - len(found)], order[num_wanted - len(found) :]
            read = pool.map(partial(read_and_fit, files, image_size=image_size), chosen)
            results = zip(chosen, read, strict=True)
            for index, result in track(results, "finding the anatomy", total=len(chosen)):
                if isinstance(result, Radiograph):
                    found[index] = result
                else:
                    left_out.append(f"{files.names[index]} ({result})")
    if not found:
        raise UserError(f"{files.folder}: no radiograph to draw on: {'; '.join(left_out[:LEFT_OUT_SHOWN])}")
    if left_out:
        more = f"; and {len(left_out) - LEFT_OUT_SHOWN} more" if len(left_out) > LEFT_OUT_SHOWN else ""
        warn(f"{counted(len(left_out), 'image')} left out: {'; '.join(left_out[:LEFT_OUT_SHOWN])}{more}")
    return [found[index] for index in sorted(found)]


def read_and_fit(files: RadiographFiles, index: int, *, image_size: int) -> Radiograph | str:
    """One radiograph with its fit, or why it has none."""
    file = files.folder / files.names[index]
    try:
        decoded = read_radiograph(file)
    except UnreadableImage as error:
        return str(error)
    for note in decoded.notes:
        if note.kind in ("inverted", "lateral", "not a chest"):
            return note.text
    image = reduced(decoded.image, image_size)
    if exposed(image).mean() < LEAST_EXPOSED:
        return "nearly all of it is black"
    fit = fit_atlas(image)
    if fit.correlation < LEAST_CORRELATION:
        return f"looks unlike a frontal chest: correlation {fit.correlation:.2f} with the atlas"
    return Radiograph(files.patient_ids[index], file, image_size, fit)


def reduced(image: NDArray[np.uint8], image_size: int) -> NDArray[np.uint8]:
    """An image (H, W) whose longer side is `image_size` pixels at most."""
    scale = image_size / max(image.shape)
    if scale >= 1:
        return image
    shape = (max(round(image.shape[1] * scale), 1), max(round(image.shape[0] * scale), 1))
    return np.asarray(cv2.resize(image, shape, interpolation=cv2.INTER_AREA), np.uint8)
