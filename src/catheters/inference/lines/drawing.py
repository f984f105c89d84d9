"""Predicted lines over their X-rays: one at a time, or for many in a second pass after the predictions."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from catheters.data.preprocessing import resize
from catheters.errors import counted
from catheters.inference.batch_prediction import Predictions
from catheters.inference.figures import Drawn, Figures, Xray, draw_images
from catheters.inference.inputs import Images
from catheters.inference.interpretation import Findings
from catheters.inference.lines.prediction import PredictedLine, device_types_of, predict_lines, with_decoder
from catheters.inference.predictor import Predictor
from catheters.viz.layout import BRIGHT, DIM, Cell, Heading, add_legend, tile_shape
from catheters.viz.lines import Line, colours_of, draw_lines
from catheters.viz.tiles import NOTE_COLOUR

Pixels = npt.NDArray[np.uint8]

SIDE_OF_SIZE_1 = 600
"""Pixels of the shorter side of an X-ray up to which lines are as thick as on contact sheets."""
NO_LINE = "no line found"


@dataclass(frozen=True, kw_only=True)
class FoundLines:
    """What was found in one image.

    Attributes:
        lines: its lines.
        full_shape: (H, W) of the original image, in pixels.
    """

    lines: tuple[PredictedLine, ...]
    full_shape: tuple[int, int]

    def tip_shares(self) -> dict[str, list[tuple[float, float]]]:
        """Device type -> the tips of its lines, x and y as shares of the image's width and height.

        0 and 1 are the edges; a tip outside lies at one of them.
        """
        height, width = self.full_shape
        shares: dict[str, list[tuple[float, float]]] = {}
        for line in self.lines:
            x, y = np.clip((np.array(line.tip) + 0.5) / (width, height), 0, 1).tolist()
            shares.setdefault(line.device_type, []).append((x, y))
        return shares


def draw_over(
    shown: Pixels,
    lines: Iterable[PredictedLine],
    device_types: Iterable[str],
    full_shape: tuple[int, int],
    size: float = 1.0,
) -> Image.Image:
    """The lines over an X-ray, a ring and the label at each tip.

    Args:
        shown: (h, w) uint8, the X-ray at the size at which it is shown.
        lines: in pixels of the original image.
        device_types: all of the models, which decide the colours.
        full_shape: (H, W) of the original image.
        size: of lines, rings and letters, in those of contact sheets.
    """
    colours = colours_of(device_types)
    drawn = [Line(label=line.label, colour=colours[line.device_type], points=line.points, tip=-1) for line in lines]
    return draw_lines(shown, drawn, full_shape, size)


def draw_with_legend(xray: Pixels, lines: Iterable[PredictedLine], device_types: Iterable[str]) -> Image.Image:
    """The same over (H, W) the original image, with a strip below that says which colour is which device type's.

    Lines and letters of a large X-ray are larger, since it is looked at as a whole.
    """
    colours, size = colours_of(device_types), max(1.0, min(xray.shape) / SIDE_OF_SIZE_1)
    return add_legend(draw_over(xray, lines, colours, _shape(xray), size), colours, size)


def _shape(xray: Pixels) -> tuple[int, int]:
    height, width = xray.shape
    return height, width


def write_line_figures(
    folder: Path, predictor: Predictor, images: Images, predictions: Predictions, findings: Findings, num_workers: int
) -> tuple[Drawn, dict[int, FoundLines]]:
    """Find the lines of every image that could be predicted, draw each, and a contact sheet of the first of them.

    Args:
        folder: for the figures, one per image; made where it is not there.
        predictor: the models.
        images: n of them.
        predictions: what became of them.
        findings: what they show.
        num_workers: processes that read.

    Returns:
        What was drawn; and row -> what was found.

    Raises:
        UserError: no checkpoint has a line decoder.
    """
    device_types = tuple(device_types_of(predictor.models))
    rows = np.flatnonzero(predictions.is_read).tolist()
    found: dict[int, FoundLines] = {}

    def draw(row: int, name: str, read: Xray) -> Figures:
        xray, made = read
        probabilities = dict(zip(findings.labels, findings.probabilities[row].tolist(), strict=True))
        lines = predict_lines(predictor, made, probabilities)
        found[row] = FoundLines(lines=lines, full_shape=_shape(xray))
        return Figures(
            files={name: draw_with_legend(xray, lines, device_types)},
            cell=_cell(xray, lines, device_types, images.uids[row], predictions.quality_flags[row]),
        )

    def describe(num_shown: int) -> Heading:
        return Heading(
            title=f"{num_shown} of {counted(len(rows), 'image')} with the lines that the models see",
            subtitle=describe_lines(len(with_decoder(predictor.models))),
            legend=colours_of(device_types),
        )

    drawn = draw_images(
        folder,
        images,
        rows,
        predictor.preprocessings,
        draw,
        describe,
        doing="finding lines",
        num_workers=num_workers,
    )
    return drawn, found


def describe_lines(num_checkpoints: int) -> str:
    """What the contact sheet shows, and what may not be concluded from it."""
    return (
        f"Lines and their tips as {counted(num_checkpoints, 'model')} with a line decoder find them: a ring at the "
        "tip, with the label that is likeliest there. Lines may be missing, wrong, or end elsewhere. Research "
        "software, not a medical device: nothing here may decide about a patient."
    )


def _cell(
    xray: Pixels, lines: Sequence[PredictedLine], device_types: Iterable[str], uid: str, quality_flags: Sequence[str]
) -> Cell:
    small = resize(xray, tile_shape(_shape(xray)))
    tiles = [Image.fromarray(small).convert("RGB"), draw_over(small, lines, device_types, _shape(xray))]
    text = [(uid, BRIGHT)] if lines else [(uid, BRIGHT), (NO_LINE, DIM)]
    text += [(f"quality flag: {flag}", NOTE_COLOUR) for flag in quality_flags]
    return Cell([tiles], ["X-ray", "lines"], text)
