"""Lengths between two points of an X-ray, such as how far an endotracheal tube's tip lies above the carina."""

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from catheters.errors import SettingsError, unknown_name

NO_SPACING = "the pixel spacing is not known, so lengths in mm are not either"
SMALLEST_SIDE, LARGEST_SIDE = 50.0, 2000.0
"""Mm that the side of an X-ray measures: what is beyond is a spacing in another unit, such as micrometres.

The chest of the smallest newborn is about 60 mm wide. A plate of 430 mm, the largest usual one, has 43 in cm.
"""
MAX_PIXEL_ASPECT = 1.25
"""How many times as long as wide, or as wide as long, a pixel may be. Some detectors and scanners have pixels that are
a few per cent to 20% from square; beyond, one of the two numbers is likely wrong."""


@dataclass(frozen=True)
class PixelSpacing:
    """How large an image's pixels are.

    Attributes:
        mm: (x, y), how many mm of the patient are from one pixel of the original image to the next, to the right and
            downwards. None: not known.
        doubt: why that is not known, or why lengths in mm may be wrong; empty where nothing speaks against them.
    """

    mm: tuple[float, float] | None
    doubt: str = ""


def plausible(spacing: PixelSpacing | None, full_shape: tuple[int, int]) -> PixelSpacing | None:
    """An image's spacing, or none with the reason where no X-ray is so large or so small.

    Pixels that are far from square are a doubt.

    Args:
        spacing: what a table or a header says; None: nothing.
        full_shape: (H, W) of the original image, in pixels.
    """
    if spacing is None or spacing.mm is None:
        return spacing
    width, height = spacing.mm[0] * full_shape[1], spacing.mm[1] * full_shape[0]
    x, y = spacing.mm
    if min(width, height) >= SMALLEST_SIDE and max(width, height) <= LARGEST_SIDE:
        if is_nearly_square(spacing.mm):
            return spacing
        doubt = f"{x:g} x {y:g} mm per pixel are far from square, so one of the two may be wrong"
        return PixelSpacing(spacing.mm, "; ".join(filter(None, [spacing.doubt, doubt])))
    return PixelSpacing(
        None, f"{x:g} x {y:g} mm per pixel would make an X-ray of {width:g} x {height:g} mm, so it is not used"
    )


def is_nearly_square(mm: tuple[float, float]) -> bool:
    """Whether pixels of so many mm in x and y are as square as those of detectors, see `MAX_PIXEL_ASPECT`."""
    return max(mm) <= MAX_PIXEL_ASPECT * min(mm)


@dataclass(frozen=True)
class Kind:
    """A way to measure from a first point to a second.

    Attributes:
        positive: where the first point lies of the second when the length is positive.
        negative: where when it is negative.
        length: from how far the first point lies to the right of the second and how far above, as the image is shown.
    """

    positive: str
    negative: str
    length: Callable[[float, float], float]


KindName = Literal["vertical", "horizontal", "distance"]
KINDS: Mapping[str, Kind] = {
    "vertical": Kind("above", "below", lambda right, up: up),
    "horizontal": Kind("to the image's right of", "to the image's left of", lambda right, up: right),
    "distance": Kind("from", "from", lambda right, up: math.hypot(right, up)),
}


@dataclass(frozen=True)
class MeasurementDefinition:
    """What is measured. ValueError, whose message begins with what is wrong, for a kind that does not exist and for a
    point to itself.

    Attributes:
        start: name of the first point, as in "ETT tip".
        end: name of the second one, as in "carina".
        kind: "vertical", how far above the second point the first one lies in the image as shown, negative where it
            lies below; "horizontal", how far to the image's right of it, negative on the left (the image's right is the
            patient's left); "distance", the straight line between them, never negative.
    """

    start: str
    end: str
    kind: str

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(unknown_name(self.kind, "a kind of measurement", KINDS))
        if self.start == self.end:
            raise ValueError(f"from '{self.start}' to itself there is nothing to measure")

    @property
    def name(self) -> str:
        """As in "ETT tip above carina"."""
        return f"{self.start} {KINDS[self.kind].positive} {self.end}"


