"""Predicted lines over their X-rays: one at a time, or for many in a second pass after the predictions."""

import dataclasses
from collections.abc import Collection, Iterable, Mapping, Sequence
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
from catheters.inference.lines.sentences import describe_measurement
from catheters.inference.predictor import Predictor
from catheters.measurements import PixelSpacing
from catheters.viz.layout import BRIGHT, DIM, Cell, Heading, Symbol, add_legend, tile_shape
from catheters.viz.lengths import LENGTH_COLOUR, draw_lengths
from catheters.viz.lines import Colour, Line, Point, colours_of, draw_lines
from catheters.viz.tiles import NOTE_COLOUR

Pixels = npt.NDArray[np.uint8]

SIDE_OF_SIZE_1 = 600
"""Pixels of the shorter side of an X-ray up to which lines are as thick as on contact sheets."""
NO_LINE = "no line found"
NUM_POINTS_KEPT_CLEAR = 25
"""Along a length, where no label goes; an odd number, so that one is the middle."""


def draw_over(
    shown: Pixels,
    found: FoundLines,
    device_types: Iterable[str],
    size: float = 1.0,
    not_predicted: Collection[str] = (),
) -> Image.Image:
    """What was found over an X-ray: lines, a ring and the label at each tip, landmarks as crosses, lengths dashed.

    Several lengths have numbers, in the order of the measurements.

    Args:
        shown: (h, w) uint8, the X-ray at the size at which it is shown.
        found: in pixels of the original image.
        device_types: all of the models, which decide the colours.
        size: of lines, rings and letters, in those of contact sheets.
        not_predicted: device types that are not predicted positive: their lines are dashed, their labels end in "?".
    """
    colours = colours_of(device_types)
    drawn = [
        Line(
            label=f"{line.label} ?" if line.device_type in not_predicted else line.label,
            colour=colours[line.device_type],
            points=line.points,
            tip=-1,
            is_dashed=line.device_type in not_predicted,
        )
        for line in found.lines
    ]
    crosses = [(place.x, place.y) for place in found.landmarks.values() if place is not None]
    lengths = [_ends(taken) for taken in found.measurements]
    along = [np.linspace(*ends, NUM_POINTS_KEPT_CLEAR).tolist() for ends in lengths]
    numbers = {f"{number}": points[NUM_POINTS_KEPT_CLEAR // 2] for number, points in enumerate(along, start=1)}
    keep_clear = [*crosses, *(point for points in along for point in points)]
    names = numbers if len(numbers) > 1 else {}
    image = draw_lines(shown, drawn, found.full_shape, size, names, keep_clear)
    return draw_lengths(image, crosses, lengths, found.full_shape, size)


def _ends(taken: TakenMeasurement) -> tuple[Point, Point]:
    """What is measured, from the first point on: a vertical or horizontal length is no line to the second point."""
    (x, y), (end_x, end_y) = taken.measurement.start, taken.measurement.end
    kind = taken.measurement.definition.kind
    return (x, y), (x if kind == "vertical" else end_x, y if kind == "horizontal" else end_y)


def draw_with_legend(
    xray: Pixels, found: FoundLines, device_types: Iterable[str], not_predicted: Collection[str] = ()
) -> Image.Image:
    """The same over (H, W) the original image, with a strip below that says which colour is which device type's.

    It has what is drawn, and the measurements. Lines and letters of a large X-ray are larger, since it is looked at as
    a whole.
    """
    colours, size = colours_of(device_types), max(1.0, min(xray.shape) / SIDE_OF_SIZE_1)
    legend: dict[str, Colour] = {}
    symbols: dict[str, Symbol] = {}
    for device_type in drawn_types([found], colours):
        is_sure = device_type not in not_predicted
        name = device_type if is_sure else f"{device_type} (not predicted)"
        legend[name], symbols[name] = colours[device_type], "line" if is_sure else "dashed"
    for landmark, place in found.landmarks.items():
        if place is not None:
            legend[landmark], symbols[landmark] = LENGTH_COLOUR, "cross"
    for words in _lengths_in_words(found, not_predicted):
        legend[words], symbols[words] = LENGTH_COLOUR, "dashed"
    return add_legend(draw_over(xray, found, colours, size, not_predicted), legend, size, symbols)


def drawn_types(found: Iterable[FoundLines], device_types: Iterable[str]) -> list[str]:
    """Those of the device types that have a line in an image."""
    drawn = {line.device_type for of_image in found for line in of_image.lines}
    return [device_type for device_type in device_types if device_type in drawn]


def _lengths_in_words(found: FoundLines, not_predicted: Collection[str]) -> list[str]:
    """Each length, with its number where there are several."""
    words = [describe_measurement(dataclasses.replace(taken, doubt=""), not_predicted) for taken in found.measurements]
    return [f"{number}: {text}" for number, text in enumerate(words, start=1)] if len(words) > 1 else words


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
    colours = colours_of(device_types)
    rows = np.flatnonzero(predictions.is_read).tolist()
    found: dict[int, FoundLines] = {}

    def draw(row: int, name: str, read: Xray) -> Figures:
        xray, made = read
        probabilities = dict(zip(findings.labels, findings.probabilities[row].tolist(), strict=True))
        spacing = (spacings or {}).get(images.uids[row]) or _spacing_without_row(images.paths[row], spacing_table)
        found[row] = of_image = find_all(predictor, made, probabilities, spacing, _shape(xray))
        unsure = findings.not_predicted(row)
        return Figures(
            files={name: draw_with_legend(xray, of_image, device_types, unsure)},
            cell=_cell(xray, of_image, device_types, unsure, images.uids[row], predictions.quality_flags[row]),
        )

    def describe(num_shown: int) -> Heading:
        return Heading(
            title=f"{num_shown} of {counted(len(rows), 'image')} with the lines that the models see",
            subtitle=describe_lines(len(with_decoder(predictor.models))),
            legend={name: colours[name] for name in drawn_types(found.values(), device_types)},
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
        "tip, with the label that is likeliest there. Dashed, with a question mark: lines of a device type that is not "
        "predicted positive. Lines may be missing, wrong, or end elsewhere. Research "
        "software, not a medical device: nothing here may decide about a patient."
    )


def _cell(
    xray: Pixels,
    found: FoundLines,
    device_types: Iterable[str],
    not_predicted: Collection[str],
    uid: str,
    quality_flags: Sequence[str],
) -> Cell:
    small = resize(xray, tile_shape(_shape(xray)))
    tiles = [Image.fromarray(small).convert("RGB"), draw_over(small, found, device_types, not_predicted=not_predicted)]
    text = [(uid, BRIGHT)] if found.lines else [(uid, BRIGHT), (NO_LINE, DIM)]
    text += [(length, DIM) for length in _lengths_in_words(found, not_predicted)]
    text += [(f"quality flag: {flag}", NOTE_COLOUR) for flag in quality_flags]
    return Cell([tiles], ["X-ray", "lines"], text)
