"""Predicted lines beside drawn ones: how well the lines and tips of each device type are found."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from catheters.evaluation.intervals import Estimate
from catheters.evaluation.lines.distances import centreline_distance
from catheters.evaluation.lines.overlap import dice
from catheters.evaluation.lines.summary import LineSummary, estimate_errors, estimate_tip_errors, summarise_lines
from catheters.evaluation.lines.tips import TipMatches, match_tips, tip_tolerance
from catheters.evaluation.patients import Patients

Floats = npt.NDArray[np.float64]
Polylines = Mapping[str, Sequence[Floats]]
"""Device type -> its lines in an image, each (m, 2) x and y in pixels of the original, from the entry to the tip."""

MAP_WIDTH = 256
"""Pixels of the masks that Dice's coefficient is computed of; their height keeps the image's aspect."""
STEPS_ACROSS = 200
"""A line's distance from another is measured at points so many to the image's width apart."""
TipError = Literal["missed", "far off"]
NUM_CASES = 5
"""Tips of a device type that are shown, of those that are far off and of those that are missed."""


@dataclass(frozen=True, kw_only=True)
class LineSet:
    """Predicted lines beside drawn ones, of n images and T device types.

    Attributes:
        device_types: (T,) names.
        predicted: (n,) lines of each image.
        drawn: (n,) likewise.
        is_known: (n, T) whether the drawn lines of a device type are all that the image has.
        full_shapes: (n, 2) height and width of the original image in pixels, above 0 where a device type is known.
        mm_per_pixel: (n, 2) x and y; NaN where it is not known.
    """

    device_types: tuple[str, ...]
    predicted: Sequence[Polylines]
    drawn: Sequence[Polylines]
    is_known: npt.NDArray[np.bool_]
    full_shapes: npt.NDArray[np.int64]
    mm_per_pixel: Floats


@dataclass(frozen=True, kw_only=True)
class TipCase:
    """A drawn tip that was not found.

    Attributes:
        row: of the image.
        device_type: of the line.
        tip: x and y of the drawn tip in pixels of the original image.
        predicted: of the predicted tip that it is paired with; None: it is missed, no predicted one is left for it.
        error: their distance as a share of the image's width; infinite for a missed one.
        error_mm: the same in mm; NaN where the pixel spacing is not known.
        drawn_lines: all of the device type in the image, as in a `LineSet`.
        predicted_lines: likewise.
        full_shape: (H, W) of the original image, in pixels.
    """

    row: int
    device_type: str
    tip: tuple[float, float]
    predicted: tuple[float, float] | None
    error: float
    error_mm: float
    drawn_lines: Sequence[Floats]
    predicted_lines: Sequence[Floats]
    full_shape: tuple[int, int]

    @property
    def kind(self) -> TipError:
        """What is wrong with it."""
        return "missed" if self.predicted is None else "far off"


@dataclass(frozen=True, kw_only=True)
class DeviceLines:
    """How well the lines of a device type are found.

    Attributes:
        summary: found tips, false lines, Dice's coefficient; errors of tips as shares of the image's width.
        num_pairs: lines whose tip is paired with a predicted one, however far off.
        distance: mean symmetric distance of these from their predicted centreline, as a share of the width: the median
            of all of them,
        distance_90: and the 90th percentile.
        num_tips_in_mm: drawn tips of images whose pixel spacing is known; what follows is of them alone.
        tip_error_mm: median error of the tips in mm, missed ones being infinitely far off,
        tip_error_90_mm: and the 90th percentile.
        num_pairs_in_mm: of their lines, those whose tip is paired.
        distance_mm: as `distance`, in mm,
        distance_90_mm: and the 90th percentile.
        cases: tips that were not found: the farthest ones, then missed ones.
    """

    summary: LineSummary
    num_pairs: int
    distance: Estimate
    distance_90: Estimate
    num_tips_in_mm: int
    tip_error_mm: Estimate
    tip_error_90_mm: Estimate
    num_pairs_in_mm: int
    distance_mm: Estimate
    distance_90_mm: Estimate
    cases: Sequence[TipCase]


@dataclass(frozen=True, kw_only=True)
class _Scale:
    """What lengths in an image are measured in: mm where the pixel spacing is known, else pixels."""

    per_pixel: Floats
    width: float
    mm: float
    tolerance: float

    @classmethod
    def of(cls, lines: LineSet, row: int) -> "_Scale":
        spacing, width = lines.mm_per_pixel[row], int(lines.full_shapes[row, 1])
        is_known = not np.isnan(spacing).any()
        per_pixel = spacing if is_known else np.ones(2)
        return cls(
            per_pixel=per_pixel,
            width=width * float(per_pixel[0]),
            mm=1.0 if is_known else math.nan,
            tolerance=tip_tolerance(width, 1.0 if is_known else None),
        )

    def tips(self, polylines: Sequence[Floats]) -> Floats:
        return np.array([line[-1] for line in polylines]).reshape(-1, 2) * self.per_pixel


def compare_lines(
    lines: LineSet, patients: Patients, draw: Callable[[Floats, npt.NDArray[np.uint8]], None]
) -> list[DeviceLines]:
    """Compare the lines of each device type in the images where it is known which there are.

    A tip is found within 10 mm where the pixel spacing is known, else within 2% of the image's width. Lines are paired
    by their tips.

    Args:
        lines: predicted beside drawn.
        patients: of these n images.
        draw: draws a polyline in pixels of a (h, w) mask into it, 255 inside.
    """
    return [_compare(lines, number, patients, draw) for number in range(len(lines.device_types))]


def _compare(
    lines: LineSet, number: int, patients: Patients, draw: Callable[[Floats, npt.NDArray[np.uint8]], None]
) -> DeviceLines:
    device_type, num_images = lines.device_types[number], len(lines.predicted)
    matches: list[TipMatches | None] = [None] * num_images
    coefficients, widths, mm = (np.full(num_images, math.nan) for _ in range(3))
    distances: list[float] = []
    rows_of_pairs: list[int] = []
    cases: list[TipCase] = []
    for row in np.flatnonzero(lines.is_known[:, number]).tolist():
        predicted, drawn = (of_all[row].get(device_type, ()) for of_all in (lines.predicted, lines.drawn))
        scale = _Scale.of(lines, row)
        matched = match_tips(scale.tips(predicted), scale.tips(drawn), scale.tolerance)
        matches[row], widths[row], mm[row] = matched, scale.width, scale.mm
        height, width = lines.full_shapes[row].tolist()
        if drawn:
            coefficients[row] = _dice(predicted, drawn, (height, width), draw)
        for line, partner in zip(drawn, matched.partners.tolist(), strict=True):
            if partner >= 0:
                pair = (predicted[partner] * scale.per_pixel, line * scale.per_pixel)
                distances.append(centreline_distance(*pair, scale.width / STEPS_ACROSS))
                rows_of_pairs.append(row)
        cases += _cases(row, device_type, predicted, drawn, (height, width), matched, scale)
    summary = summarise_lines(device_type, matches, coefficients, patients, 1 / widths)
    tip_error_mm, tip_error_90_mm = estimate_tip_errors(matches, patients, mm)
    rows, lengths = np.array(rows_of_pairs, dtype=np.intp), np.array(distances, dtype=np.float64)
    distance, distance_90 = estimate_errors(lengths / widths[rows], rows, patients)
    distance_mm, distance_90_mm = estimate_errors(lengths * mm[rows], rows, patients)
    return DeviceLines(
        summary=summary,
        num_pairs=len(rows),
        distance=distance,
        distance_90=distance_90,
        num_tips_in_mm=sum(len(of.errors) for of, one in zip(matches, mm, strict=True) if of is not None and one == 1),
        tip_error_mm=tip_error_mm,
        tip_error_90_mm=tip_error_90_mm,
        num_pairs_in_mm=int((mm[rows] == 1).sum()),
        distance_mm=distance_mm,
        distance_90_mm=distance_90_mm,
        cases=_worst(cases),
    )


def _dice(
    predicted: Sequence[Floats],
    drawn: Sequence[Floats],
    full_shape: tuple[int, int],
    draw: Callable[[Floats, npt.NDArray[np.uint8]], None],
) -> float:
    """Of the lines of an image, drawn as masks of a width of `MAP_WIDTH`."""
    height, width = full_shape
    masks = np.zeros((2, max(1, round(MAP_WIDTH * height / width)), MAP_WIDTH), dtype=np.uint8)
    for mask, polylines in zip(masks, (predicted, drawn), strict=True):
        for line in polylines:
            draw((line + 0.5) * (MAP_WIDTH / width) - 0.5, mask)  # centres of pixels are whole numbers
    is_line = masks > 127
    return float(dice(is_line[0][None, None], is_line[1][None, None], np.ones((1, 1), dtype=np.bool_))[0, 0])


def _cases(
    row: int,
    device_type: str,
    predicted: Sequence[Floats],
    drawn: Sequence[Floats],
    full_shape: tuple[int, int],
    matched: TipMatches,
    scale: _Scale,
) -> list[TipCase]:
    """The drawn tips of an image that were not found."""
    return [
        TipCase(
            row=row,
            device_type=device_type,
            tip=_place(drawn[number][-1]),
            predicted=None if partner < 0 else _place(predicted[partner][-1]),
            error=error / scale.width,
            error_mm=error * scale.mm,
            drawn_lines=drawn,
            predicted_lines=predicted,
            full_shape=full_shape,
        )
        for number, (error, partner) in enumerate(zip(matched.errors.tolist(), matched.partners.tolist(), strict=True))
        if not matched.is_found[number]
    ]


def _place(point: Floats) -> tuple[float, float]:
    x, y = point.tolist()
    return x, y


def _worst(cases: Sequence[TipCase]) -> list[TipCase]:
    far = sorted((case for case in cases if case.predicted is not None), key=lambda case: -case.error)
    missed = [case for case in cases if case.predicted is None]
    return [*far[:NUM_CASES], *missed[:NUM_CASES]]
