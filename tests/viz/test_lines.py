"""Catheters drawn over an image, their rings and labels."""

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from catheters.labels import RANZCR_LABELS
from catheters.viz.layout import add_legend
from catheters.viz.lines import (
    DEVICE_TYPE_COLOURS,
    OTHER_COLOURS,
    UNKNOWN_COLOUR,
    DeviceTypes,
    Line,
    colours_of,
    dashes,
    draw_lines,
    free_place,
)
from catheters.viz.text import load_font, shorten_start, wrap


def line_at(points: list[list[float]], label: str = "x", tip: int = -1) -> Line:
    return Line(label, (255, 0, 0), np.array(points, dtype=np.float64), tip)


def is_red(drawn: Image.Image) -> npt.NDArray[np.bool_]:
    pixels = np.array(drawn).astype(int)
    return (pixels[..., 0] - pixels[..., 1] > 60) & (pixels[..., 0] > 150)


def test_a_line_at_the_size_of_the_sheet() -> None:
    """Enlarged three times, row 10 is centred on (10 + .5) * 3 - .5 = 31, column 40 on 121."""
    tile = np.full((150, 300), 255, dtype=np.uint8)
    red = is_red(draw_lines(tile, [line_at([[-20, 10], [40, 10]])], (50, 100)))
    on_line = np.flatnonzero(red[:, 60])
    assert on_line.mean() == pytest.approx(31, abs=0.5)
    assert len(on_line) <= 3
    assert red[31, 0]
    ring = np.flatnonzero(red[:, 121])  # radius 6, cut where its column meets it
    assert (ring.min() + ring.max()) / 2 == pytest.approx(31, abs=0.5)
    assert ring.max() - ring.min() == pytest.approx(12, abs=2)


def test_a_larger_drawing() -> None:
    """Three times the size: as far out as the ring of radius 18, and a line three times as thick."""
    tile = np.full((400, 400), 255, dtype=np.uint8)
    red = is_red(draw_lines(tile, [line_at([[0, 200], [200, 200]], "NGT")], (400, 400), 3.0))
    assert red[:, 60].sum() == pytest.approx(6, abs=1)
    ring = np.flatnonzero(red[:, 200])
    assert ring.max() - ring.min() == pytest.approx(36 + 6, abs=2)
    label = np.argwhere(red[:, 225:])
    assert 20 <= np.ptp(label[:, 0]) <= 40  # letters of 36 pixels


def test_colours_stand_out_of_white_bone() -> None:
    """A black edge lies on both sides of every line."""
    tile = np.full((60, 60), 255, dtype=np.uint8)
    for colour in DEVICE_TYPE_COLOURS.values():
        line = Line("x", colour, np.array([[-10.0, 30.0], [90.0, 30.0]]), -1)
        column = np.array(draw_lines(tile, [line], (60, 60)))[:, 20].astype(int)
        centre = np.abs(column - colour).sum(axis=1).argmin()
        assert abs(centre - 30) <= 1
        assert column[centre - 3 : centre].sum(axis=1).min() < 150
        assert column[centre + 1 : centre + 4].sum(axis=1).min() < 150
        assert (column[:25] == 255).all()


def test_lost_points_leave_a_gap_and_far_ones_do_no_harm() -> None:
    tile = np.full((100, 100), 255, dtype=np.uint8)
    nan = float("nan")
    line = line_at([[5, 50], [30, 50], [nan, nan], [60, 50], [80, 50], [nan, nan]], "NGT - Normal")
    red = is_red(draw_lines(tile, [line], (100, 100)))
    columns = np.flatnonzero(red.any(axis=0))
    assert columns.min() == pytest.approx(5, abs=2)
    assert columns.max() == pytest.approx(80, abs=2)  # the tip got lost: no ring, no label
    assert not red[:, 34:57].any()
    far = line_at([[50, 50], [1e300, -1e300]], "far", tip=0)
    assert is_red(draw_lines(tile, [far, line_at([[nan, nan]])], (100, 100))).any()


