"""A contact sheet: cells of one or more images with text under them, laid out in columns under a heading."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from PIL import Image, ImageDraw

from catheters.viz.lines import FONT_SIZE, Colour, Point
from catheters.viz.text import load_font, wrap

TILE_WIDTH = 300
MAX_TILE_HEIGHT = 400
NUM_COLUMNS = 6
MIN_COLUMNS = 3
"""A sheet of fewer images is as wide all the same, so that its heading fits."""
GAP = 12
LINE_HEIGHT = 16
TITLE_SIZE = 18
MAX_TEXT_LINES = 6
MAX_TITLE_LINES = 4

BACKGROUND: Colour = (24, 24, 24)
BRIGHT: Colour = (235, 235, 235)
DIM: Colour = (160, 160, 160)


Symbol = Literal["line", "dashed", "cross"]
SYMBOLS: dict[Symbol, list[tuple[Point, Point]]] = {
    "line": [((0, 0), (18, 0))],
    "dashed": [((0, 0), (4, 0)), ((7, 0), (11, 0)), ((14, 0), (18, 0))],
    "cross": [((4, 0), (14, 0)), ((9, -5), (9, 5))],
}
"""What stands before a name in a legend: its strokes, in pixels from its left and its middle."""
LegendItem = tuple[int, str, Colour, Symbol]
"""x, the name, its colour and its symbol."""


@dataclass(frozen=True)
class Cell:
    """Images that belong together.

    Attributes:
        tiles: rows of images, all rows as many.
        captions: a short text above each column; none where empty.
        text: (text, colour) under the images, each on lines of its own.
    """

    tiles: list[list[Image.Image]]
    captions: list[str]
    text: list[tuple[str, Colour]]

    @property
    def num_columns(self) -> int:
        """How many columns of the sheet it takes."""
        return len(self.tiles[0])


@dataclass(frozen=True)
class Heading:
    """What stands above the cells.

    Attributes:
        title: what the sheet shows.
        subtitle: what else has to be known.
        legend: device type -> its colour.
    """

    title: str
    subtitle: str
    legend: dict[str, Colour]


def tile_shape(image_shape: tuple[int, int]) -> tuple[int, int]:
    """(height, width) at which images of that shape are shown."""
    height, width = image_shape
    scale = min(TILE_WIDTH / width, MAX_TILE_HEIGHT / height)
    return max(round(height * scale), 1), max(round(width * scale), 1)


def make_sheet(heading: Heading, cells: list[Cell]) -> Image.Image:
    """Lay out cells from left to right, then downwards, at most `NUM_COLUMNS` columns of images wide."""
    rows = _fill_rows(cells)
    num_columns = max(MIN_COLUMNS, *(sum(cell.num_columns for cell in row) for row in rows))
    width = _width(num_columns) + 2 * GAP
    title = wrap(heading.title, load_font(TITLE_SIZE), width - 2 * GAP, MAX_TITLE_LINES)
    subtitle = wrap(heading.subtitle, load_font(FONT_SIZE), width - 2 * GAP, MAX_TITLE_LINES)
    legend = _legend_rows(heading.legend, width)
    heading_height = GAP + len(title) * (TITLE_SIZE + 6) + (len(subtitle) + len(legend)) * LINE_HEIGHT + GAP
    heights = [max(_height(cell) for cell in row) for row in rows]
    sheet = Image.new("RGB", (width, heading_height + sum(heights) + 2 * GAP * len(rows)), BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    y = GAP
    for line in title:
        draw.text((GAP, y), line, BRIGHT, load_font(TITLE_SIZE))
        y += TITLE_SIZE + 6
    for line in subtitle:
        draw.text((GAP, y), line, DIM, load_font(FONT_SIZE))
        y += LINE_HEIGHT
    for items in legend:
        _draw_legend_row(draw, items, y)
        y += LINE_HEIGHT
    y += GAP
    for row, height in zip(rows, heights, strict=True):
        x = GAP
        for cell in row:
            _draw_cell(sheet, cell, x, y)
            x += _width(cell.num_columns) + GAP
        y += height + 2 * GAP
    return sheet


def add_legend(
    image: Image.Image,
    legend: Mapping[str, Colour],
    size: float = 1.0,
    symbols: Mapping[str, Symbol] = MappingProxyType({}),
) -> Image.Image:
    """The image with a strip below it that says whose colours are whose; without any it stays as it is.

    Args:
        image: in colours.
        legend: name, such as a device type -> its colour.
        size: of the letters, in those of contact sheets.
        symbols: name -> what stands before it; a line where nothing else is said.
    """
    rows = _legend_rows(legend, image.width, size, symbols)
    if not rows:
        return image
    margin, line_height = round(GAP * size / 2), round(LINE_HEIGHT * size)
    strip_height = len(rows) * line_height + 2 * margin
    framed = Image.new("RGB", (image.width, image.height + strip_height), BACKGROUND)
    framed.paste(image, (0, 0))
    draw = ImageDraw.Draw(framed)
    for number, items in enumerate(rows):
        _draw_legend_row(draw, items, image.height + margin + number * line_height, size)
    return framed


def _fill_rows(cells: list[Cell]) -> list[list[Cell]]:
    rows: list[list[Cell]] = [[]]
    for cell in cells:
        if sum(other.num_columns for other in rows[-1]) + cell.num_columns > NUM_COLUMNS:
            rows.append([])
        rows[-1].append(cell)
    return rows


def _width(num_columns: int) -> int:
    return num_columns * TILE_WIDTH + (num_columns - 1) * GAP


def _legend_rows(
    legend: Mapping[str, Colour],
    width: int,
    size: float = 1.0,
    symbols: Mapping[str, Symbol] = MappingProxyType({}),
) -> list[list[LegendItem]]:
    """Of what stands in the legend; a new row where the sheet ends."""
    rows: list[list[LegendItem]] = []
    font, x = load_font(round(FONT_SIZE * size)), width
    around = (24 + 2 * GAP) * size
    longest = max(TILE_WIDTH * size, min(width, 2 * TILE_WIDTH * size) - around)
    for device_type, colour in legend.items():
        name = wrap(device_type, font, longest, max_lines=1)[0]
        item_width = round(around + font.getlength(name))
        if x + item_width > width:
            rows.append([])
            x = round(GAP * size)
        rows[-1].append((x, name, colour, symbols.get(device_type, "line")))
        x += item_width
    return rows


def _draw_legend_row(draw: ImageDraw.ImageDraw, items: list[LegendItem], top: int, size: float = 1) -> None:
    for x, name, colour, symbol in items:
        for start, end in SYMBOLS[symbol]:
            ends = [(x + size * across, top + size * (8 + down)) for across, down in (start, end)]
            draw.line(ends, colour, round((3 if symbol == "line" else 2) * size))
        draw.text((x + 24 * size, top), name, colour, load_font(round(FONT_SIZE * size)))


def _text_lines(cell: Cell) -> list[tuple[str, Colour]]:
    width = _width(cell.num_columns)
    return [
        (line, colour) for text, colour in cell.text for line in wrap(text, load_font(FONT_SIZE), width, MAX_TEXT_LINES)
    ]


def _height(cell: Cell) -> int:
    tiles_height = sum(row[0].height for row in cell.tiles) + 4 * len(cell.tiles)
    return bool(cell.captions) * LINE_HEIGHT + tiles_height + len(_text_lines(cell)) * LINE_HEIGHT


def _draw_cell(sheet: Image.Image, cell: Cell, left: int, top: int) -> None:
    draw = ImageDraw.Draw(sheet)
    y = top
    for column, caption in enumerate(cell.captions):
        draw.text((left + column * (TILE_WIDTH + GAP), y), caption, DIM, load_font(FONT_SIZE))
    y += bool(cell.captions) * LINE_HEIGHT
    for row in cell.tiles:
        for column, tile in enumerate(row):
            sheet.paste(tile, (left + column * (TILE_WIDTH + GAP), y))
        y += row[0].height + 4
    for line, colour in _text_lines(cell):
        draw.text((left, y), line, colour, load_font(FONT_SIZE))
        y += LINE_HEIGHT
