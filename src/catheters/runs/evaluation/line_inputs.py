"""Predicted and drawn lines of the images that `evaluate.py` evaluates."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from catheters.config.settings import Settings
from catheters.data.annotations import Annotation, check_annotations, read_annotations
from catheters.data.cache.index import CacheError, read_index
from catheters.data.decoding.image import UnreadableImage
from catheters.data.decoding.radiograph import decode_radiograph, read_file
from catheters.data.line_targets import find_known
from catheters.data.point_checks import check_any_image
from catheters.data.tables.label_table import fill_in_paths
from catheters.errors import UserError, counted
from catheters.evaluation.lines.comparison import LineSet, Polylines
from catheters.evaluation.prediction_set import PredictionSet
from catheters.io.path_pattern import check_path_pattern
from catheters.measurements import PixelSpacing, plausible
from catheters.runs.evaluation.measurement_inputs import MeasurementTables
from catheters.runtime.console import warn
from catheters.runtime.host import available_cores
from catheters.runtime.workers import Failure, map_guarded

Shape = tuple[int, int]
NO_SHAPE: Shape = (0, 0)
ENOUGH_FOR_SHAPE: Shape = (8, 8)
"""Pixels that a JPEG is decoded to where only its size is asked for."""


@dataclass(frozen=True, kw_only=True)
class LineTables:
    """Lines of images, by image id, those of other images among them.

    Attributes:
        file: the predicted lines.
        source: the drawn ones.
        predicted: id -> lines, from the entry to the tip.
        drawn: id -> lines, from either end.
        full_shapes: id -> (H, W) of the original image in pixels; (0, 0) or none where it is not known.
        spacings: id -> pixel spacing; empty where there is none.
        measurements: lengths; None where none was measured.
    """

    file: Path
    source: Path
    predicted: Mapping[str, Sequence[Annotation]]
    drawn: Mapping[str, Sequence[Annotation]]
    full_shapes: Mapping[str, Shape]
    spacings: Mapping[str, PixelSpacing]
    measurements: MeasurementTables | None = None


def read_line_tables(
    file: Path,
    source: Path,
    uid_column: str,
    labels: tuple[str, ...],
    heads: Mapping[str, tuple[str, ...]],
    uids: Sequence[str],
    full_shapes: Mapping[str, Shape],
    spacings: Mapping[str, PixelSpacing],
    measurements: MeasurementTables | None,
) -> LineTables:
    """Read predicted and drawn lines; what is odd about the drawn ones is said.

    Args:
        file: the predicted lines, which may be none.
        source: the annotation table.
        uid_column: the id column of both.
        labels: those that are predicted.
        heads: device type -> its labels.
        uids: the ids of the label table.
        full_shapes: id -> (H, W) of the original image in pixels.
        spacings: id -> pixel spacing.
        measurements: lengths, where some were measured.

    Raises:
        TableError: a file, a column or a value is missing or wrong.
    """
    predicted = read_annotations(file, uid_column, may_be_empty=True)
    drawn = read_annotations(source, uid_column)
    check_any_image(drawn, uids, str(source))
    for text in check_annotations(drawn, labels, heads, uids, full_shapes, str(source)):
        warn(text)
    return LineTables(
        file=file,
        source=source,
        predicted=predicted,
        drawn={uid: _once_each(of_image) for uid, of_image in drawn.items()},
        full_shapes=full_shapes,
        spacings=spacings,
        measurements=measurements,
    )


def _once_each(lines: Sequence[Annotation]) -> list[Annotation]:
    """The lines without those that stand there twice: a predicted one is paired with one of them only."""
    return list({(line.label, line.points.tobytes()): line for line in lines}.values())


def shapes_of_run(settings: Settings, uids: Sequence[str], paths: Sequence[Path] | None) -> dict[str, Shape]:
    """Sizes of original images: as the run's cache has them, or else as their files do.

    Args:
        settings: of the run.
        uids: (n,) of the images.
        paths: (n,) of the files; None: they are not known.

    Returns:
        Id -> (H, W) in pixels, (0, 0) for a file that cannot be read; empty where nothing is known.
    """
    try:
        return {row.uid: row.full_shape for row in read_index(settings.cache_file).rows}
    except CacheError as error:
        if paths is None:
            warn(f"{error.found}: the sizes of the X-rays are not known, so no lines are compared")
            return {}
    return shapes_of_files(uids, tuple(paths))


def paths_of_table(frame: pd.DataFrame, path_pattern: str, uid_column: str, file: Path) -> tuple[Path, ...]:
    """The image files of a label table's rows.

    Args:
        frame: the rows.
        path_pattern: of the files, relative to the table or to the folder above it.
        uid_column: the id column.
        file: the table.

    Raises:
        UserError: none of the files is there, or the pattern is none.
    """
    try:
        check_path_pattern(path_pattern)
    except ValueError as error:
        raise UserError(f"--images {path_pattern}: {error}") from None
    for folder in (file.parent, file.absolute().parent.parent):
        paths = fill_in_paths(frame, path_pattern, uid_column, folder, file)
        if any(path.exists() for path in paths):
            return paths
    raise UserError(
        f"--images {path_pattern}: none of the images is there, {paths[0]} for one; a pattern relative to {file} or to "
        "the folder above is expected, as in 'test/{uid}.jpg'"
    )


def shapes_of_files(uids: Sequence[str], paths: tuple[Path, ...]) -> dict[str, Shape]:
    """Id -> (H, W) of the original image in pixels; (0, 0) for a file that cannot be read."""
    outcomes = map_guarded(functools.partial(_shape, paths), range(len(paths)), available_cores())
    return {uids[row]: NO_SHAPE if isinstance(outcome, Failure) else outcome for row, outcome in outcomes}


def _shape(paths: tuple[Path, ...], row: int) -> Shape:
    try:
        return decode_radiograph(read_file(paths[row]), ENOUGH_FOR_SHAPE).full_shape
    except UnreadableImage:
        return NO_SHAPE


def build_line_set(tables: LineTables, evaluated: PredictionSet, heads: Mapping[str, tuple[str, ...]]) -> LineSet:
    """The lines of the images that are evaluated, in their order.

    Args:
        tables: the lines.
        evaluated: predictions and labels of n images.
        heads: device type -> its labels.
    """
    uids = evaluated.uids.tolist()
    shapes = [tables.full_shapes.get(uid, NO_SHAPE) for uid in uids]
    has_shape = np.array([all(shape) for shape in shapes], dtype=np.bool_)
    if not has_shape.all():
        first, images = uids[has_shape.argmin()], counted(int((~has_shape).sum()), "image")
        warn(f"the size of {images} is not known, {first} for one: nothing is known of their lines")
    is_drawn = np.zeros(evaluated.targets.shape, dtype=np.bool_)
    column_of = {label: column for column, label in enumerate(evaluated.labels)}
    for row, uid in enumerate(uids):
        for line in tables.drawn.get(uid, ()):
            if line.label in column_of:
                is_drawn[row, column_of[line.label]] = True
    is_known = find_known(evaluated.targets, is_drawn, evaluated.labels, heads) & has_shape[:, None]
    spacings = [plausible(tables.spacings.get(uid), shape) for uid, shape in zip(uids, shapes, strict=True)]
    return LineSet(
        device_types=tuple(heads),
        predicted=[_polylines(tables.predicted.get(uid, ()), heads, None) for uid in uids],
        drawn=[
            _polylines(tables.drawn.get(uid, ()), heads, shape) if all(shape) else {}
            for uid, shape in zip(uids, shapes, strict=True)
        ],
        is_known=is_known,
        full_shapes=np.array(shapes, dtype=np.int64).reshape(-1, 2),
        mm_per_pixel=np.array(
            [(np.nan, np.nan) if spacing is None or spacing.mm is None else spacing.mm for spacing in spacings]
        ).reshape(-1, 2),
    )


def _polylines(
    lines: Sequence[Annotation], heads: Mapping[str, tuple[str, ...]], full_shape: Shape | None
) -> Polylines:
    """Device type -> its lines from the entry to the tip, those of other labels left out.

    Args:
        lines: of an image.
        heads: device type -> its labels.
        full_shape: (H, W) of the image, by which the tip is found; None: the tip is the last point.
    """
    type_of = {label: name for name, labels in heads.items() for label in labels}
    found: dict[str, list[np.ndarray]] = {}
    for line in lines:
        if line.label in type_of:
            points = line.points if full_shape is None else line.towards_tip(full_shape)
            found.setdefault(type_of[line.label], []).append(points)
    return found
