"""Tables of predicted lines, laid out as annotation tables with further columns, and of what was measured between their
tips and landmarks."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from catheters.data.annotations import LABEL_COLUMN, POINTS_COLUMN
from catheters.inference.lines.measuring import TakenMeasurement
from catheters.inference.lines.prediction import PredictedLine
from catheters.io.files import write_whole

WRITTEN_HERE = ("tip_probability", "share_of_height")
"""Columns that tables of lines and of measurements have from here alone."""


def remove_tables(files: Iterable[Path]) -> None:
    """Remove those that `write_lines` and `write_measurements` wrote.

    Other files of these names stay, such as somebody's own annotation table.
    """
    for file in files:
        if file.is_file():
            with file.open(encoding="utf-8", errors="replace") as content:
                header = content.readline().strip().split(",")
            if not set(WRITTEN_HERE).isdisjoint(header):
                file.unlink()


def write_lines(file: Path, uid_column: str, found: Sequence[tuple[str, PredictedLine]]) -> None:
    """Write one row per line; `read_annotations` reads it. The file is whole or absent.

    Args:
        file: the CSV.
        uid_column: name of the id column.
        found: the id of each line's image, and the line; an image without any has no row.
    """
    tips = [line.tip for _, line in found]
    columns = {
        uid_column: [uid for uid, _ in found],
        LABEL_COLUMN: [line.label for _, line in found],
        POINTS_COLUMN: [json.dumps(line.points.round(1).tolist()) for _, line in found],
        "device_type": [line.device_type for _, line in found],
        "tip_x": [round(x, 1) for x, _ in tips],
        "tip_y": [round(y, 1) for _, y in tips],
        "confidence": [round(line.confidence, 4) for _, line in found],
        "tip_probability": [round(line.tip_probability, 4) for _, line in found],
        "length": [round(line.length, 1) for _, line in found],
    }
    frame = pd.DataFrame(columns)
    write_whole(file, lambda part: frame.to_csv(part, index=False))


def write_measurements(file: Path, uid_column: str, taken: Sequence[tuple[str, TakenMeasurement]]) -> None:
    """Write one row per measurement and pair of points. The file is whole or absent.

    Args:
        file: the CSV.
        uid_column: name of the id column.
        taken: the id of each measurement's image, and the measurement; an image without any has no row.
    """
    lengths = [each.measurement for _, each in taken]
    columns = {
        uid_column: [uid for uid, _ in taken],
        "measurement": [each.name for _, each in taken],
        "start_x": [round(length.start[0], 2) for length in lengths],
        "start_y": [round(length.start[1], 2) for length in lengths],
        "end_x": [round(length.end[0], 2) for length in lengths],
        "end_y": [round(length.end[1], 2) for length in lengths],
        "pixels": [round(length.pixels, 2) for length in lengths],
        "mm": ["" if length.mm is None else round(length.mm, 2) for length in lengths],
        "share_of_height": [round(length.share_of_height, 5) for length in lengths],
        "label_by_rule": [each.label_by_rule or "" for _, each in taken],
        "doubt": [each.doubt for _, each in taken],
    }
    frame = pd.DataFrame(columns)
    write_whole(file, lambda part: frame.to_csv(part, index=False))
