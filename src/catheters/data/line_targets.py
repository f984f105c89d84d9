"""Targets of the line decoder: masks of the drawn lines, and where tips and landmarks lie, anew for each augmentation.

Only polylines are kept, in pixels of the cached image. Their points are moved as the image is, and the lines drawn at
the decoder's resolution, so that a line stays as thick as it is, whatever the augmentation does. Tips and landmarks
stay points: the loss draws a map of each on the device.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from catheters.data.annotations import Annotation
from catheters.data.preprocessing import Placement

Points = npt.NDArray[np.float64]

LINE_WIDTH = 0.02
"""Thickness of a drawn line, as a share of the map's width; what others drew lies between 0.013 and 0.024."""
MIN_THICKNESS = 9.0
"""Pixels in which a line is drawn at least, enlarged where it has to be, then averaged."""
EXCESS = 0.9
"""Pixels by which OpenCV's lines of an even thickness are too thick; those of an odd one vary more."""
POINT_COLUMNS = 5
"""Of a point in a batch: x and y in pixels of the map, the number of its device type or landmark, the column of its
label, and its height: 1, or 0 where there is no point."""
FIXED_POINT_BITS = 4
"""OpenCV takes coordinates as whole numbers of 1 / 2^4 pixels."""
MAX_PIXELS_OUTSIDE = 1e5
"""Points are held so near to the image: OpenCV's whole numbers end."""