@dataclass(frozen=True)
class Measurement:
    """A measurement taken on one image.

    Attributes:
        definition: what was measured.
        start: (x, y) of the first point, in pixels of the original image.
        end: (x, y) of the second one.
        pixels: the length in pixels of the original image; its sign is as `MeasurementDefinition` says.
        mm: the length in mm; None where the pixel spacing is not known.
        share_of_height: the length in pixels as a share of the image's height, whatever the kind.
        doubt: of the pixel spacing; why there is no length in mm, or why it may be wrong. Empty: none.
    """

    definition: MeasurementDefinition
    start: tuple[float, float]
    end: tuple[float, float]
    pixels: float
    mm: float | None
    share_of_height: float
    doubt: str = ""

    @property
    def name(self) -> str:
        """The definition's."""
        return self.definition.name

    def describe(self) -> str:
        """A few words for people, as in "ETT tip 12.0 mm above the carina"; without mm in parts of the height."""
        value = self.share_of_height if self.mm is None else self.mm
        length = f"{abs(value):.1%} of the image's height" if self.mm is None else f"{abs(value):.1f} mm"
        kind = KINDS[self.definition.kind]
        where = kind.negative if value < 0 else kind.positive
        return f"{self.definition.start} {length} {where} the {self.definition.end}"


def check_point_names(definitions: Iterable[MeasurementDefinition], names: Collection[str], source: str) -> None:
    """Raise a SettingsError where a measurement names a point that there is not.

    Args:
        definitions: the measurements.
        names: of all points that an image can have, tips and landmarks.
        source: the setting that has the measurements, for the message.
    """
    for definition in definitions:
        for name in (definition.start, definition.end):
            if name not in names:
                raise SettingsError(f"{source}: {unknown_name(name, 'a point that can be measured', names)}")


def measure(
    definition: MeasurementDefinition,
    points: Mapping[str, npt.ArrayLike],
    spacing: PixelSpacing | None,
    full_shape: tuple[int, int],
) -> list[Measurement]:
    """Take one measurement on one image.

    Args:
        definition: what to measure.
        points: name -> (x, y), or (n, 2) of several such as the tips of two catheters of one type, or (0, 2) where the
            image has none: finite pixels of the original image as shown, x to the right, y downwards.
        spacing: the image's; None is the same as one that is not known, see `plausible`.
        full_shape: (H, W) of the original image, in pixels.

    Returns:
        A measurement for each point of the first name with each of the second, in their order.

    Raises:
        SettingsError: `points` lacks a name.
    """
    check_point_names([definition], points, f"measurement '{definition.name}'")
    spacing = plausible(spacing, full_shape)
    starts, ends = (_as_points(points[name]) for name in (definition.start, definition.end))
    return [_measure(definition, start, end, spacing, full_shape[0]) for start in starts for end in ends]


def _as_points(values: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """(2,), (n, 2) or nothing -> (n, 2)."""
    points = np.asarray(values, dtype=np.float64)
    assert points.size == 0 or (points.ndim in (1, 2) and points.shape[-1] == 2), points.shape
    assert np.isfinite(points).all()
    return points.reshape(-1, 2)


def _measure(
    definition: MeasurementDefinition,
    start: npt.NDArray[np.float64],
    end: npt.NDArray[np.float64],
    spacing: PixelSpacing | None,
    height: int,
) -> Measurement:
    """Of two points (2,), x and y in pixels."""
    right, up = float(start[0] - end[0]), float(end[1] - start[1])
    length = KINDS[definition.kind].length
    pixels = length(right, up)
    if spacing is None or spacing.mm is None:
        mm, doubt = None, (spacing.doubt if spacing is not None else "") or NO_SPACING
    else:
        mm, doubt = length(right * spacing.mm[0], up * spacing.mm[1]), spacing.doubt
    (start_x, start_y), (end_x, end_y) = start.tolist(), end.tolist()
    return Measurement(definition, (start_x, start_y), (end_x, end_y), pixels, mm, pixels / height, doubt)
