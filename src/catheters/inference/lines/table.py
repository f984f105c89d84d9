"""`predictions_lines.csv`: predicted lines, laid out as an annotation table with further columns."""

import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from catheters.data.annotations import LABEL_COLUMN, POINTS_COLUMN
from catheters.inference.lines.prediction import PredictedLine
from catheters.io.files import write_whole

FILE_NAME = "predictions_lines.csv"
"""Of a run, out of fold; predict.py's is named after its predictions."""


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