@dataclass(frozen=True, kw_only=True)
class DrawnLines:
    """The polylines of some images, as arrays: no Python object per line.

    Attributes:
        points: (n, 2) float32, x and y in pixels of the cached image, each line from its far end to its tip.
        line_ends: (L,) where each line's points end in `points`.
        line_types: (L,) the position of each line's device type.
        line_columns: (L,) the column of each line's label.
        image_ends: (N,) where each image's lines end.
        is_known: (N, T) whether it is known where the lines of a device type lie: they are drawn, or there are none.
        landmarks: (N, P, 2) float32, x and y of each landmark in pixels of the cached image; NaN: nobody marked it.
    """

    points: npt.NDArray[np.float32]
    line_ends: npt.NDArray[np.intp]
    line_types: npt.NDArray[np.int8]
    line_columns: npt.NDArray[np.int16]
    image_ends: npt.NDArray[np.intp]
    is_known: npt.NDArray[np.bool_]
    landmarks: npt.NDArray[np.float32]

    @classmethod
    def of(
        cls,
        annotations: Sequence[Sequence[Annotation]],
        placements: Sequence[Placement],
        full_shapes: Sequence[tuple[int, int]],
        labels: npt.NDArray[np.float32],
        label_columns: Sequence[str],
        device_types: Mapping[str, Sequence[str]],
        landmarks: Sequence[Mapping[str, tuple[float, float]]] = (),
        landmark_names: Sequence[str] = (),
    ) -> "DrawnLines":
        """Put the annotations of a label table's images together.

        Lines of labels that belong to no device type are left out. Which device types are known `find_known` says.

        Args:
            annotations: (N,) those of each image.
            placements: (N,) where the original image's pixels lie in the cached one.
            full_shapes: (N,) (H, W) of the original images, in pixels.
            labels: (N, K) 0, 1 or NaN.
            label_columns: (K,) names.
            device_types: name -> its labels; T of them.
            landmarks: (N,) name -> place in the original image, where somebody marked it.
            landmark_names: (P,) those that are learnt.
        """
        type_of = {label: number for number, of_type in enumerate(device_types.values()) for label in of_type}
        points: list[Points] = []
        types: list[int] = []
        columns_of_lines: list[int] = []
        image_ends = np.zeros(len(annotations), dtype=np.intp)
        is_drawn = np.zeros(labels.shape, dtype=np.bool_)
        column_of = {label: column for column, label in enumerate(label_columns)}
        for image, (lines, placement, full_shape) in enumerate(zip(annotations, placements, full_shapes, strict=True)):
            for line in lines:
                if line.label not in type_of:
                    continue
                points.append(placement.apply(line.towards_tip(full_shape)))
                types.append(type_of[line.label])
                columns_of_lines.append(column_of[line.label])
                is_drawn[image, column_of[line.label]] = True
            image_ends[image] = len(types)
        return cls(
            points=np.concatenate([np.empty((0, 2)), *points]).astype(np.float32),
            line_ends=np.cumsum([len(line) for line in points], dtype=np.intp),
            line_types=np.array(types, dtype=np.int8),
            line_columns=np.array(columns_of_lines, dtype=np.int16),
            image_ends=image_ends,
            is_known=find_known(labels, is_drawn, label_columns, device_types),
            landmarks=_place_landmarks(landmarks, placements, landmark_names),
        )

    def __len__(self) -> int:
        return len(self.image_ends)

    @functools.cached_property
    def max_lines(self) -> int:
        """Of the image that has most; 1 at least."""
        return max(1, int(np.diff(self.image_ends, prepend=0).max(initial=0)))

    def count(self, device_type: int) -> tuple[int, int, int]:
        """How many images show lines of a device type, show none, and how many of which nobody knows."""
        is_drawn, is_known = self.is_drawn[:, device_type], self.is_known[:, device_type]
        return int((is_known & is_drawn).sum()), int((is_known & ~is_drawn).sum()), int((~is_known).sum())

    @functools.cached_property
    def is_drawn(self) -> npt.NDArray[np.bool_]:
        """(N, T) whether an image has a line of a device type."""
        is_drawn = np.zeros(self.is_known.shape, dtype=np.bool_)
        image_of_line = np.repeat(np.arange(len(self)), np.diff(self.image_ends, prepend=0))
        is_drawn[image_of_line, self.line_types] = True
        return is_drawn

    @functools.cached_property
    def _point_ends(self) -> npt.NDArray[np.intp]:
        """(N + 1,) where the points of the images before each image end in `points`."""
        ends: npt.NDArray[np.intp] = np.append(0, self.line_ends)[np.append(0, self.image_ends)]
        return ends

    def points_of(self, image: int) -> Points:
        """(n, 2) the points of an image's lines, one line after the other."""
        return self.points[self._point_ends[image] : self._point_ends[image + 1]].astype(np.float64)

    def lines_of(self, image: int) -> tuple[list[slice], npt.NDArray[np.int8], npt.NDArray[np.int16]]:
        """Where each line of an image stands in `points_of`, its device type, and the column of its label."""
        first, end = (int(self.image_ends[image - 1]) if image else 0), int(self.image_ends[image])
        stops = (self.line_ends[first:end] - self._point_ends[image]).tolist()
        lines = [slice(begin, stop) for begin, stop in zip([0, *stops], stops, strict=False)]
        return lines, self.line_types[first:end], self.line_columns[first:end]

    def take(self, rows: npt.NDArray[np.intp] | npt.NDArray[np.bool_]) -> "DrawnLines":
        """The lines of some of the images, in that order."""
        positions = np.arange(len(self))[rows]
        firsts = np.concatenate([[0], self.image_ends])[positions]
        lines = np.concatenate(
            [np.empty(0, dtype=np.intp)]
            + [np.arange(first, end) for first, end in zip(firsts, self.image_ends[positions], strict=True)]
        ).astype(np.intp)
        starts = np.concatenate([[0], self.line_ends])[lines].astype(np.intp)
        ends = self.line_ends[lines]
        points = [self.points[start:end] for start, end in zip(starts, ends, strict=True)]
        return DrawnLines(
            points=np.concatenate([np.empty((0, 2), dtype=np.float32), *points]),
            line_ends=np.cumsum(ends - starts, dtype=np.intp),
            line_types=self.line_types[lines],
            line_columns=self.line_columns[lines],
            image_ends=np.cumsum(self.image_ends[positions] - firsts, dtype=np.intp),
            is_known=self.is_known[positions],
            landmarks=self.landmarks[positions],
        )

    def with_more(
        self, more: Sequence[Sequence[tuple[int, int, npt.NDArray[np.float32]]]], is_known: npt.NDArray[np.bool_]
    ) -> "DrawnLines":
        """These lines, and after each image's own ones further ones.

        Args:
            more: (N,) of each image (device type, column of the label, (n, 2) points) of each further line.
            is_known: (N, T) what is known then.
        """
        points: list[npt.NDArray[np.float32]] = [np.empty((0, 2), dtype=np.float32)]
        types: list[int] = []
        columns: list[int] = []
        image_ends = np.zeros(len(self), dtype=np.intp)
        for image, of_image in enumerate(more):
            slices, own_types, own_columns = self.lines_of(image)
            own = self.points[self._point_ends[image] : self._point_ends[image + 1]]
            points += [own[line] for line in slices] + [line for _, _, line in of_image]
            types += [*own_types.tolist(), *(of_type for of_type, _, _ in of_image)]
            columns += [*own_columns.tolist(), *(column for _, column, _ in of_image)]
            image_ends[image] = len(types)
        return dataclasses.replace(
            self,
            points=np.concatenate(points),
            line_ends=np.cumsum([len(line) for line in points[1:]], dtype=np.intp),
            line_types=np.array(types, dtype=np.int8),
            line_columns=np.array(columns, dtype=np.int16),
            image_ends=image_ends,
            is_known=is_known,
        )


