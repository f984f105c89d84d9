"""Landmarks as crosses and measured lengths as dashed lines, over an X-ray."""

from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image

from catheters.viz.lines import (
    EDGE_WIDTH,
    FIXED_POINT_BITS,
    LINE_WIDTH,
    MARK_COLOUR,
    Colour,
    Point,
    dashes,
    place_points,
)

LENGTH_COLOUR: Colour = MARK_COLOUR
CROSS_RADIUS = 6
"""Pixels."""


def draw_lengths(
    image: Image.Image,
    crosses: Sequence[Point],
    lengths: Sequence[tuple[Point, Point]],
    image_shape: tuple[int, int],
    size: float = 1.0,
) -> Image.Image:
    """Draw crosses and dashed lines over an image.

    Args:
        image: in colours, at the size at which it is shown.
        crosses: x and y of each, in pixels of the original image.
        lengths: from where to where, likewise.
        image_shape: (H, W) of the original image.
        size: of what is drawn, in that of contact sheets.
    """
    if not crosses and not lengths:
        return image
    scale = np.array([image.width / image_shape[1], image.height / image_shape[0]])
    strokes = [(dash[0], dash[-1]) for ends in lengths for dash in dashes(place_points(np.array(ends), scale), size)]
    arms = CROSS_RADIUS * size * np.array([[-1, 0], [1, 0], [0, -1], [0, 1]])
    for cross in crosses:
        left, right, top, bottom = place_points(np.array(cross), scale) + arms
        strokes += [(left, right), (top, bottom)]
    pixels = np.array(image)
    for colour, width in (((0, 0, 0), EDGE_WIDTH), (LENGTH_COLOUR, LINE_WIDTH)):
        for stroke in strokes:
            first, last = (np.round(point * (1 << FIXED_POINT_BITS)).astype(int).tolist() for point in stroke)
            cv2.line(pixels, first, last, colour, max(1, round(width * size)), cv2.LINE_AA, FIXED_POINT_BITS)
    return Image.fromarray(pixels)
