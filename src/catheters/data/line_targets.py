"""Targets of the line decoder: masks of the drawn lines and maps of their tips, drawn anew for each augmented image.

Only polylines are kept, in pixels of the cached image. Their points are moved as the image is, then drawn at the
decoder's resolution, so that a line stays as thick as it is and a tip as sharp, whatever the augmentation does.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import cv2
import numpy as np
import numpy.typing as npt

from catheters.data.annotations import Annotation
from catheters.data.preprocessing import Placement

Points = npt.NDArray[np.float64]

LINE_WIDTH = 0.02
"""Thickness of a drawn line, as a share of the map's width; what others drew lies between 0.013 and 0.024."""
TIP_SIGMA = 0.0125
"""Standard deviation of the Gaussian around a tip, as a share of the map's width; never below `MIN_TIP_SIGMA`."""
MIN_TIP_SIGMA = 0.8
"""In pixels of the map: a narrower bump falls between two pixels."""
SUPERSAMPLING = 8
"""Lines are drawn so many times larger, then averaged: OpenCV's lines are up to a pixel too thick."""
FIXED_POINT_BITS = 4
"""OpenCV takes coordinates as whole numbers of 1 / 2^4 pixels."""
MAX_PIXELS_OUTSIDE = 1e5
"""Points are held so near to the image: OpenCV's whole numbers end."""


@dataclass(frozen=True, kw_only=True)
class DrawnLines:
    """The polylines of some images, as arrays: no Python object per line.

    Attributes:
        points: (P, 2) float32, x and y in pixels of the cached image, each line from its far end to its tip.
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
        labels: npt.NDArray[np.uint8],
        label_columns: Sequence[str],
        device_types: Mapping[str, Sequence[str]],
        landmarks: Sequence[Mapping[str, tuple[float, float]]] = (),
        landmark_names: Sequence[str] = (),
    ) -> "DrawnLines":
        """Put the annotations of a label table's images together.

        Lines of labels that belong to no device type are left out. A device type is known where each of its labels
        that the image has is drawn, and where it has none of them.

        Args:
            annotations: (N,) those of each image.
            placements: (N,) where the original image's pixels lie in the cached one.
            full_shapes: (N,) (H, W) of the original images, in pixels.
            labels: (N, K) 0/1.
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
                towards_tip = line.points if line.tip(full_shape) == -1 else line.points[::-1]
                points.append(placement.apply(towards_tip))
                types.append(type_of[line.label])
                columns_of_lines.append(column_of[line.label])
                is_drawn[image, column_of[line.label]] = True
            image_ends[image] = len(types)
        is_known = np.zeros((len(annotations), len(device_types)), dtype=np.bool_)
        for number, of_type in enumerate(device_types.values()):
            columns = [column_of[label] for label in of_type]
            is_known[:, number] = ((labels[:, columns] == 0) | is_drawn[:, columns]).all(axis=1)
        return cls(
            points=np.concatenate([np.empty((0, 2)), *points]).astype(np.float32),
            line_ends=np.cumsum([len(line) for line in points], dtype=np.intp),
            line_types=np.array(types, dtype=np.int8),
            line_columns=np.array(columns_of_lines, dtype=np.int16),
            image_ends=image_ends,
            is_known=is_known,
            landmarks=_place_landmarks(landmarks, placements, landmark_names),
        )

    def __len__(self) -> int:
        return len(self.image_ends)

    def count(self, device_type: int) -> tuple[int, int, int]:
        """How many images show lines of a device type, show none, and how many of which nobody knows."""
        first_lines = np.concatenate([[0], self.image_ends])
        image_of_line = np.repeat(np.arange(len(self)), np.diff(first_lines))
        is_drawn = np.zeros(len(self), dtype=np.bool_)
        is_drawn[image_of_line[self.line_types == device_type]] = True
        is_known = self.is_known[:, device_type]
        return int((is_known & is_drawn).sum()), int((is_known & ~is_drawn).sum()), int((~is_known).sum())

    def of_image(self, image: int) -> tuple[Points, list[slice], npt.NDArray[np.int8], npt.NDArray[np.int16]]:
        """The points of an image's lines (n, 2), where each line stands in them, and its device type."""
        first, end = (int(self.image_ends[image - 1]) if image else 0), int(self.image_ends[image])
        ends = self.line_ends[first:end]
        start = int(self.line_ends[first - 1]) if first else 0
        starts = [start, *ends[:-1].tolist()]
        lines = [slice(begin - start, stop - start) for begin, stop in zip(starts, ends.tolist(), strict=False)]
        stop = int(ends[-1]) if len(ends) else start
        return (
            self.points[start:stop].astype(np.float64),
            lines,
            self.line_types[first:end],
            self.line_columns[first:end],
        )

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