@dataclass(frozen=True, kw_only=True)
class LineTargets:
    """What the line decoder learns from: the drawn lines of some images, and how they are drawn.

    Attributes:
        lines: of the images.
        image_shape: (H, W) of the cached images, in pixels.
        map_shape: (h, w) of the decoder's maps.
        max_lines: Q, of the image that has most, of those that make a batch together.
    """

    lines: DrawnLines
    image_shape: tuple[int, int]
    map_shape: tuple[int, int]
    max_lines: int

    def points_of(self, image: int) -> Points:
        """(n, 2) all points of an image's lines, then its P landmarks, to be moved with it; NaN stays NaN."""
        points, landmarks = self.lines.points_of(image), self.lines.landmarks[image]
        return np.concatenate([points, landmarks]) if len(landmarks) else points

    def draw(self, image: int, moved: Points) -> dict[str, npt.NDArray[np.uint8] | npt.NDArray[np.float32]]:
        """Targets of one image, by the names of `Batch`.

        Args:
            image: its position.
            moved: (n, 2) its points where they lie now; NaN for those that were lost.

        Returns:
            line_masks, (T, h, w) uint8 in 0..255; tips, (Q, 5), and landmarks, (P, 5), float32, see `POINT_COLUMNS`;
            lines_known, (T,) float32, 0 or 1. Masks of an image without points are shared: nobody may write into them.
        """
        known = self.lines.is_known[image].astype(np.float32)
        tips = np.zeros((self.max_lines, POINT_COLUMNS), dtype=np.float32)
        if not len(moved):
            return {"line_masks": self._empty_masks, "tips": tips, "lines_known": known}
        lines, types, columns = self.lines.lines_of(image)
        on_map = (moved + 0.5) * self._scale - 0.5  # centres of pixels are whole numbers
        masks = np.zeros_like(self._empty_masks)
        for number, (line, of_type, column) in enumerate(zip(lines, types.tolist(), columns.tolist(), strict=True)):
            draw_line(on_map[line], masks[of_type])
            x, y = on_map[line.stop - 1].tolist()
            if not (math.isnan(x) or math.isnan(y)):
                tips[number] = (x, y, of_type, column, 1)
        drawn = {"line_masks": masks, "tips": tips, "lines_known": known}
        num_landmarks = self.lines.landmarks.shape[1]
        if num_landmarks:
            drawn["landmarks"] = np.zeros((num_landmarks, POINT_COLUMNS), dtype=np.float32)
            for number, place in enumerate(on_map[-num_landmarks:]):
                if not np.isnan(place).any():
                    drawn["landmarks"][number] = (*place, number, 0, 1)
        return drawn

    @functools.cached_property
    def _scale(self) -> Points:
        """(2,) pixels of the map per pixel of the image, x and y."""
        scale: Points = np.array(self.map_shape[::-1]) / np.array(self.image_shape[::-1])
        return scale

    @functools.cached_property
    def _empty_masks(self) -> npt.NDArray[np.uint8]:
        """(T, h, w) without a line."""
        return np.zeros((self.lines.is_known.shape[1], *self.map_shape), dtype=np.uint8)


