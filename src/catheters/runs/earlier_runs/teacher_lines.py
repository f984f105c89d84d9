"""Lines and tips that a teacher sees where nobody has drawn any: polylines, learnt as drawn ones are.

What is kept is traced lines, not maps: a student draws them after its own augmentation, at its own resolution. What the
teacher is unsure of stays unknown.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from torch import Tensor

from catheters.checkpoints.checkpoint import Checkpoint
from catheters.data.line_targets import DrawnLines
from catheters.data.preprocessing import Placement
from catheters.inference.lines.maps import Frame, mean_maps, split_outputs
from catheters.inference.lines.prediction import find_lines
from catheters.models.outputs import Outputs
from catheters.polylines import resample_to

MAX_LINES = 8
"""Of an image: three central venous catheters and two tubes of either kind are seven. One in which the teacher sees
more has none of its lines."""
NUM_POINTS = 32
"""Of each line, equally far apart."""
LINE = np.dtype(
    [
        ("device_type", "<i2"),
        ("column", "<i2"),
        ("confidence", "<f4"),
        ("tip_probability", "<f4"),
        ("points", "<f4", (NUM_POINTS, 2)),
    ]
)
"""A line in the cache: points in pixels of the cached image, from the entry to the tip."""
NO_LINE, NOT_TO_BE_USED = -1, -2
"""Device types of what is no line: there is none, or the image has too many, or maps with NaN or infinity."""
SURE_LINE, SURE_TIP = 0.9, 0.5
"""Confidence and height of the tip's peak from which on a teacher's line is learnt."""
SURE_ABSENCE = 0.1
"""Greatest probability of a device type's labels up to which it is absent where the teacher sees no line."""
SURENESS = (SURE_LINE, SURE_TIP, SURE_ABSENCE)
"""What decides, besides the teacher, which lines are learnt."""


def find_rows(
    checkpoints: Sequence[Checkpoint],
    outputs: Sequence[Outputs],
    images: Tensor,
    probabilities: npt.NDArray[np.float32],
    label_columns: Sequence[str],
) -> npt.NDArray[np.void]:
    """The lines of B images as a cache has them, (B, MAX_LINES) `LINE`.

    Args:
        checkpoints: of the teacher's models, of the same settings.
        outputs: of each, with lines.
        images: (B, 1, H, W).
        probabilities: (B, K) the mean of the models'.
        label_columns: (K,) the student's labels.
    """
    settings = checkpoints[0].settings
    image_shape = (images.shape[2], images.shape[3])
    frame = Frame(placement=Placement((1, 1), (0, 0)), image_shape=image_shape, map_shape=settings.map_shape)
    frames = [frame] * len(images)
    of_models = [
        split_outputs(
            dataclasses.replace(of_model, landmark_logits=None), settings.label_columns, settings.device_types, frames
        )
        for of_model in outputs
    ]
    rows = np.zeros((len(images), MAX_LINES), dtype=LINE)
    rows["device_type"] = NO_LINE
    device_types = list(settings.device_types)
    for row, of_image, of_labels in zip(rows, zip(*of_models, strict=True), probabilities.tolist(), strict=True):
        maps = mean_maps(of_image)
        if not maps.are_finite:  # as mixed precision may give them for a single image
            row["device_type"] = NOT_TO_BE_USED
            continue
        lines = find_lines(maps, dict(zip(label_columns, of_labels, strict=True)))
        if len(lines) > MAX_LINES:
            row["device_type"] = NOT_TO_BE_USED
            continue
        for place, line in zip(row, lines, strict=False):
            place["device_type"] = device_types.index(line.device_type)
            place["column"] = label_columns.index(line.label)
            place["confidence"], place["tip_probability"] = line.confidence, line.tip_probability
            place["points"] = resample_to(line.points, NUM_POINTS)
    return rows


def with_lines_of_teacher(
    drawn: DrawnLines,
    rows: npt.NDArray[np.void],
    labels: npt.NDArray[np.float32],
    probabilities: npt.NDArray[np.float32],
    type_columns: Sequence[Sequence[int]],
) -> DrawnLines:
    """The drawn lines, and those of the teacher where it is unknown what lies there.

    A device type of an image of which nobody has drawn a line becomes known in two ways. The teacher is sure of all
    lines that it sees of it, its label or the teacher says that it is there, and each label that the table gives the
    image has a line. Or the teacher sees no line, and is sure that no label of it holds.

    Args:
        drawn: of N images.
        rows: (N, MAX_LINES) `LINE`, the teacher's.
        labels: (N, K) 0..1, NaN where it is unknown.
        probabilities: (N, K) the teacher's.
        type_columns: (T,) the columns of each device type's labels.
    """
    more: list[list[tuple[int, int, npt.NDArray[np.float32]]]] = [[] for _ in labels]
    is_known = drawn.is_known.copy()
    is_sure = (rows["confidence"] >= SURE_LINE) & (rows["tip_probability"] >= SURE_TIP)
    for number, columns in enumerate(type_columns):
        is_of_type = rows["device_type"] == number
        has_any = is_of_type.any(axis=1)
        are_sure = has_any & ~(is_of_type & ~is_sure).any(axis=1)
        of_type = labels[:, list(columns)]
        at_most = np.where(np.isnan(of_type), probabilities[:, list(columns)], of_type).max(axis=1)
        is_absent = ~has_any & (at_most <= SURE_ABSENCE) & (rows["device_type"] != NOT_TO_BE_USED).all(axis=1)
        is_open = ~drawn.is_known[:, number] & ~drawn.is_drawn[:, number]
        is_known[:, number] |= is_open & is_absent
        for image in np.flatnonzero(is_open & are_sure & (at_most > 0.5)).tolist():
            lines = rows[image][is_of_type[image]]
            found = [_label_of(int(line["column"]), labels[image], columns) for line in lines]
            holding = {column for column in columns if labels[image, column] > 0.5}
            if None in found or not holding <= set(found):  # the line of another label has not been seen
                continue
            is_known[image, number] = True
            more[image] += [
                (number, column, np.array(line["points"]))
                for column, line in zip(found, lines, strict=True)
                if column is not None
            ]
    return drawn.with_more(more, is_known)


def _label_of(column: int, labels: npt.NDArray[np.float32], columns: Sequence[int]) -> int | None:
    """Which label of a device type a line has; where the teacher's is known to be wrong, the only one that holds."""
    if labels[column] != 0:
        return column
    holding = [other for other in columns if labels[other] > 0.5]
    return holding[0] if len(holding) == 1 else None
