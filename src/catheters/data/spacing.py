"""Pixel spacing: how many mm of the patient an image's pixels are apart, from a table or from DICOM headers.

An X-ray is a shadow: the beam spreads, so the detector shows everything larger than it is, and the more so the farther
it lies in front of it. For the middle of a chest that is about 1.05 times (a standing patient, 180 cm from the tube) to
1.3 times (a portable X-ray in bed). A spacing that holds at the detector therefore makes lengths that much too long.
"""

import math
import warnings
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from catheters.data.decoding.header import read_header
from catheters.errors import counted, one_line, raise_of_machine
from catheters.io.csv_files import (
    MAX_SHOWN,
    TableError,
    check_columns,
    check_ids,
    finite_numbers,
    line_number,
    read_csv,
)
from catheters.io.near_misses import number_in, same_id_hint
from catheters.measurements import PixelSpacing, is_nearly_square, plausible

if TYPE_CHECKING:
    from pydicom import Dataset

SPACING_COLUMNS = ("spacing_x", "spacing_y")
PATIENT, CALIBRATION = "PixelSpacing", "PixelSpacingCalibrationType"
CALIBRATED = ("GEOMETRY", "FIDUCIAL")
"""Values of the latter: corrected by known distances, or by an object of known size."""
DETECTOR, FILM = "ImagerPixelSpacing", "NominalScannedPixelSpacing"
MAGNIFICATION = "EstimatedRadiographicMagnificationFactor"
MAX_MAGNIFICATION = 2.0
USUAL_SIDES = (150.0, 600.0)
"""Mm that the longer side of most X-rays measures, from newborns' to the largest plates. It is less than a power of ten
wide, so at most one power brings a side into it."""
UNIT_OF_POWER = {-3: "micrometres", 1: "cm", 3: "m"}
"""Units by the power of ten that makes them mm."""
SAME_SPACING = 1e-3
"""Relative difference up to which two spacings are the same but for rounding."""
NO_DICOM = "no DICOM file, or a damaged one, so its pixel spacing is not known"
TOO_LONG = "lengths are about 1.05 to 1.3 times too long"


def read_spacing_table(file: Path, uid_column: str) -> dict[str, PixelSpacing]:
    """Read a table of pixel spacings, one row per image.

    Args:
        file: CSV with the columns `uid_column`, spacing_x and spacing_y, in mm per pixel of the original image.
        uid_column: the column that names the image.

    Returns:
        Uid -> its spacing, in the order of the file, without a doubt.

    Raises:
        TableError: the file, a column or a value is missing or wrong, or an image stands there twice.
    """
    frame = read_csv(file)
    check_columns(frame, (uid_column, *SPACING_COLUMNS), file)
    check_ids(frame, uid_column, file)
    columns = []
    for column in SPACING_COLUMNS:
        numbers = finite_numbers(frame, column, file, "mm per pixel").tolist()
        row = next((row for row, number in enumerate(numbers) if number <= 0), None)
        if row is not None:
            raise TableError(
                f"{file}: line {line_number(frame, row, file)}, column '{column}': {frame[column].iloc[row]!r} is not "
                "above 0; mm per pixel are expected"
            )
        columns.append(numbers)
    return {uid: PixelSpacing((x, y)) for uid, x, y in zip(frame[uid_column], *columns, strict=True)}


def check_spacing_ids(spacings: Collection[str], uids: Collection[str], source: str) -> None:
    """Compare a table's ids with those of the images, of which it need not have all.

    Args:
        spacings: ids with a spacing.
        uids: those of the images.
        source: where the table comes from, for the message.

    Raises:
        TableError: it has none of the images.
    """
    if set(spacings).isdisjoint(uids):
        example, wanted = next(iter(spacings)), next(iter(uids))
        raise TableError(
            f"{source}: none of its {len(spacings)} ids is that of an image; it has {example}, and the images are "
            f"called like {wanted}{same_id_hint(spacings, uids)}"
        )