def find_known(
    labels: npt.NDArray[np.floating],
    is_drawn: npt.NDArray[np.bool_],
    label_columns: Sequence[str],
    device_types: Mapping[str, Sequence[str]],
) -> npt.NDArray[np.bool_]:
    """Of which images it is known which lines of a device type there are.

    A device type is known where each of its labels is drawn, or known not to be the image's.

    Args:
        labels: (N, K) 0, 1 or NaN.
        is_drawn: (N, K) whether an image has a drawn line of the label.
        label_columns: (K,) names.
        device_types: name -> its labels, all of them among the columns; T of them.

    Returns:
        (N, T).
    """
    is_known = np.zeros((len(labels), len(device_types)), dtype=np.bool_)
    column_of = {label: column for column, label in enumerate(label_columns)}
    for number, of_type in enumerate(device_types.values()):
        columns = [column_of[label] for label in of_type]
        is_known[:, number] = ((labels[:, columns] == 0) | is_drawn[:, columns]).all(axis=1)
    return is_known


def _place_landmarks(
    landmarks: Sequence[Mapping[str, tuple[float, float]]], placements: Sequence[Placement], names: Sequence[str]
) -> npt.NDArray[np.float32]:
    """(N, P, 2) x and y in pixels of the cached images; NaN where an image has none."""
    places = np.full((len(placements), len(names), 2), np.nan)
    for image, of_image in enumerate(landmarks):
        for number, name in enumerate(names):
            if name in of_image:
                places[image, number] = placements[image].apply(np.array([of_image[name]]))[0]
    return places.astype(np.float32)


def draw_line(line: Points, mask: npt.NDArray[np.uint8]) -> None:
    """Draw a polyline into a (h, w) mask: 255 inside, less at the edges, more nowhere than was there.

    Args:
        line: (n, 2) x and y in pixels of the mask; NaN points are passed over.
        mask: what is drawn into.
    """
    height, width = mask.shape
    is_lost = np.isnan(line).any(axis=1)
    kept = line[~is_lost] if is_lost.any() else line
    if not len(kept):
        return
    times = math.ceil(MIN_THICKNESS / (LINE_WIDTH * width))
    thickness = max(2, 2 * round((LINE_WIDTH * width * times - EXCESS) / 2))
    unit = times << FIXED_POINT_BITS  # of OpenCV's whole numbers, in a pixel of the mask
    near = np.minimum(np.maximum(kept, -MAX_PIXELS_OUTSIDE), MAX_PIXELS_OUTSIDE)
    fixed = np.rint(near * unit + (unit - (1 << FIXED_POINT_BITS)) / 2).astype(np.int32)
    # Only the part of the mask that the line touches is drawn.
    x, y, across, down = cv2.boundingRect(fixed)
    margin = math.ceil(LINE_WIDTH * width) + 1
    left, top = max(x // unit - margin, 0), max(y // unit - margin, 0)
    right, bottom = min((x + across) // unit + margin + 1, width), min((y + down) // unit + margin + 1, height)
    if left >= right or top >= bottom:
        return
    canvas = np.zeros((times * (bottom - top), times * (right - left)), dtype=np.uint8)
    fixed -= (left * unit, top * unit)
    fixed = fixed if len(fixed) > 1 else fixed.repeat(2, axis=0)  # of one point OpenCV draws nothing
    cv2.polylines(canvas, [fixed], False, 255, thickness, cv2.LINE_8, FIXED_POINT_BITS)
    part = mask[top:bottom, left:right]
    drawn = cv2.resize(canvas, (right - left, bottom - top), interpolation=cv2.INTER_AREA)
    np.maximum(part, drawn, out=part)
