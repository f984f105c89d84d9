"""Predicted lines over their X-rays: one at a time, or for many in a second pass after the predictions."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from catheters.data.preprocessing import resize
from catheters.data.spacing import NO_DICOM, read_dicom_spacing
from catheters.errors import counted
from catheters.inference.batch_prediction import Predictions
from catheters.inference.figures import Drawn, Figures, Xray, draw_images
from catheters.inference.inputs import Images
from catheters.inference.interpretation import Findings
from catheters.inference.lines.finding import FoundLines, find_all
from catheters.inference.lines.measuring import TakenMeasurement
from catheters.inference.lines.prediction import device_types_of, with_decoder
from catheters.inference.predictor import Predictor
from catheters.measurements import PixelSpacing
from catheters.viz.layout import BRIGHT, DIM, Cell, Heading, add_legend, tile_shape
from catheters.viz.lengths import LENGTH_COLOUR, draw_lengths
from catheters.viz.lines import Colour, Line, colours_of, draw_lines
from catheters.viz.tiles import NOTE_COLOUR

Pixels = npt.NDArray[np.uint8]

SIDE_OF_SIZE_1 = 600
"""Pixels of the shorter side of an X-ray up to which lines are as thick as on contact sheets."""
NO_LINE = "no line found"


def draw_over(shown: Pixels, found: FoundLines, device_types: Iterable[str], size: float = 1.0) -> Image.Image:
    """What was found over an X-ray: lines, a ring and the label at each tip, landmarks as crosses, lengths dashed.

    Args:
        shown: (h, w) uint8, the X-ray at the size at which it is shown.
        found: in pixels of the original image.
        device_types: all of the models, which decide the colours.
        size: of lines, rings and letters, in those of contact sheets.
    """
    colours = colours_of(device_types)
    drawn = [
        Line(label=line.label, colour=colours[line.device_type], points=line.points, tip=-1) for line in found.lines
    ]
    image = draw_lines(shown, drawn, found.full_shape, size)
    crosses = [(place.x, place.y) for place in found.landmarks.values() if place is not None]
    lengths = [_ends(taken) for taken in found.measurements]
    return draw_lengths(image, crosses, lengths, found.full_shape, size)


def _ends(taken: TakenMeasurement) -> tuple[tuple[float, float], tuple[float, float]]:
    """What is measured, from the first point on: a vertical or horizontal length is no line to the second point."""
    (x, y), (end_x, end_y) = taken.measurement.start, taken.measurement.end
    kind = taken.measurement.definition.kind
    return (x, y), (x if kind == "vertical" else end_x, y if kind == "horizontal" else end_y)


def draw_with_legend(xray: Pixels, found: FoundLines, device_types: Iterable[str]) -> Image.Image:
    """The same over (H, W) the original image, with a strip below that says which colour is which device type's.

    It has the measurements as well. Lines and letters of a large X-ray are larger, since it is looked at as a whole.
    """
    colours, size = colours_of(device_types), max(1.0, min(xray.shape) / SIDE_OF_SIZE_1)
    return add_legend(draw_over(xray, found, colours, size), colours | _legend_of_lengths(found), size)


def _legend_of_lengths(found: FoundLines) -> dict[str, Colour]:
    crosses = [f"{name}: a cross" for name, place in found.landmarks.items() if place is not None]
    return dict.fromkeys([*crosses, *_lengths_in_words(found)], LENGTH_COLOUR)


def _lengths_in_words(found: FoundLines) -> list[str]:
    return [
        taken.measurement.describe() + ("" if taken.label_by_rule is None else f", by rule {taken.label_by_rule}")
        for taken in found.measurements
    ]


def _shape(xray: Pixels) -> tuple[int, int]:
    height, width = xray.shape
    return height, width


def write_line_figures(
    folder: Path,
    predictor: Predictor,
    images: Images,
    predictions: Predictions,
    findings: Findings,
    num_workers: int,
    spacings: Mapping[str, PixelSpacing] | None = None,
    spacing_table: Path | None = None,
) -> tuple[Drawn, dict[int, FoundLines]]:
    """Find the lines of every image that could be predicted, draw each, and a contact sheet of the first of them.

    Args:
        folder: for the figures, one per image; made where it is not there.
        predictor: the models.
        images: n of them.
        predictions: what became of them.
        findings: what they show.
        num_workers: processes that read.
        spacings: uid -> pixel spacing; that of other images is taken from their files, where these are DICOM.
        spacing_table: where these stand, for the doubt about an image that has none; None: there is no table.

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
        spacing = (spacings or {}).get(images.uids[row]) or _spacing_without_row(images.paths[row], spacing_table)
        found[row] = of_image = find_all(predictor, made, probabilities, spacing, _shape(xray))
        return Figures(
            files={name: draw_with_legend(xray, of_image, device_types)},
            cell=_cell(xray, of_image, device_types, images.uids[row], predictions.quality_flags[row]),
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


def _spacing_without_row(file: Path, table: Path | None) -> PixelSpacing:
    """What an image's file says of its spacing; where that is nothing, what the table should have said."""
    spacing = spacing_of_file(file)
    if table is None or spacing.mm is not None:
        return spacing
    unknown = ", so its pixel spacing is not known" if spacing.doubt == NO_DICOM else f"; {spacing.doubt}"
    return PixelSpacing(None, f"{table} has no row for its id{unknown}")


def spacing_of_file(file: Path) -> PixelSpacing:
    """What the header of a DICOM file says, see `read_dicom_spacing`; not known of what cannot be read any more."""
    try:
        return read_dicom_spacing(file)
    except OSError as error:
        return PixelSpacing(None, f"the file cannot be read ({error.strerror}), so its pixel spacing is not known")


def describe_lines(num_checkpoints: int) -> str:
    """What the contact sheet shows, and what may not be concluded from it."""
    return (
        f"Lines and their tips as {counted(num_checkpoints, 'model')} with a line decoder find them: a ring at the "
        "tip, with the label that is likeliest there. Lines may be missing, wrong, or end elsewhere. Research "
        "software, not a medical device: nothing here may decide about a patient."
    )


def _cell(xray: Pixels, found: FoundLines, device_types: Iterable[str], uid: str, quality_flags: Sequence[str]) -> Cell:
    small = resize(xray, tile_shape(_shape(xray)))
    tiles = [Image.fromarray(small).convert("RGB"), draw_over(small, found, device_types)]
    text = [(uid, BRIGHT)] if found.lines else [(uid, BRIGHT), (NO_LINE, DIM)]
    text += [(length, DIM) for length in _lengths_in_words(found)]
    text += [(f"quality flag: {flag}", NOTE_COLOUR) for flag in quality_flags]
    return Cell([tiles], ["X-ray", "lines"], text)
