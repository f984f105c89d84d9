"""An image on the sheets: its pixels, its catheters, its words."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
from PIL import Image

from catheters.data.annotations import Annotation
from catheters.data.cache.cache import ImageCache
from catheters.data.preprocessing import Preprocessing, place, resize
from catheters.data.tables.label_table import LabelTable
from catheters.viz.layout import BRIGHT, DIM, TILE_WIDTH, tile_shape
from catheters.viz.lengths import draw_lengths
from catheters.viz.lines import (
    FONT_SIZE,
    UNKNOWN_COLOUR,
    UNKNOWN_DEVICE_TYPE,
    Colour,
    DeviceTypes,
    Line,
    Point,
    draw_lines,
)
from catheters.viz.text import load_font, shorten_start

NOTE_COLOUR: Colour = (255, 176, 0)


@dataclass(frozen=True)
class SheetImage:
    """An image on the sheets.

    Attributes:
        position: its row of the label table.
        pixels: (H, W) uint8, as cached.
        lines: its catheters, in pixels of the cached image.
        landmarks: name -> its place, likewise.
        text: what stands under it.
    """

    position: int
    pixels: npt.NDArray[np.uint8]
    lines: list[Line]
    landmarks: dict[str, Point]
    text: list[tuple[str, Colour]]

    @property
    def is_marked(self) -> bool:
        """Whether there is something to draw over it."""
        return bool(self.lines or self.landmarks)


def prepare_image(
    table: LabelTable,
    cache: ImageCache,
    position: int,
    annotations: list[Annotation],
    preprocessing: Preprocessing,
    device_types: DeviceTypes,
    landmarks: Mapping[str, Point] = MappingProxyType({}),
) -> SheetImage:
    """Gather what the sheets show of an image.

    Args:
        table: the label table.
        cache: opened with this table.
        position: the image's row of the table.
        annotations: the image's catheters.
        preprocessing: how the cached image was made.
        device_types: those of the catheters, with their colours.
        landmarks: name -> its place in pixels of the original image.
    """
    entry = cache.entries[position]
    placement = place(entry.box, preprocessing)
    lines = [
        Line(
            label=annotation.label,
            colour=device_types.colour_of(annotation.label),
            points=placement.apply(annotation.points),
            tip=annotation.tip(entry.full_shape),
        )
        for annotation in annotations
    ]
    places = {name: placement.apply(np.array([point]))[0].tolist() for name, point in landmarks.items()}
    font, width = load_font(FONT_SIZE), TILE_WIDTH * (2 if lines or places else 1)
    uid, patient = str(table.uids[position]), str(table.patient_ids[position])
    text = [(shorten_start(uid, font, width), BRIGHT)]
    if patient != uid:
        text.append((shorten_start(f"patient {patient}", font, width), DIM))
    if table.label_columns:
        positives = [table.label_columns[k] for k in np.flatnonzero(table.labels[position] == 1)]
        no_label = "no known positive label" if np.isnan(table.labels[position]).any() else "no positive label"
        text.append((" · ".join(positives), BRIGHT) if positives else (no_label, DIM))
    text += [(note, NOTE_COLOUR) for note in entry.notes.values()]
    return SheetImage(
        position=position,
        pixels=np.array(cache.images[cache.rows[position]]),
        lines=lines,
        landmarks={name: (x, y) for name, (x, y) in places.items()},
        text=text,
    )


def grey_tile(pixels: npt.NDArray[np.uint8]) -> Image.Image:
    """An image (H, W) uint8 as it is, at the size of the sheets."""
    return Image.fromarray(_fit_tile(pixels))


def drawn_tile(
    pixels: npt.NDArray[np.uint8], lines: list[Line], landmarks: Mapping[str, Point] = MappingProxyType({})
) -> Image.Image:
    """The same with catheters drawn over it, and landmarks as crosses with their names, in pixels of the image."""
    height, width = pixels.shape
    drawn = draw_lines(_fit_tile(pixels), lines, (height, width), names=landmarks)
    return draw_lengths(drawn, list(landmarks.values()), [], (height, width))


def _fit_tile(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    height, width = pixels.shape
    return resize(pixels, tile_shape((height, width)))


def legend_of(shown: list[SheetImage], device_types: DeviceTypes) -> dict[str, Colour]:
    """The device types that are drawn, with their colours."""
    labels = {line.label for image in shown for line in image.lines}
    drawn = {device_types.of_label[label] for label in labels if label in device_types.of_label}
    legend = {name: colour for name, colour in device_types.colours.items() if name in drawn}
    if labels - device_types.of_label.keys():
        legend[UNKNOWN_DEVICE_TYPE] = UNKNOWN_COLOUR
    return legend