def test_a_ring_and_its_label_stay_inside() -> None:
    """A trace that ends a little outside has its ring at the edge; one that ends far outside has none."""
    tile = np.zeros((200, 200), dtype=np.uint8)
    near = is_red(draw_lines(tile, [line_at([[203, 195], [203, 203]], "NGT - Normal")], (200, 200)))
    assert near[180:, 180:].any()
    assert near[:, :180].any()  # the label
    assert not is_red(draw_lines(tile, [line_at([[230, 195], [230, 203]], "NGT - Normal")], (200, 200))).any()


def test_labels_hide_neither_rings_nor_one_another() -> None:
    tips = [(150.0, 100.0), (152.0, 108.0), (148.0, 96.0), (290.0, 100.0), (2.0, 2.0)]
    taken = [(x - 8, y - 8, x + 8, y + 8) for x, y in tips]
    for tip in tips:
        box = free_place(tip, (120, 14), (300, 300), taken)
        for other in taken:
            assert box[2] <= other[0] or other[2] <= box[0] or box[3] <= other[1] or other[3] <= box[1]
        assert box[0] >= 0
        assert box[1] >= 0
        assert box[2] <= 300
        assert box[3] <= 300
        taken.append(box)
    assert free_place((150, 100), (120, 14), (300, 300), [])[0] > 150  # to the right of its tip, where there is room
    assert free_place((290, 100), (120, 14), (300, 300), [(282, 92, 298, 108)])[2] < 290


def test_where_none_is_free_a_label_hides_least() -> None:
    """All is taken twice but for a strip above, which is taken once."""
    taken = [(0.0, 0.0, 300.0, 300.0), (0.0, 60.0, 300.0, 300.0)]
    box = free_place((150, 100), (120, 14), (300, 300), taken)
    assert box[3] <= 60


def test_a_label_keeps_clear_of_a_cross() -> None:
    """It would stand to the right of its ring; a landmark lies there."""
    tile = np.zeros((200, 400), dtype=np.uint8)
    line = line_at([[100, 0], [100, 100]], "CVC - Borderline")
    beside = np.s_[97:110, 120:]
    assert is_red(draw_lines(tile, [line], (200, 400)))[beside].any()
    keeping = is_red(draw_lines(tile, [line], (200, 400), keep_clear=[(125.0, 100.0)]))
    assert not keeping[92:109, 117:134].any()
    assert keeping[:, 120:].any() or keeping[:, :80].any()


def test_lines_that_end_at_one_tip_have_one_label() -> None:
    tile = np.zeros((200, 400), dtype=np.uint8)
    lines = [line_at([[x, 0], [200, 100]], "CVC - Normal") for x in (190, 210)]
    one, both = (is_red(draw_lines(tile, drawn, (200, 400))) for drawn in (lines[:1], lines))
    assert (one == both)[:, 215:].all() and (one == both)[80:, :185].all()
    assert one[90:110, 215:].any()


def test_dashes_follow_a_line_from_end_to_end() -> None:
    """Around a corner at half of 98 pixels: 7 dashes between 6 gaps of 7, of (98 - 42) / 7 each."""
    found = dashes(np.array([[0.0, 0.0], [49.0, 0.0], [49.0, 49.0]]))
    assert len(found) == 7
    lengths = [np.hypot(*np.diff(dash, axis=0).T).sum() for dash in found]
    assert lengths == pytest.approx([8.0] * 7)
    assert found[0][0].tolist() == [0, 0] and found[-1][-1] == pytest.approx(np.array([49, 49]))
    turning = [dash for dash in found if len(dash) == 3]
    assert all(dash[1].tolist() == [49, 0] for dash in turning)
    assert [len(dash) for dash in dashes(np.array([[3.0, 4.0]]))] == [2]  # a point is a dash of no length


