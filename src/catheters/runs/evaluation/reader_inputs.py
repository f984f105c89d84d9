"""What single readers said of the images of a label table, in columns of its own."""

import re
from pathlib import Path

import numpy as np

from catheters.evaluation.options import READER_COLUMNS
from catheters.evaluation.readers import Readings
from catheters.io.csv_files import TableError, read_label_cells
from catheters.labels import UNKNOWN, LabelValue
from catheters.runs.evaluation.inputs import Input


def read_readings(given: Input, pattern: str) -> Readings | None:
    """The readers' columns of a label table; None where it has none of that name.

    A blank cell is an image that the reader has not read. Further values mean what the setting `label_values` says.

    Args:
        given: predictions beside their label table.
        pattern: the columns' names, with {label} and {reader}.

    Raises:
        TableError: a cell is no label, or none is found by a pattern that is not the usual one.
    """
    frame, file, labels = given.truth.frame, Path(given.truth.source), given.evaluated.labels
    columns: dict[str, dict[str, str]] = {}  # reader -> label -> column
    for label in labels:
        finds_reader = re.compile(_as_regex(pattern, label))
        for column in frame.columns:
            found = finds_reader.fullmatch(column)
            if found is not None:
                columns.setdefault(found[1], {})[label] = column
    if not columns:
        if pattern == READER_COLUMNS:
            return None
        example = pattern.replace("{label}", labels[0]).replace("{reader}", "A")
        raise TableError(f"{file}: has no column as --reader-columns {pattern!r} says, such as {example!r}")
    values: dict[str, LabelValue] = {} if given.settings is None else dict(given.settings.label_values)
    values[""] = UNKNOWN
    readings = np.full((len(columns), len(given.evaluated), len(labels)), np.nan)
    for number, of_reader in enumerate(columns.values()):
        cells = read_label_cells(frame, tuple(of_reader.values()), file, values)[given.rows]
        readings[number][:, [labels.index(label) for label in of_reader]] = cells
    return Readings(readers=tuple(columns), values=readings)


def _as_regex(pattern: str, label: str) -> str:
    before, _, after = pattern.replace("{label}", label).partition("{reader}")
    return f"{re.escape(before)}(.+){re.escape(after)}"
