"""Lengths that a run measured, and the true ones of the same images."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from catheters.data.landmarks import Landmarks
from catheters.errors import listed
from catheters.evaluation.lines.comparison import LineSet
from catheters.evaluation.lines.measurements import Length, LengthSet
from catheters.io.csv_files import check_columns, check_filled, finite_numbers, read_csv
from catheters.labels import tip_name
from catheters.measurements import MeasurementDefinition, PixelSpacing, measure
from catheters.runtime.console import warn

NAME_COLUMN, MM_COLUMN, SHARE_COLUMN, RULE_COLUMN = "measurement", "mm", "share_of_height", "label_by_rule"
POINT_COLUMNS = ("start_x", "start_y", "end_x", "end_y")


@dataclass(frozen=True, kw_only=True)
class MeasurementTables:
    """What was measured, by image id, other images among them.

    Attributes:
        definitions: name -> what is measured.
        predicted: name -> id -> the lengths of the image.
        landmarks: those that people marked; empty where there are none.
    """

    definitions: Mapping[str, MeasurementDefinition]
    predicted: Mapping[str, Mapping[str, Sequence[Length]]]
    landmarks: Landmarks


def read_measurements(
    file: Path, uid_column: str, definitions: Mapping[str, MeasurementDefinition]
) -> dict[str, dict[str, list[Length]]]:
    """Read a `predictions_measurements.csv`, which may have no rows.

    Args:
        file: the CSV.
        uid_column: its id column.
        definitions: name -> what is measured; rows of other names are passed over with a warning.

    Returns:
        Name -> id -> lengths, in the order of the file; every name of the definitions.

    Raises:
        TableError: the file, a column or a value is missing or wrong.
    """
    frame = read_csv(file, may_be_empty=True)
    check_columns(frame, (uid_column, NAME_COLUMN, *POINT_COLUMNS, MM_COLUMN, SHARE_COLUMN, RULE_COLUMN), file)
    check_filled(frame, uid_column, file)
    ends = np.stack([finite_numbers(frame, column, file, "pixels of the X-ray") for column in POINT_COLUMNS], axis=1)
    shares = finite_numbers(frame, SHARE_COLUMN, file, "shares of the image's height").tolist()
    mm = np.full(len(frame), math.nan)
    is_filled = (frame[MM_COLUMN] != "").to_numpy(dtype=np.bool_)
    mm[is_filled] = finite_numbers(frame[is_filled], MM_COLUMN, file, "lengths in mm")
    found: dict[str, dict[str, list[Length]]] = {name: {} for name in definitions}
    rows = zip(
        frame[uid_column], frame[NAME_COLUMN], frame[RULE_COLUMN], ends.tolist(), mm.tolist(), shares, strict=True
    )
    others: dict[str, None] = {}
    for uid, name, label, (start_x, start_y, end_x, end_y), length, share in rows:
        if name not in found:
            others[name] = None
            continue
        found[name].setdefault(uid, []).append(
            Length(start=(start_x, start_y), end=(end_x, end_y), mm=length, share_of_height=share, label_by_rule=label)
        )
    if others:
        warn(f"{file}: measurements that the settings do not have are passed over: {listed(list(others))}")
    return found


def build_length_sets(tables: MeasurementTables, lines: LineSet, uids: Sequence[str]) -> list[LengthSet]:
    """Predicted and true lengths of n images, a set for each measurement.

    Args:
        tables: what was measured, and landmarks.
        lines: drawn lines of the images.
        uids: (n,) theirs.
    """
    points = [_true_points(tables.landmarks.get(uid, {}), lines, row) for row, uid in enumerate(uids)]
    return [
        LengthSet(
            name=name,
            predicted=[tables.predicted[name].get(uid, ()) for uid in uids],
            true=[_true_lengths(definition, of_image, lines, row) for row, of_image in enumerate(points)],
        )
        for name, definition in tables.definitions.items()
    ]


def _true_points(
    landmarks: Mapping[str, tuple[float, float]], lines: LineSet, row: int
) -> dict[str, list[tuple[float, float]]]:
    """Name -> places of an image's landmarks, and tips where it is known which there are."""
    points = {name: [place] for name, place in landmarks.items()}
    for number, device_type in enumerate(lines.device_types):
        if lines.is_known[row, number]:
            tips = [line[-1].tolist() for line in lines.drawn[row].get(device_type, ())]
            points[tip_name(device_type)] = [(x, y) for x, y in tips]
    return points


def _true_lengths(
    definition: MeasurementDefinition, points: Mapping[str, list[tuple[float, float]]], lines: LineSet, row: int
) -> list[Length]:
    height, width = lines.full_shapes[row].tolist()
    if definition.start not in points or definition.end not in points or not height:
        return []
    x, y = lines.mm_per_pixel[row].tolist()
    spacing = None if math.isnan(x) else PixelSpacing((x, y))
    return [
        Length(
            start=start,
            end=end,
            mm=math.nan if measured.mm is None else measured.mm,
            share_of_height=measured.share_of_height,
        )
        for (start, end), measured in zip(
            itertools.product(points[definition.start], points[definition.end]),
            measure(definition, points, spacing, (height, width)),
            strict=True,
        )
    ]