def test_device_types_of_labels() -> None:
    """Those of the settings, else RANZCR's, else each label by itself; drawn labels that nobody knows have none."""
    types = DeviceTypes.of({}, RANZCR_LABELS, [])
    assert dict(types.colours) == DEVICE_TYPE_COLOURS
    types = DeviceTypes.of({"tube": ("high", "low")}, ("low", "drain", "high"), ["high", "CVC - Normal", "wire"])
    assert dict(types.of_label) == {"high": "tube", "low": "tube", "drain": "drain", "CVC - Normal": "CVC"}
    assert list(types.colours) == ["tube", "drain", "CVC"]
    assert types.colour_of("high") == types.colour_of("low") == OTHER_COLOURS[0]
    assert types.colour_of("CVC - Normal") == DEVICE_TYPE_COLOURS["CVC"]
    assert types.colour_of("wire") == UNKNOWN_COLOUR
    renamed = DeviceTypes.of({"tube": ("ETT - Normal",)}, ("ETT - Normal",), ["ETT - Normal"])
    assert list(renamed.colours) == ["tube"]


def test_colours_are_easily_told_apart() -> None:
    """Any two of them lie further apart in CIELAB than two blues do, which are 21 apart."""
    colours = [*OTHER_COLOURS, UNKNOWN_COLOUR]
    assert set(DEVICE_TYPE_COLOURS.values()) < set(colours)
    lab = cv2.cvtColor(np.array([colours], dtype=np.float32) / 255, cv2.COLOR_RGB2LAB)[0]
    apart = np.linalg.norm(lab[:, None] - lab, axis=2) + np.diag([np.inf] * len(colours))
    assert apart.min() > 35
    assert len(set(colours_of(["ETT", "a", "b", "CVC", "c", "d", "e"]).values())) == 7
    assert colours_of(map(str, range(8)))["7"] == OTHER_COLOURS[0]  # in turn


def test_colours_of_device_types_by_name() -> None:
    colours = colours_of(["drain", "CVC", "pacemaker"])
    assert list(colours) == ["drain", "CVC", "pacemaker"]
    assert colours["CVC"] == DEVICE_TYPE_COLOURS["CVC"]
    assert [colours["drain"], colours["pacemaker"]] == list(OTHER_COLOURS[:2])


def test_a_legend_below_an_image() -> None:
    """A strip in the colours of the device types, in as many rows as they need; the image above it is unchanged."""
    image = Image.new("RGB", (160, 50), (1, 2, 3))
    legend = colours_of(["ETT", "CVC", "a drain of the chest"])
    framed = np.array(add_legend(image, legend))
    assert framed.shape == (50 + 12 + 2 * 16, 160, 3)
    assert (framed[:50] == (1, 2, 3)).all()
    for colour in legend.values():
        assert (framed[50:] == colour).all(axis=2).any()
    assert add_legend(image, {}).size == (160, 50)
    assert np.array(add_legend(image.resize((480, 150)), legend, 3.0)).shape == (150 + 36 + 2 * 48, 480, 3)


# Text


def test_words_fit() -> None:
    font = load_font(12)
    text = "ETT - Normal · NGT - Incompletely Imaged · Swan Ganz Catheter Present · Lungenödem · Трубка"
    lines = wrap(text, font, 150, 20)
    assert " ".join(lines) == text
    assert max(font.getlength(line) for line in lines) <= 150
    short = wrap(text, font, 150, 2)
    assert len(short) == 2
    assert short[-1].endswith(" ...")
    assert font.getlength(short[-1]) <= 150
    assert "".join(wrap("x" * 100, font, 100, 50)) == "x" * 100
    assert wrap("two\nlines", font, 500, 5) == ["two lines"]
    uid = "1.2.826.0.1.3680043.8.498.26697628953273228189375557799582420561"
    shown = shorten_start(uid, font, 200)
    assert font.getlength(shown) <= 200
    assert uid.endswith(shown.removeprefix("..."))
    assert shorten_start("short", font, 200) == "short"
