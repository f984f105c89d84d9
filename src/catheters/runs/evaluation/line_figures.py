"""X-rays with drawn and predicted lines, for the page of an evaluation."""

import base64
import functools
import io
from collections.abc import Sequence
from pathlib import Path

from catheters.data.decoding.image import UnreadableImage
from catheters.data.decoding.radiograph import read_radiograph
from catheters.data.preprocessing import resize
from catheters.evaluation.lines.comparison import TipCase
from catheters.runtime.host import available_cores
from catheters.runtime.opencv_threads import end_opencv_threads
from catheters.runtime.workers import Failure, map_guarded
from catheters.viz.lines import Colour, Line, draw_lines

FIGURE_SIZE = 420
"""Pixels of the longer side."""
JPEG_QUALITY = 85
DRAWN: Colour = (86, 180, 233)
PREDICTED: Colour = (255, 122, 30)


def draw_cases(paths: tuple[Path, ...], cases: Sequence[TipCase]) -> list[str]:
    """Each case's X-ray with the lines of its device type, as a data URL; empty where the file cannot be read.

    Args:
        paths: (n,) the image files.
        cases: tips that were not found.
    """
    figures = [""] * len(cases)
    for number, outcome in map_guarded(functools.partial(_draw, paths, cases), range(len(cases)), available_cores()):
        figures[number] = "" if isinstance(outcome, Failure) else outcome
    return figures


def _draw(paths: tuple[Path, ...], cases: Sequence[TipCase], number: int) -> str:
    end_opencv_threads()
    case = cases[number]
    try:
        image = read_radiograph(paths[case.row], (FIGURE_SIZE, FIGURE_SIZE)).image
    except UnreadableImage:
        return ""
    height, width = case.full_shape
    scale = FIGURE_SIZE / max(height, width)
    small = resize(image, (max(1, round(scale * height)), max(1, round(scale * width))))
    lines = [
        Line(label=label, colour=colour, points=points, tip=-1)
        for label, colour, polylines in (
            ("drawn", DRAWN, case.drawn_lines),
            ("predicted", PREDICTED, case.predicted_lines),
        )
        for points in polylines
    ]
    content = io.BytesIO()
    draw_lines(small, lines, case.full_shape).save(content, format="JPEG", quality=JPEG_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(content.getvalue()).decode()
