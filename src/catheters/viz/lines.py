"""Catheters drawn over an X-ray: one colour per device type, a ring and the label at the tip."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from types import MappingProxyType

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from catheters.labels import RANZCR_HEADS
from catheters.viz.text import load_font, wrap

Colour = tuple[int, int, int]
Point = tuple[float, float]
"""x and y."""

# The palette of Okabe and Ito, which the colour-blind can tell apart; the device types have its brightest.
DEVICE_TYPE_COLOURS: dict[str, Colour] = {
    "ETT": (86, 180, 233),
    "NGT": (240, 228, 66),
    "CVC": (255, 122, 30),  # vermilion, made brighter: it is thin on grey
    "Swan Ganz": (232, 150, 205),  # likewise reddish purple
}
OTHER_COLOURS: tuple[Colour, ...] = (
    (0, 190, 140),
    (240, 228, 66),
    (255, 122, 30),
    (86, 180, 233),
    (232, 150, 205),
    (150, 100, 255),
    (225, 40, 75),
)
"""Of device types of other names: each is easily told from each other one, RANZCR's among them."""
UNKNOWN_COLOUR: Colour = (175, 175, 175)
MARK_COLOUR: Colour = (255, 255, 255)
"""Of landmarks and lengths: no device type's."""
UNKNOWN_DEVICE_TYPE = "unknown label"

DEVICE_TYPE_OF_LABEL = {label: device_type for device_type, labels in RANZCR_HEADS.items() for label in labels}

FONT_SIZE = 12
LINE_WIDTH = 2
EDGE_WIDTH = 4
"""Of the black edge under each line: without it, the colours would vanish on white bone."""
RING_RADIUS = 6
RING_MARGIN = 0.03
"""Tips as far out of the image, in parts of its size, are shown at its edge: traces end a little outside."""
LABEL_DISTANCE = 11
DASH, GAP_BETWEEN = 7, 7
"""Pixels of what is dashed; round ends take some of the gaps."""
FIXED_POINT_BITS = 4
FARTHEST = 20_000.0
"""Coordinates are cut off there, far outside, before they become OpenCV's 32-bit numbers."""


@dataclass(frozen=True)
class Line:
    """A catheter to draw.

    Attributes:
        label: what stands at its tip.
        colour: red, green and blue.
        points: (n, 2) x and y in pixels of the cached image; NaN for points that got lost.
        tip: which of them is the tip.
        is_dashed: drawn so where it is not sure that it is there.
    """

    label: str
    colour: Colour
    points: npt.NDArray[np.float64]
    tip: int
    is_dashed: bool = False


@dataclass(frozen=True)
class DeviceTypes:
    """Which device type a label belongs to, and the colour of each.

    Attributes:
        of_label: label -> its device type.
        colours: device type -> its colour, in the order in which legends name them.
    """

    of_label: Mapping[str, str]
    colours: Mapping[str, Colour]

    @classmethod
    def of(
        cls, device_types: Mapping[str, Sequence[str]], label_columns: Iterable[str], drawn_labels: Iterable[str]
    ) -> "DeviceTypes":
        """The device types of a data set's labels.

        Args:
            device_types: name -> its labels, as the settings group them.
            label_columns: labels that are predicted; one that is in no device type is a type of its own.
            drawn_labels: of drawn catheters. RANZCR's have their device types whether they are predicted or not.
        """
        of_label = {label: DEVICE_TYPE_OF_LABEL.get(label, label) for label in label_columns}
        of_label |= {label: DEVICE_TYPE_OF_LABEL[label] for label in drawn_labels if label in DEVICE_TYPE_OF_LABEL}
        of_label |= {label: name for name, labels in device_types.items() for label in labels}
        return cls(of_label, colours_of(dict.fromkeys([*device_types, *of_label.values()])))

    def colour_of(self, label: str) -> Colour:
        """That of the label's device type; of a label that nobody knows, `UNKNOWN_COLOUR`."""
        return self.colours[self.of_label[label]] if label in self.of_label else UNKNOWN_COLOUR


