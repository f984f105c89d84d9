"""How well the lines of a device type are found over all images, with intervals over patients."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from catheters.evaluation.intervals import COUNT, Estimate, estimate
from catheters.evaluation.lines.tips import TipMatches
from catheters.evaluation.patients import Patients

Floats = npt.NDArray[np.float64]

ERROR_LEVELS = (0.5, 0.9)


@dataclass(frozen=True, kw_only=True)
class LineSummary:
    """How well the lines of one device type are found; NaN where there is nothing to judge by.

    Attributes:
        device_type: its name.
        num_images: images in which it is known which lines there are.
        num_tips: true tips in them.
        found: share of the true tips that are found.
        median_error: of the tip errors of all true tips, in the unit asked for. Tips without a predicted one count as
            infinitely far off; so it is infinite where they are most.
        error_90: the 90th percentile of the same.
        false_per_image: mean number of false tips, each of which is a false line's.
        dice: mean of Dice's coefficient over images with a true line.
    """

    device_type: str
    num_images: int
    num_tips: int
    found: Estimate
    median_error: Estimate
    error_90: Estimate
    false_per_image: Estimate
    dice: Estimate


def summarise_lines(
    device_type: str,
    matches: Sequence[TipMatches | None],
    dice: Floats,
    patients: Patients,
    unit_per_pixel: Floats | None = None,
) -> LineSummary:
    """Summarise the images of one device type.

    Args:
        device_type: its name.
        matches: (n,) of each image; None where it is not known which lines there are.
        dice: (n,) of each image; NaN where it is undefined.
        patients: of these n images.
        unit_per_pixel: (n,) what a pixel measures, such as millimetres, or 1 / width for parts of the width; NaN leaves
            an image's tips out of the errors only. None: errors are in pixels.
    """
    assert len(matches) == len(dice), "a row for each image"
    is_known = np.array([matched is not None for matched in matches], dtype=np.bool_)
    found, tips, false = (
        np.array([0.0 if matched is None else number(matched) for matched in matches])
        for number in (lambda m: m.is_found.sum(), lambda m: len(m.errors), lambda m: m.num_false)
    )
    median_error, error_90 = estimate_tip_errors(matches, patients, unit_per_pixel)
    return LineSummary(
        device_type=device_type,
        num_images=int(is_known.sum()),
        num_tips=int(tips.sum()),
        found=estimate(patients.ratio(found, tips)),
        median_error=median_error,
        error_90=error_90,
        false_per_image=estimate(patients.ratio(false, is_known, COUNT)),
        dice=estimate(patients.mean(np.where(is_known, dice, np.nan))),
    )


def estimate_tip_errors(
    matches: Sequence[TipMatches | None], patients: Patients, unit_per_pixel: Floats | None = None
) -> tuple[Estimate, Estimate]:
    """Median and 90th percentile of the tips' errors; see `summarise_lines`."""
    units = np.ones(len(matches)) if unit_per_pixel is None else unit_per_pixel
    of_images = [np.empty(0) if matched is None else matched.errors for matched in matches]
    image_rows = np.repeat(np.arange(len(matches)), [len(errors) for errors in of_images])
    errors = np.concatenate([np.empty(0), *of_images]) * units[image_rows]
    return estimate_errors(errors, image_rows, patients)


def estimate_errors(errors: Floats, image_rows: npt.NDArray[np.intp], patients: Patients) -> tuple[Estimate, Estimate]:
    """The quantiles at `ERROR_LEVELS` with intervals; errors that are NaN are left out.

    Args:
        errors: (m,) infinite ones too.
        image_rows: (m,) the image of each, 0..n - 1.
        patients: of the images.
    """
    is_defined = ~np.isnan(errors)
    median, upper = patients.quantiles(errors[is_defined], image_rows[is_defined], ERROR_LEVELS)
    return median, upper
