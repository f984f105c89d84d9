"""What single readers said of the images of a label table, in columns of its own."""

import re
from collections.abc import Sequence
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
    columns = _find_columns(list(frame.columns), labels, pattern)
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


def _find_columns(names: Sequence[str], labels: Sequence[str], pattern: str) -> dict[str, dict[str, str]]:
    """Reader -> label -> column, in the order of the labels and of the columns.

    A name may be read in several ways, since a label may be part of another one: the longest label counts, and a label
    itself is no reader's column.
    """
    found: dict[str, tuple[str, str]] = {}  # column -> label and reader
    for label in sorted(labels, key=len):
        finds_reader = re.compile(_as_regex(pattern, label))
        for name in names:
            match = finds_reader.fullmatch(name)
            if match is not None and name not in labels:
                found[name] = label, match[1]
    columns: dict[str, dict[str, str]] = {}
    for label in labels:
        for name in names:
            if name in found and found[name][0] == label:
                columns.setdefault(found[name][1], {})[label] = name
    return columns


def _as_regex(pattern: str, label: str) -> str:
    before, _, after = pattern.replace("{label}", label).partition("{reader}")
    return f"{re.escape(before)}(.+){re.escape(after)}"