def check_sizes(
    spacings: Mapping[str, PixelSpacing], full_shapes: Mapping[str, tuple[int, int]], source: str
) -> list[str]:
    """Say which images would be of no X-ray's size, or would have pixels that no detector has.

    Args:
        spacings: what `read_spacing_table` returned.
        full_shapes: uid -> (H, W) of the original image, in pixels; (0, 0) where it could not be read. Such and other
            images are passed over.
        source: where the table comes from, for the messages.

    Returns:
        Warnings, one line each.
    """
    sides: dict[str, tuple[float, float]] = {}  # in mm, width and height
    oblong: list[str] = []
    implausible: list[str] = []
    for uid, spacing in spacings.items():
        shape = full_shapes.get(uid, (0, 0))
        if spacing.mm is None or not all(shape):
            continue
        sides[uid] = (shape[1] * spacing.mm[0], shape[0] * spacing.mm[1])
        used = plausible(spacing, shape)
        if used is None or used.mm is None:
            implausible.append(uid)
        elif not is_nearly_square(spacing.mm):
            oblong.append(uid)
    warnings = []
    if implausible:
        width, height = sides[implausible[0]]
        warnings.append(
            f"{source}: {len(implausible)} of {counted(len(sides), 'image')} would be implausibly large or small, such "
            f"as {implausible[0]} with {width:.3g} x {height:.3g} mm, so no lengths in mm there; mm per pixel of the "
            f"original image are expected{_unit_hint([max(of_image) for of_image in sides.values()])}"
        )
    if oblong:
        x, y = spacings[oblong[0]].mm or (math.nan, math.nan)
        warnings.append(
            f"{source}: {len(oblong)} of {counted(len(sides), 'image')} would have pixels far from square, such as "
            f"{oblong[0]} with {x:g} x {y:g} mm, so one of the two may be wrong"
        )
    return warnings


def _unit_hint(longer_sides: Sequence[float]) -> str:
    """The unit in which all spacings may be, as the end of a message; empty where no power of ten explains all."""
    smallest, largest = USUAL_SIDES
    power = round(math.log10(math.sqrt(smallest * largest) / longer_sides[0]))
    if power == 0 or not all(smallest <= side * 10.0**power <= largest for side in longer_sides):
        return ""
    times = f"{10 ** abs(power):,} times too {'small' if power > 0 else 'large'}"
    unit = UNIT_OF_POWER.get(power)
    return f"; all seem to be {times}" + (f", as in {unit}" if unit else "")


def spacings_of(spacings: Mapping[str, PixelSpacing], uids: Sequence[str]) -> npt.NDArray[np.float64]:
    """What a table says of n images: (n, 2) mm per pixel in x and y, NaN where it has no row."""
    known = (spacings[uid].mm if uid in spacings else None for uid in uids)
    return np.array([(math.nan, math.nan) if mm is None else mm for mm in known], dtype=np.float64).reshape(-1, 2)


def read_dicom_spacing(source: Path | bytes) -> PixelSpacing:
    """The pixel spacing of a DICOM file, by `spacing_of_header`; of any other file it is not known.

    `source` is the file, or the content of one.

    Raises:
        OSError: the file cannot be read.
    """
    header = read_header(source, (PATIENT, CALIBRATION, DETECTOR, FILM, MAGNIFICATION))
    if header is None:
        return PixelSpacing(None, NO_DICOM)
    return spacing_of_header(header)