@dataclass(frozen=True, kw_only=True)
class LineTargets:
    """What the line decoder learns from: the drawn lines of some images, and how they are drawn.

    Attributes:
        lines: of the images.
        image_shape: (H, W) of the cached images, in pixels.
        map_shape: (h, w) of the decoder's maps.
    """

    lines: DrawnLines
    image_shape: tuple[int, int]
    map_shape: tuple[int, int]
    num_labels: int

    def points_of(self, image: int) -> Points:
        """(n, 2) all points of an image's lines, then its P landmarks, to be moved with it; NaN stays NaN."""
        return np.concatenate([self.lines.of_image(image)[0], self.lines.landmarks[image]])

    def draw(self, image: int, moved: Points) -> dict[str, npt.NDArray[np.uint8] | npt.NDArray[np.float32]]:
        """Targets of one image, by the names of `Batch`.

        Args:
            image: its position.
            moved: (n, 2) its points where they lie now; NaN for those that were lost.

        Returns:
            line_masks and tip_maps, (T, h, w) uint8 in 0..255; lines_known, (T,) float32, 0 or 1.
        """
        _, lines, types, columns = self.lines.of_image(image)
        height, width = self.map_shape
        masks = np.zeros((self.lines.is_known.shape[1], height, width), dtype=np.uint8)
        tips = np.zeros((self.num_labels, height, width), dtype=np.uint8)
        scale = np.array([width / self.image_shape[1], height / self.image_shape[0]])
        on_map = (moved + 0.5) * scale - 0.5  # centres of pixels are whole numbers
        for number in set(types.tolist()):
            of_type = [
                on_map[line] for line, line_type in zip(lines, types.tolist(), strict=True) if line_type == number
            ]
            masks[number] = draw_lines(of_type, self.map_shape)
        for line, column in zip(lines, columns.tolist(), strict=True):
            np.maximum(tips[column], draw_tip(on_map[line][-1], self.map_shape), out=tips[column])
        drawn = {"line_masks": masks, "tip_maps": tips, "lines_known": self.lines.is_known[image].astype(np.float32)}
        num_landmarks = self.lines.landmarks.shape[1]
        if num_landmarks:
            places = on_map[-num_landmarks:]
            drawn["landmark_maps"] = np.stack([draw_tip(place, self.map_shape) for place in places])
            drawn["landmarks_known"] = (~np.isnan(places).any(axis=1)).astype(np.float32)
        return drawn


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


def draw_lines(lines: Sequence[Points], map_shape: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Draw polylines, (n, 2) x and y in pixels of the map, as one (h, w) mask: 255 inside, less at the edges."""
    height, width = map_shape
    canvas = np.zeros((SUPERSAMPLING * height, SUPERSAMPLING * width), dtype=np.uint8)
    thickness = max(1, round(LINE_WIDTH * width * SUPERSAMPLING))
    for line in lines:
        kept = line[~np.isnan(line).any(axis=1)].clip(-MAX_PIXELS_OUTSIDE, MAX_PIXELS_OUTSIDE)
        if len(kept):
            kept = kept if len(kept) > 1 else kept.repeat(2, axis=0)  # of one point OpenCV draws nothing
            enlarged = (kept + 0.5) * SUPERSAMPLING - 0.5
            fixed = np.round(enlarged * 2**FIXED_POINT_BITS).astype(np.int32)
            cv2.polylines(canvas, [fixed[:, np.newaxis]], False, 255, thickness, cv2.LINE_8, FIXED_POINT_BITS)
    return cast("npt.NDArray[np.uint8]", cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA))


def draw_tip(tip: npt.NDArray[np.float64], map_shape: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """(h, w) a Gaussian of height 255 around a point, x and y in pixels of the map; nothing where the point is NaN."""
    height, width = map_shape
    if np.isnan(tip).any():
        return np.zeros(map_shape, dtype=np.uint8)
    sigma = max(TIP_SIGMA * width, MIN_TIP_SIGMA)
    x, y = (
        np.exp(-((np.arange(length) - place) ** 2) / (2 * sigma**2))
        for length, place in zip((width, height), tip, strict=True)
    )
    bump: npt.NDArray[np.uint8] = np.round(255 * y[:, np.newaxis] * x[np.newaxis]).astype(np.uint8)
    return bump
