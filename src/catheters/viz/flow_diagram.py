"""A flow diagram as studies have it: what there was, what was left out and why, and the parts that remain."""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from catheters.viz.svg import LINE_HEIGHT, RULE, draw_lines, make_canvas, text_width

PADDING = 10
GAP = 26
"""Between boxes below each other."""
SIDE_GAP = 44
PART_GAP = 14
MARGIN = 16
MAX_PARTS_IN_ROW = 5


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A box of the main line.

    Attributes:
        lines: what it says, the first line as its heading.
        left_out: what is lost on the way to the next one, for the box at the side; none where it is empty.
    """

    lines: Sequence[str]
    left_out: Sequence[str] = ()


def draw_flow(stages: Sequence[Stage], parts: Sequence[Sequence[str]]) -> Figure:
    """Draw the stages from top to bottom, each with what is left out after it, and the parts below the last one.

    Args:
        stages: at least one.
        parts: lines of each part that the last stage divides into; may be empty.
    """
    main_width = max(_width(stage.lines) for stage in stages)
    side_width = max((_width(stage.left_out) for stage in stages if stage.left_out), default=0.0)
    rows = [parts[start : start + MAX_PARTS_IN_ROW] for start in range(0, len(parts), MAX_PARTS_IN_ROW)]
    part_width = max(map(_width, parts), default=0.0)
    parts_width = max((len(row) * (part_width + PART_GAP) - PART_GAP for row in rows), default=0.0)
    # The main line stands in the middle of the parts, or at the left where there are none.
    middle = MARGIN + max(main_width, parts_width) / 2
    right = middle + main_width / 2 + (SIDE_GAP + side_width if side_width else 0)
    heights = [_height(stage.lines) for stage in stages]
    gaps = [GAP + max(_height(stage.left_out), 0) if stage.left_out else GAP for stage in stages]
    height = 2 * MARGIN + sum(heights) + sum(gaps[:-1])
    height += sum(GAP + max(map(_height, row)) for row in rows)
    figure, axes = make_canvas(max(right, middle + parts_width / 2) + MARGIN, height)
    top = float(MARGIN)
    for number, (stage, box_height, gap) in enumerate(zip(stages, heights, gaps, strict=True)):
        _box(axes, middle - main_width / 2, top, main_width, stage.lines, "#eaf2fb")
        top += box_height
        if number == len(stages) - 1:
            break
        if stage.left_out:
            side_top = top + GAP / 2
            centre = side_top + _height(stage.left_out) / 2
            side_left = middle + main_width / 2 + SIDE_GAP
            _box(axes, side_left, side_top, side_width, stage.left_out, "#fff4e5")
            _arrow(axes, (middle, centre), (side_left, centre))
        _arrow(axes, (middle, top), (middle, top + gap))
        top += gap
    for row in rows:
        left = middle - (len(row) * (part_width + PART_GAP) - PART_GAP) / 2
        bus = top + GAP / 2
        centres = [left + part_width / 2 + number * (part_width + PART_GAP) for number in range(len(row))]
        axes.plot([middle, middle], [top, bus], color=RULE, linewidth=1.2)
        axes.plot([min(middle, *centres), max(middle, *centres)], [bus, bus], color=RULE, linewidth=1.2)
        for part, centre in zip(row, centres, strict=True):
            _arrow(axes, (centre, bus), (centre, top + GAP))
            _box(axes, left, top + GAP, part_width, part, "#eef7ee")
            left += part_width + PART_GAP
        top += GAP + max(map(_height, row))
    return figure


def _width(lines: Sequence[str]) -> float:
    widths = [text_width(line, is_bold=number == 0) for number, line in enumerate(lines)]
    return max(widths, default=0.0) + 2 * PADDING


def _height(lines: Sequence[str]) -> float:
    return len(lines) * LINE_HEIGHT + 2 * PADDING


def _box(axes: Axes, left: float, top: float, width: float, lines: Sequence[str], colour: str) -> None:
    axes.add_patch(
        FancyBboxPatch(
            (left, top),
            width,
            _height(lines),
            boxstyle="round,pad=0,rounding_size=4",
            facecolor=colour,
            edgecolor=RULE,
            linewidth=1,
        )
    )
    draw_lines(axes, left + PADDING, top + PADDING, lines)


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    axes.annotate(
        "", end, start, arrowprops={"arrowstyle": "-|>", "color": RULE, "linewidth": 1.2, "shrinkA": 0, "shrinkB": 0}
    )
