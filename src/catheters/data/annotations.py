"""Drawn catheters: the polylines that people traced along them."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from catheters.data.point_checks import check_image_ids, check_inside
from catheters.errors import counted, listed, unknown_name
from catheters.io.csv_files import MAX_SHOWN, TableError, check_columns, check_filled, line_number, read_csv
from catheters.io.files import parse_json

LABEL_COLUMN, POINTS_COLUMN = "label", "data"


@dataclass(frozen=True)
class Annotation:
    """A catheter as somebody traced it.

    Attributes:
        label: its label.
        points: (n, 2) float64, n at least 1: x and y in pixels of the original image as shown, some of them a little
            outside.
    """

    label: str
    points: npt.NDArray[np.float64]

    def tip(self, full_shape: tuple[int, int]) -> Literal[0, -1]:
        """Which end of `points` is the tip, see `tip_end`.

        Args:
            full_shape: (H, W) of the original image, in pixels.
        """
        return tip_end(self.points, full_shape)

    def towards_tip(self, full_shape: tuple[int, int]) -> npt.NDArray[np.float64]:
        """(n, 2) `points` from the entry to the tip, see `tip`."""
        return self.points if self.tip(full_shape) == -1 else self.points[::-1]


def tip_end(points: npt.NDArray[np.float64], shape: tuple[int, int]) -> Literal[0, -1]:
    """Which end of a catheter is its tip: the first point, or the last.

    RANZCR's polylines run both ways: the first image of `train_annotations.csv` has one catheter traced from the tip
    upwards, the other from the neck downwards. But all catheters come in from the side or from above. So the tip is the
    end that lies farther from the left, right and upper edge; where neither does, it is the last.

    Args:
        points: (n, 2) x and y in pixels, n at least 1.
        shape: (H, W) of the image that they lie in, in pixels.
    """
    first, last = (distance_from_entries(point, shape) for point in (points[0], points[-1]))
    return 0 if first > last else -1


def distance_from_entries(point: npt.NDArray[np.float64], shape: tuple[int, int]) -> float:
    """How far x and y in pixels lie from the nearest of the left, right and upper edge, in parts of (H, W)."""
    height, width = shape
    x, y = point
    return float(min(x / width, 1 - x / width, y / height))


def read_annotations(file: Path, uid_column: str, *, may_be_empty: bool = False) -> dict[str, list[Annotation]]:
    """Read a table laid out as RANZCR CLiP's `train_annotations.csv`, one row per catheter, several rows per image.

    Args:
        file: CSV with the columns `uid_column`, label, and data, a text [[x, y], [x, y], ...].
        uid_column: the column that names the image.
        may_be_empty: whether a table without rows is one, as that of a model that finds no line.

    Returns:
        Uid -> its catheters, in the order of the file.

    Raises:
        TableError: the file, a column or a value is missing or wrong.
    """
    frame = read_csv(file, may_be_empty=may_be_empty, row_is_of="line")
    check_columns(frame, (uid_column, LABEL_COLUMN, POINTS_COLUMN), file)
    for column in (uid_column, LABEL_COLUMN):
        check_filled(frame, column, file)
    annotations: dict[str, list[Annotation]] = {}
    columns = (frame[column] for column in (uid_column, LABEL_COLUMN, POINTS_COLUMN))
    for row, (uid, label, text) in enumerate(zip(*columns, strict=True)):
        points = _parse_points(text)
        if points is None:
            found = text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."
            hint = "; an image without a line has no row" if text.replace(" ", "") in ("", "[]") else ""
            line = line_number(frame, row, file)
            raise TableError(
                f"{file}: line {line}, column '{POINTS_COLUMN}': {found!r} is not a list of points; "
                f"[[x, y], [x, y], ...] in pixels of the X-ray is expected{hint}"
            )
        annotations.setdefault(uid, []).append(Annotation(label, points))
    return annotations


def check_annotations(
    annotations: Mapping[str, Sequence[Annotation]],
    label_columns: tuple[str, ...],
    heads: Mapping[str, tuple[str, ...]],
    uids: Collection[str],
    full_shapes: Mapping[str, tuple[int, int]],
    source: str,
) -> list[str]:
    """Compare traced catheters with the images and the labels.

    Args:
        annotations: what `read_annotations` returned.
        label_columns: the labels that are predicted.
        heads: device type -> its labels.
        uids: the ids of the label table.
        full_shapes: uid -> (H, W) of the original image, in pixels; (0, 0) or none where it could not be read.
        source: the table, for the messages.

    Returns:
        Warnings, one line each: ids without an image, labels that are not predicted, points far outside of their image,
        rows that stand there twice or have a single point, device types of which no image has a catheter.

    Raises:
        TableError: see `check_inside`.
    """
    warnings = check_image_ids(annotations, uids, source)
    known = set(uids)
    rows_of_label = Counter(annotation.label for of_image in annotations.values() for annotation in of_image)
    unknown = [label for label in rows_of_label if label not in label_columns]
    if unknown:
        num_rows = sum(rows_of_label[label] for label in unknown)
        warnings.append(
            f"{source}: {counted(num_rows, 'row')} of labels that are not in label_columns, {listed(unknown)}: "
            f"{unknown_name(unknown[0], 'one of them', label_columns)}"
        )
    points_of_image = ((uid, annotation.points) for uid, of_image in annotations.items() for annotation in of_image)
    warnings += check_inside(points_of_image, full_shapes, source) + _check_repeated(annotations, source)
    num_single = sum(len(line.points) == 1 for of_image in annotations.values() for line in of_image)
    if num_single > sum(rows_of_label.values()) / 2:  # some tubes only just come in
        warnings.append(
            f"{source}: {counted(num_single, 'row')} with a single point, which is a tip without a line: [[x, y], "
            "[x, y], ...] along the catheter is expected"
        )
    used = {annotation.label for uid, of_image in annotations.items() if uid in known for annotation in of_image}
    bare = [device_type for device_type, labels in heads.items() if used.isdisjoint(labels)]
    if bare:
        warnings.append(f"{source}: no image of the label table has an annotation of {listed(bare)}")
    return warnings


def check_drawn_labels(
    annotations: Mapping[str, Sequence[Annotation]],
    uids: Sequence[str],
    targets: npt.NDArray[np.floating],
    label_columns: Sequence[str],
    source: str,
) -> list[str]:
    """Say where a catheter is drawn with a label that the label table says the image has not.

    Args:
        annotations: what `read_annotations` returned.
        uids: (N,) the ids of the label table.
        targets: (N, K) its labels, 0 to 1, NaN where one is unknown: that contradicts nothing.
        label_columns: (K,) their names.
        source: the table of the annotations, for the message.

    Returns:
        One warning, or none.
    """
    column_of = {label: column for column, label in enumerate(label_columns)}
    contradicting = [
        (uid, annotation.label)
        for row, uid in enumerate(uids)
        for annotation in annotations.get(uid, ())
        if annotation.label in column_of and targets[row, column_of[annotation.label]] == 0
    ]
    if not contradicting:
        return []
    uid, label = contradicting[0]
    images = counted(len({uid for uid, _ in contradicting}), "image")
    return [
        f"{source}: {counted(len(contradicting), 'row')} of {images} with a label that is 0 in the label table, the "
        f"first is '{label}' of {uid}; a drawing or a label is wrong there, and both are learnt"
    ]


def _check_repeated(annotations: Mapping[str, Sequence[Annotation]], source: str) -> list[str]:
    """One warning of rows that are the same as an earlier one, or none."""
    repeated: list[str] = []
    for uid, of_image in annotations.items():
        different = {(annotation.label, annotation.points.tobytes()) for annotation in of_image}
        repeated += [uid] * (len(of_image) - len(different))
    if not repeated:
        return []
    return [
        f"{source}: {counted(len(repeated), 'row')} the same as an earlier one, in "
        f"{counted(len(set(repeated)), 'image')} such as {repeated[0]}"
    ]


def _parse_points(text: str) -> npt.NDArray[np.float64] | None:
    """(n, 2) finite numbers, n at least 1; None where the text holds anything else."""
    try:
        values = parse_json(text)
    except ValueError:
        return None
    if not isinstance(values, list) or not values or not all(_is_point(value) for value in values):
        return None
    return np.array(values, dtype=np.float64)


def _is_point(value: Any) -> bool:
    if not isinstance(value, list) or len(value) != 2:
        return False
    return all(type(number) in (int, float) for number in value)
