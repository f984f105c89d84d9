"""A table as a figure, with rules above, below its head and at its end, as journals have them."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from catheters.viz.svg import INK, LINE_HEIGHT, RULE, SOFT, draw_text, make_canvas, text_width

MARGIN = 16
COLUMN_GAP = 22
ROW_HEIGHT = LINE_HEIGHT + 3


def draw_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str] = ()) -> Figure:
    """Draw a table.

    Args:
        title: above it.
        header: (C,) of the columns; the first column stands to the left, the others to the right.
        rows: (C,) cells each; a row whose other cells are all empty is a heading of those below it.
        notes: lines below the table.
    """
    cells = [header, *rows]
    widths = [
        max(text_width(row[column], is_bold=row is header or column == 0) for row in cells)
        for column in range(len(header))
    ]
    table_width = sum(widths) + COLUMN_GAP * (len(widths) - 1)
    width = max(table_width, text_width(title, is_bold=True), *(text_width(note) for note in [*notes, ""]))
    height = 2 * MARGIN + ROW_HEIGHT * (len(cells) + 1) + 12 + (LINE_HEIGHT * len(notes) + 6 if notes else 0)
    figure, axes = make_canvas(width + 2 * MARGIN, height)
    draw_text(axes, MARGIN, MARGIN + ROW_HEIGHT / 2, title, is_bold=True)
    top = MARGIN + ROW_HEIGHT + 4

    def rule(y: float, thickness: float) -> None:
        axes.plot([MARGIN, MARGIN + table_width], [y, y], color=RULE, linewidth=thickness, solid_capstyle="butt")

    rule(top, 1.4)
    for number, row in enumerate(cells):
        y = top + 2 + (number + 0.5) * ROW_HEIGHT
        is_head = number == 0
        left = float(MARGIN)
        for column, (cell, column_width) in enumerate(zip(row, widths, strict=True)):
            is_first = column == 0
            x = left if is_first else left + column_width
            is_bold = is_head or (is_first and not any(row[1:]))
            draw_text(axes, x, y, cell, align="left" if is_first else "right", is_bold=is_bold, colour=INK)
            left += column_width + COLUMN_GAP
        if is_head:
            rule(top + 2 + ROW_HEIGHT, 0.9)
    bottom = top + 2 + len(cells) * ROW_HEIGHT + 2
    rule(bottom, 1.4)
    for number, note in enumerate(notes):
        draw_text(axes, MARGIN, bottom + 6 + (number + 0.5) * LINE_HEIGHT, note, colour=SOFT)
    return figure