def colours_of(device_types: Iterable[str]) -> dict[str, Colour]:
    """Device type -> colour, for device types of any names: RANZCR's have their own, others in turn one of the rest."""
    names = list(device_types)
    taken = {DEVICE_TYPE_COLOURS[name] for name in names if name in DEVICE_TYPE_COLOURS}
    rest = cycle(colour for colour in OTHER_COLOURS if colour not in taken)
    return {name: DEVICE_TYPE_COLOURS[name] if name in DEVICE_TYPE_COLOURS else next(rest) for name in names}


def draw_lines(
    tile: npt.NDArray[np.uint8],
    lines: Sequence[Line],
    image_shape: tuple[int, int],
    size: float = 1.0,
    names: Mapping[str, Point] = MappingProxyType({}),
    keep_clear: Sequence[Point] = (),
) -> Image.Image:
    """Draw catheters over an image.

    Args:
        tile: (h, w) uint8, the cached image at the size at which it is shown.
        lines: the catheters, in pixels of the cached image.
        image_shape: (H, W) of the cached image.
        size: of lines, rings and letters, in those of contact sheets.
        names: of landmarks and lengths -> a place, likewise: written beside it. `draw_lengths` draws what they name.
        keep_clear: places likewise where something else is drawn, such as a cross, that no label shall hide.

    Returns:
        (h, w) in colours.
    """
    scale = np.array([tile.shape[1] / image_shape[1], tile.shape[0] / image_shape[0]])
    pixels = cv2.cvtColor(tile, cv2.COLOR_GRAY2RGB)
    placed = [place_points(line.points, scale) for line in lines]
    for line, points in zip(lines, placed, strict=True):
        stretches = _stretches(points, size, is_dashed=line.is_dashed)
        for colour, width in _strokes(line, size):
            cv2.polylines(pixels, stretches, False, colour, width, cv2.LINE_AA, FIXED_POINT_BITS)
    tips = [_visible_tip(points[line.tip], tile.shape, size) for line, points in zip(lines, placed, strict=True)]
    for line, tip in zip(lines, tips, strict=True):
        if tip is not None:
            centre, radius = _fixed_point(np.array(tip)).tolist(), round(RING_RADIUS * size * (1 << FIXED_POINT_BITS))
            for colour, width in _strokes(line, size):
                cv2.circle(pixels, centre, radius, colour, width, cv2.LINE_AA, FIXED_POINT_BITS)
    drawn = Image.fromarray(pixels)
    labels = [(line.label, line.colour, tip) for line, tip in zip(lines, tips, strict=True)]
    for name, point in names.items():
        labels.append((name, MARK_COLOUR, _visible_tip(place_points(np.array(point), scale), tile.shape, size)))
    others = [(float(x), float(y)) for x, y in (place_points(np.array(point), scale) for point in keep_clear)]
    seen = dict.fromkeys((text, colour, place) for text, colour, place in labels if place is not None)
    _write_labels(drawn, list(seen), others, size)  # once where lines of one label end at one tip
    return drawn


