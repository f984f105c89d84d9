"""Crosses and dashed lines over an image."""

import numpy as np
import pytest
from PIL import Image

from catheters.viz.lengths import CROSS_RADIUS, LENGTH_COLOUR, draw_lengths

GREY = (90, 90, 90)


def is_drawn(drawn: Image.Image) -> np.ndarray:
    return (np.asarray(drawn) == LENGTH_COLOUR).all(axis=2)


def test_a_cross_where_the_landmark_lies() -> None:
    """The image is shown twice as large as it is: (40, 30) is centred on (40 + .5) x 2 - .5 = 80.5 and 60.5."""
    drawn = is_drawn(draw_lengths(Image.new("RGB", (200, 160), GREY), [(40, 30)], [], (80, 100)))
    rows, columns = np.nonzero(drawn)
    assert (rows.min() + rows.max()) / 2 == pytest.approx(60.5, abs=0.6)
    assert (columns.min() + columns.max()) / 2 == pytest.approx(80.5, abs=0.6)
    assert rows.max() - rows.min() == pytest.approx(2 * CROSS_RADIUS, abs=2)
    assert drawn.sum() < 0.5 * (2 * CROSS_RADIUS) ** 2  # two strokes, not a square


def test_a_length_is_dashed_from_end_to_end() -> None:
    drawn = is_drawn(draw_lengths(Image.new("RGB", (200, 160), GREY), [], [((50, 20), (50, 120))], (160, 200)))
    rows = np.flatnonzero(drawn[:, 49:52].any(axis=1))
    assert (rows.min(), rows.max()) == (pytest.approx(20, abs=1), pytest.approx(120, abs=1))
    num_dashes = 1 + int((np.diff(rows) > 1).sum())
    assert 6 <= num_dashes <= 9
    assert not drawn[:, :45].any() and not drawn[:, 55:].any()


def test_nothing_short_and_far_outside() -> None:
    image = Image.new("RGB", (50, 40), GREY)
    assert draw_lengths(image, [], [], (40, 50)) is image
    assert is_drawn(draw_lengths(image, [], [((20, 20), (20, 20))], (40, 50))).any()
    assert not is_drawn(draw_lengths(image, [(1e9, -1e9)], [((-1e9, 5000), (-900, 1e9))], (40, 50))).any()
