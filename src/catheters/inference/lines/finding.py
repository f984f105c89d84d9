"""All that models with a line decoder see in one image: lines, landmarks, and the lengths between them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from catheters.data.preprocessing import Preprocessed
from catheters.inference.lines.landmarks import FoundLandmark, find_landmarks
from catheters.inference.lines.measuring import TakenMeasurement, planned_of, take_measurements
from catheters.inference.lines.prediction import PredictedLine, device_types_of, find_lines, predict_finite_maps
from catheters.inference.predictor import Predictor
from catheters.measurements import PixelSpacing


@dataclass(frozen=True, kw_only=True)
class FoundLines:
    """What was found in one image.

    Attributes:
        lines: its lines.
        full_shape: (H, W) of the original image, in pixels.
        landmarks: name -> the landmark; None where it is not found.
        measurements: what was measured between tips and landmarks.
    """

    lines: tuple[PredictedLine, ...]
    full_shape: tuple[int, int]
    landmarks: Mapping[str, FoundLandmark | None] = field(default_factory=dict)
    measurements: tuple[TakenMeasurement, ...] = ()

    def tip_shares(self) -> dict[str, list[tuple[float, float]]]:
        """Device type -> the tips of its lines, x and y as shares of the image's width and height.

        0 and 1 are the edges; a tip outside lies at one of them.
        """
        height, width = self.full_shape
        shares: dict[str, list[tuple[float, float]]] = {}
        for line in self.lines:
            x, y = np.clip((np.array(line.tip) + 0.5) / (width, height), 0, 1).tolist()
            shares.setdefault(line.device_type, []).append((x, y))
        return shares


def find_all(
    predictor: Predictor,
    made: Sequence[Preprocessed],
    probabilities: Mapping[str, float],
    spacing: PixelSpacing | None,
    full_shape: tuple[int, int],
) -> FoundLines:
    """Lines, landmarks and measurements of one image.

    Args:
        predictor: the models.
        made: the image, as each of `predictor.preprocessings` makes it.
        probabilities: label -> probability that the image has it.
        spacing: of its pixels; None: not known.
        full_shape: (H, W) of the original image, in pixels.

    Raises:
        UserError: no checkpoint has a line decoder.
        UnreadableImage: a decoder outputs NaN or infinity.
        DeviceError: the device has no room for it.
    """
    maps = predict_finite_maps(predictor, made)
    lines, landmarks = find_lines(maps, probabilities), find_landmarks(maps)
    device_types = tuple(device_types_of(predictor.models))
    planned = planned_of(predictor.models)
    return FoundLines(
        lines=lines,
        full_shape=full_shape,
        landmarks=landmarks,
        measurements=take_measurements(planned, lines, device_types, landmarks, spacing, full_shape),
    )
