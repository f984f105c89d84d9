"""What models say of lines and tips in one image, as maps; of several models, of other sizes too, the mean."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
import numpy.typing as npt
import torch

from catheters.data.preprocessing import Placement
from catheters.inference.lines.tips import Map
from catheters.inference.lines.tracing import to_image, to_original
from catheters.models.outputs import Outputs

Floats = npt.NDArray[np.float64]
Labels = tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Frame:
    """Where the pixels of maps lie.

    Attributes:
        placement: of the original image in the preprocessed one, see `place`.
        image_shape: (H, W) of the preprocessed image.
        map_shape: (h, w) of the maps.
    """

    placement: Placement
    image_shape: tuple[int, int]
    map_shape: tuple[int, int]

    def to_original(self, points: Floats) -> Floats:
        """(n, 2) x, y in pixels of a map -> (n, 2) in pixels of the original image as shown."""
        return to_original(points, self.placement, self.map_shape, self.image_shape)

    def from_original(self, points: Floats) -> Floats:
        """The inverse of `to_original`."""
        return to_image(self.placement.apply(points), self.image_shape, self.map_shape)


@dataclass(frozen=True, kw_only=True)
class TipPositions:
    """What a pooled head says of its candidates for the tips of one device type.

    Attributes:
        points: (M, 2) x and y in pixels of the map.
        probabilities: label of the device type -> (M,) that a tip there has it.
    """

    points: Floats
    probabilities: Mapping[str, Floats]


@dataclass(frozen=True, kw_only=True)
class LineMaps:
    """Of one image.

    Attributes:
        device_types: name -> its labels, T of them.
        lines: (T, h, w) float32 in 0..1, probability that a pixel belongs to a line.
        tips: (T, h, w) float32 in 0..1, with a bump at each tip.
        positions: device type -> what each model with a pooled head says of its tips.
        frame: where the maps lie.
        landmarks: name -> (h, w) float32 in 0..1, with a bump where it lies; empty where none is learnt.
    """

    device_types: Mapping[str, Labels]
    lines: Map
    tips: Map
    positions: Mapping[str, tuple[TipPositions, ...]]
    frame: Frame
    landmarks: Mapping[str, Map] = field(default_factory=dict)

    @property
    def are_finite(self) -> bool:
        """Whether no pixel of any map is NaN or infinite."""
        return all(bool(np.isfinite(values).all()) for values in (self.lines, self.tips, *self.landmarks.values()))


def split_outputs(
    outputs: Outputs,
    label_columns: Labels,
    device_types: Mapping[str, Labels],
    frames: Sequence[Frame],
    landmark_names: Labels = (),
) -> list[LineMaps]:
    """A model's outputs of B images, with lines, as the maps of each.

    Args:
        outputs: of a model with a line decoder, `with_lines=True`.
        label_columns: (K,) the model's.
        device_types: name -> its labels, in the order of the model's maps.
        frames: (B,) where the maps lie.
        landmark_names: (P,) in the order of the model's maps.
    """
    assert outputs.line_logits is not None and outputs.tip_logits is not None, "nobody has asked for lines"
    lines, tips = (torch.sigmoid(logits.float()).cpu().numpy() for logits in (outputs.line_logits, outputs.tip_logits))
    positions: list[dict[str, tuple[TipPositions, ...]]] = [{} for _ in frames]
    if outputs.tip_pixels is not None and outputs.position_logits is not None:
        pixels = outputs.tip_pixels.cpu().numpy()  # (B, T, M)
        probabilities = torch.sigmoid(outputs.position_logits.double()).cpu().numpy()  # (B, K, M)
        width = lines.shape[3]
        for row, of_image in enumerate(positions):
            for number, (name, labels) in enumerate(device_types.items()):
                flat = pixels[row, number]
                points = np.stack([flat % width, flat // width], axis=1).astype(np.float64)
                of_labels = {label: probabilities[row, label_columns.index(label)] for label in labels}
                of_image[name] = (TipPositions(points=points, probabilities=of_labels),)
    landmarks: list[dict[str, Map]] = [{} for _ in frames]
    if outputs.landmark_logits is not None:
        of_landmarks = torch.sigmoid(outputs.landmark_logits.float()).cpu().numpy()  # (B, P, h, w)
        landmarks = [dict(zip(landmark_names, of_image, strict=True)) for of_image in of_landmarks]
    return [
        LineMaps(
            device_types=device_types,
            lines=lines[row],
            tips=tips[row],
            positions=positions[row],
            frame=frame,
            landmarks=landmarks[row],
        )
        for row, frame in enumerate(frames)
    ]


def mean_maps(of_models: Sequence[LineMaps]) -> LineMaps:
    """The mean of several models' maps of one image, in the frame of the first.

    Device types and landmarks are matched by name: the map of one is the mean over the models that have it, a device
    type's labels are those of the first of them.
    """
    frame = of_models[0].frame
    lines: dict[str, list[Map]] = {}
    tips: dict[str, list[Map]] = {}
    positions: dict[str, tuple[TipPositions, ...]] = {}
    landmarks: dict[str, list[Map]] = {}
    device_types: dict[str, Labels] = {}
    for maps in of_models:
        for name, values in maps.landmarks.items():
            landmarks.setdefault(name, []).append(move_map(values, maps.frame, frame))
        for number, (name, labels) in enumerate(maps.device_types.items()):
            device_types.setdefault(name, labels)
            lines.setdefault(name, []).append(move_map(maps.lines[number], maps.frame, frame))
            tips.setdefault(name, []).append(move_map(maps.tips[number], maps.frame, frame))
            moved = (_move_positions(found, maps.frame, frame) for found in maps.positions.get(name, ()))
            positions[name] = (*positions.get(name, ()), *moved)
    means = [np.stack([np.mean(of_type, axis=0) for of_type in found.values()]) for found in (lines, tips)]
    return LineMaps(
        device_types=device_types,
        lines=means[0],
        tips=means[1],
        positions=positions,
        frame=frame,
        landmarks={name: np.mean(of_landmark, axis=0) for name, of_landmark in landmarks.items()},
    )


def move_map(values: Map, source: Frame, target: Frame) -> Map:
    """(h, w) in one frame -> (h', w') in another, bilinear; 0 where the first had nothing of the image."""
    if source == target:
        return values
    height, width = target.map_shape
    # Both lie along the axes of the original, so that two points say it all.
    first, second = source.from_original(target.to_original(np.array([[0.0, 0.0], [1.0, 1.0]])))
    scale = second - first
    to_source = np.array([[scale[0], 0, first[0]], [0, scale[1], first[1]]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    moved = cv2.warpAffine(values, to_source, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    inside = [
        np.abs(first[axis] + scale[axis] * np.arange(length) - (values.shape[1 - axis] - 1) / 2)
        <= values.shape[1 - axis] / 2
        for axis, length in ((0, width), (1, height))
    ]
    result: Map = np.where(inside[1][:, None] & inside[0][None], moved, np.float32(0))
    return result


def _move_positions(found: TipPositions, source: Frame, target: Frame) -> TipPositions:
    points = target.from_original(source.to_original(found.points))
    return TipPositions(points=points, probabilities=found.probabilities)
