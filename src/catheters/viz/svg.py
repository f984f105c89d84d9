"""Figures as SVG: the same bytes for the same figure, with text that stays text."""

import io
from collections.abc import Sequence

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from catheters.viz.text import load_font

FONT_SIZE = 12
LINE_HEIGHT = 17
BOLD = 1.16
"""How much wider bold letters are, at most."""
INDENT = 7.0
"""Points that a blank at the beginning of a line stands for: SVG has none there."""
INK, SOFT, RULE = "#1f2328", "#57606a", "#8c959f"


def as_svg(figure: Figure) -> bytes:
    """The SVG of a figure."""
    FigureCanvasSVG(figure)
    content = io.BytesIO()
    # Text stays text: smaller, and sharp at any size.
    with mpl.rc_context({"svg.fonttype": "none", "font.family": "sans-serif", "svg.hashsalt": "report"}):
        figure.savefig(content, format="svg", metadata={"Date": None})
    return content.getvalue()


def make_canvas(width: float, height: float) -> tuple[Figure, Axes]:
    """An empty white figure whose coordinates are its points, from the top left corner on."""
    figure = Figure(figsize=(width / 72, height / 72), dpi=72)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.axis("off")
    axes.add_patch(Rectangle((0, 0), width, height, facecolor="white", edgecolor="none"))
    return figure, axes


def text_width(text: str, *, is_bold: bool = False) -> float:
    """In points, in the widest of the usual fonts."""
    indent = INDENT * (len(text) - len(text.lstrip()))
    return indent + float(load_font(FONT_SIZE).getlength(text.strip())) * (BOLD if is_bold else 1)


def draw_text(
    axes: Axes, x: float, y: float, text: str, *, align: str = "left", is_bold: bool = False, colour: str = INK
) -> None:
    """A line of text whose middle is at y."""
    axes.text(
        x + INDENT * (len(text) - len(text.lstrip())),
        y,
        text.strip(),
        fontsize=FONT_SIZE,
        color=colour,
        ha=align,
        va="center_baseline",
        fontweight="bold" if is_bold else "normal",
        parse_math=False,
    )


def draw_lines(axes: Axes, x: float, top: float, lines: Sequence[str], *, align: str = "left") -> None:
    """Lines of text one below the other, the first one bold."""
    for number, line in enumerate(lines):
        y = top + (number + 0.5) * LINE_HEIGHT
        draw_text(axes, x, y, line, align=align, is_bold=number == 0, colour=INK if number == 0 else SOFT)