def spacing_of_header(header: "Dataset") -> PixelSpacing:
    """The pixel spacing that a header gives, and what speaks against it (DICOM PS3.3 10.7.1).

    - PixelSpacing holds in the patient if PixelSpacingCalibrationType says GEOMETRY or FIDUCIAL. It is taken as it is.
    - So it does where it differs from ImagerPixelSpacing (or else NominalScannedPixelSpacing, of scanned films), since
      the standard wants them equal unless a correction was made. It is taken, with the doubt that nothing says how.
    - Without that type and without another spacing nobody can tell. It is taken, with the doubt that lengths may be too
      long.
    - PixelSpacing that is equal to ImagerPixelSpacing was not corrected, whatever the type says. ImagerPixelSpacing
      holds at the detector, NominalScannedPixelSpacing at the film. Either is divided by
      EstimatedRadiographicMagnificationFactor where the header has one above 1 and up to 2; without, lengths are too
      long and the doubt says so.
    - A spacing that is not two numbers above 0 counts as absent, and the doubt names it.

    DICOM gives the spacing of the rows (y) first, that of the columns (x) second. The two may differ; then lengths use
    both, each in its direction.
    """
    doubts: list[str] = []
    patient, imager, film = (_read_pair(header, keyword, doubts) for keyword in (PATIENT, DETECTOR, FILM))
    at_detector, source = (film, FILM) if imager is None else (imager, DETECTOR)
    calibration = _text_of(header, CALIBRATION).upper()
    is_calibrated = calibration in CALIBRATED
    if patient is not None and (at_detector is None or not _is_same(patient, at_detector)):
        if not is_calibrated and at_detector is None:
            doubts.append(f"{PATIENT} does not say whether magnification was corrected; if it was not, {TOO_LONG}")
        elif not is_calibrated:
            doubts.append(f"{PATIENT} is not {source}, so magnification was corrected, but the header does not say how")
        if at_detector is not None and max(patient[0] / at_detector[0], patient[1] / at_detector[1]) > 1:
            doubts.append(f"{PATIENT} is larger than {source}, but correcting magnification makes it smaller")
        return PixelSpacing(patient, "; ".join(doubts))
    if at_detector is None:
        return PixelSpacing(None, "; ".join([*doubts, "the header has no pixel spacing"]))
    if patient is not None and is_calibrated:
        doubts.append(f"{CALIBRATION} is {calibration}, but {PATIENT} is the same as {source}, which is not corrected")
    factor = _read_magnification(header, doubts)
    if factor is None:
        doubts.append(f"{source} holds at the {'film' if source == FILM else 'detector'}, so {TOO_LONG}")
        return PixelSpacing(at_detector, "; ".join(doubts))
    return PixelSpacing((at_detector[0] / factor, at_detector[1] / factor), "; ".join(doubts))


def _is_same(first: tuple[float, float], second: tuple[float, float]) -> bool:
    return all(math.isclose(a, b, rel_tol=SAME_SPACING) for a, b in zip(first, second, strict=True))


def _read_pair(header: "Dataset", keyword: str, doubts: list[str]) -> tuple[float, float] | None:
    """A spacing as (x, y) in mm; None where it is absent, or wrong, which is added to the doubts."""
    text = _text_of(header, keyword)
    if not text:
        return None
    numbers = [number_in(part) for part in text.split("\\")]
    if len(numbers) == 2 and all(number is not None and number > 0 for number in numbers):
        y, x = (number for number in numbers if number is not None)
        return x, y
    doubts.append(f"{keyword} {text!r} is not two numbers above 0, so it is not used")
    return None


def _read_magnification(header: "Dataset", doubts: list[str]) -> float | None:
    """How much larger the detector shows a patient; None where it is absent, or wrong, which is added to the doubts."""
    text = _text_of(header, MAGNIFICATION)
    if not text:
        return None
    factor = number_in(text)
    if factor is not None and 1 < factor <= MAX_MAGNIFICATION:
        return factor
    doubts.append(f"{MAGNIFICATION} {text!r} is not above 1 and at most {MAX_MAGNIFICATION:g}, so it is not used")
    return None


def _text_of(header: "Dataset", keyword: str) -> str:
    """An element's values as DICOM writes them, with backslashes between them; empty where there is none."""
    try:
        with warnings.catch_warnings(action="ignore"):
            value = header.get(keyword)
    except Exception as error:  # whatever a damaged value brings out in the library
        raise_of_machine(error)
        return "?"
    if value is None:
        return ""
    values = value if isinstance(value, list | tuple) or hasattr(value, "append") else [value]
    return one_line(ValueError("\\".join(str(part).strip(" \0") for part in values)), MAX_SHOWN)
