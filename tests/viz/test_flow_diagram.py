"""Boxes of a flow diagram and rows of a table lie on the canvas, apart from each other, and hold their texts."""

import itertools
from xml.etree import ElementTree

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from matplotlib.transforms import Bbox

from catheters.viz.flow_diagram import Stage, draw_flow
from catheters.viz.svg import as_svg
from catheters.viz.table_figure import draw_table

STAGES = [
    Stage(
        lines=["In train.csv", "30,083 images"],
        left_out=["Left out: 3 images", "1  $no$ such file", "2  could not be read"],
    ),
    Stage(lines=["Evaluated, each by a model that has not seen the patient", "30,080 images"]),
]
PARTS = [[f"Fold {number}", "validation: 4,297 images", "  465 patients"] for number in range(7)]


def boxes_of(figure: Figure) -> list[Bbox]:
    FigureCanvasAgg(figure).draw()
    return [patch.get_window_extent() for patch in figure.axes[0].patches if isinstance(patch, FancyBboxPatch)]


def test_boxes_are_apart_and_hold_their_texts() -> None:
    """Seven folds take two rows."""
    figure = draw_flow(STAGES, PARTS)
    boxes = boxes_of(figure)
    assert len(boxes) == 2 + 1 + 7
    for one, other in itertools.combinations(boxes, 2):
        assert not one.overlaps(other)
    width, height = figure.get_size_inches() * figure.dpi
    for box in boxes:
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height
    for text in figure.axes[0].texts:
        if text.get_text():
            extent = text.get_window_extent()
            assert any(box.x0 <= extent.x0 and extent.x1 <= box.x1 and box.y0 <= extent.y0 for box in boxes)


def test_without_folds_and_losses() -> None:
    assert len(boxes_of(draw_flow([STAGES[1]], []))) == 1


def test_text_stays_text_and_the_same_figure_is_the_same_bytes() -> None:
    content = as_svg(draw_flow(STAGES, PARTS))
    assert content == as_svg(draw_flow(STAGES, PARTS))
    tree = ElementTree.fromstring(content)
    texts = ["".join(node.itertext()) for node in tree.iter("{http://www.w3.org/2000/svg}text")]
    assert texts.count("1  $no$ such file") == 1
    assert texts.count("Fold 6") == 1


def test_columns_of_a_table_are_apart() -> None:
    header = ["", "evaluated", "fold 0, validation"]
    rows = [
        ["Images", "30,083", "6,017"],
        ["Label, n (%)", "", ""],
        ["  Swan Ganz Catheter Present", "830 (2.8)", "166 (2.8)"],
    ]
    figure = draw_table(
        "Table 1", header, rows, ["A note that is longer than all of the table above it is, and then some more words."]
    )
    FigureCanvasAgg(figure).draw()
    shown = [text for text in figure.axes[0].texts if text.get_text()]
    extents = {text.get_text(): text.get_window_extent() for text in shown}
    for one, other in itertools.combinations(extents.values(), 2):
        assert not one.overlaps(other)
    assert all(extent.x1 <= figure.get_size_inches()[0] * 72 for extent in extents.values())
    assert extents["Swan Ganz Catheter Present"].x0 > extents["Label, n (%)"].x0  # as it is indented