def place_points(points: npt.NDArray[np.float64], scale: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(..., 2) pixels of an image -> pixels of it at a scale (2,) in x and y; coordinates far outside are cut off."""
    placed: npt.NDArray[np.float64] = np.clip((points + 0.5) * scale - 0.5, -FARTHEST, FARTHEST)
    return placed


def _strokes(line: Line, size: float) -> list[tuple[Colour, int]]:
    """Colour and width of the edge, then of the line."""
    return [((0, 0, 0), round(EDGE_WIDTH * size)), (line.colour, round(LINE_WIDTH * size))]


def _fixed_point(points: npt.NDArray[np.float64]) -> npt.NDArray[np.int32]:
    return np.round(points * (1 << FIXED_POINT_BITS)).astype(np.int32)


def _stretches(points: npt.NDArray[np.float64], size: float, *, is_dashed: bool) -> list[npt.NDArray[np.int32]]:
    """The line without its lost points, in OpenCV's fixed-point numbers."""
    is_known = ~np.isnan(points[:, 0])
    parts = [part for part in np.split(points, np.flatnonzero(np.diff(is_known)) + 1) if not np.isnan(part[0, 0])]
    if is_dashed:
        parts = [dash for part in parts for dash in dashes(part, size)]
    return [_fixed_point(part) for part in parts]


def dashes(points: npt.NDArray[np.float64], size: float = 1.0) -> list[npt.NDArray[np.float64]]:
    """The parts of a polyline (n, 2) that are drawn, each one too; the first begins and the last ends with it.

    Args:
        points: in pixels of the figure.
        size: of dashes and gaps, in that of contact sheets.
    """
    along = np.append(0.0, np.cumsum(np.hypot(*np.diff(points, axis=0).T)))
    length = float(along[-1])
    num_gaps = max(0, math.floor((length / size - DASH) / (DASH + GAP_BETWEEN)))
    dash = (length - num_gaps * GAP_BETWEEN * size) / (num_gaps + 1)
    begins = (dash + GAP_BETWEEN * size) * np.arange(num_gaps + 1)
    found = []
    for begin, end in zip(begins, begins + dash, strict=True):
        positions = np.concatenate([[begin], along[(along > begin) & (along < end)], [end]])
        found.append(np.stack([np.interp(positions, along, points[:, axis]) for axis in (0, 1)], axis=1))
    return found


def _visible_tip(
    tip: npt.NDArray[np.float64], shape: tuple[int, ...], size_of_ring: float
) -> tuple[float, float] | None:
    """Where the ring goes; None where the tip lies outside of the image."""
    size = np.array([shape[1], shape[0]], dtype=np.float64)
    # A tip that got lost is NaN, and no comparison with it holds.
    if not ((tip >= -RING_MARGIN * size).all() and (tip <= (1 + RING_MARGIN) * size).all()):
        return None
    reach = RING_RADIUS * size_of_ring + 1  # the ring is seen whole, even where the tip lies on the edge
    x, y = np.clip(tip, reach, size - 1 - reach).tolist()
    return x, y


def _write_labels(
    drawn: Image.Image, labels: list[tuple[str, Colour, Point]], others: Sequence[Point], size: float
) -> None:
    """Write each beside its ring or cross, where it hides neither another label nor one of these, inside the image.

    Nor anything at the places `others`.
    """
    font = load_font(round(FONT_SIZE * size))
    draw = ImageDraw.Draw(drawn)
    reach = RING_RADIUS * size + 2
    places = [*(place for _, _, place in labels), *others]
    taken = [(x - reach, y - reach, x + reach, y + reach) for x, y in places]
    for label, colour, place in labels:
        text = wrap(label, font, drawn.width - 4, max_lines=1)[0]
        box = free_place(place, _text_size(text, font), drawn.size, taken, LABEL_DISTANCE * size)
        taken.append(box)
        draw.text(box[:2], text, colour, font, anchor="la", stroke_width=round(2 * size), stroke_fill=(0, 0, 0))


Box = tuple[float, float, float, float]
"""Left, top, right and bottom, in pixels."""


def _text_size(text: str, font: ImageFont.FreeTypeFont) -> tuple[float, float]:
    ascent, descent = font.getmetrics()
    return font.getlength(text), ascent + descent


def free_place(
    tip: tuple[float, float],
    text_size: tuple[float, float],
    image_size: tuple[int, int],
    taken: list[Box],
    distance: float = LABEL_DISTANCE,
) -> Box:
    """Where a label goes: beside the tip, or as little above or below that as need be; where none is free, where it
    hides least.

    Args:
        tip: x and y in pixels of the image.
        text_size: (width, height) of the label.
        image_size: (width, height).
        taken: what it shall not hide.
        distance: from the tip, to the right and to the left.
    """
    width, height = text_size
    x, y = tip
    steps = [0.0, *(sign * (height + 4) * step for step in range(1, 8) for sign in (-1, 1))]
    lefts = (x + distance, x - distance - width, x - width / 2)
    boxes = []
    for step in steps:
        for left in lefts:
            left = max(min(left, image_size[0] - width - 2), 2)
            top = max(min(y - height / 2 + step, image_size[1] - height - 2), 2)
            boxes.append((left, top, left + width, top + height))
    return min(boxes, key=lambda box: sum(_overlap(box, other) for other in taken))  # the first of equals


def _overlap(box: Box, other: Box) -> float:
    """The area that both have, in pixels."""
    width, height = (min(box[axis + 2], other[axis + 2]) - max(box[axis], other[axis]) for axis in (0, 1))
    return max(width, 0.0) * max(height, 0.0)
