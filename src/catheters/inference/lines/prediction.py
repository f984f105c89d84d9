"""From models and X-rays to lines: polylines with a label and a tip, in pixels of the original image."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from catheters.checkpoints.checkpoint import Checkpoint
from catheters.data.decoding.image import UnreadableImage
from catheters.data.preprocessing import Preprocessed, place
from catheters.errors import UserError, counted
from catheters.inference.lines.maps import Frame, LineMaps, TipPositions, mean_maps, split_outputs
from catheters.inference.lines.tracing import TracingOptions, trace_lines
from catheters.inference.loading import Models
from catheters.inference.predictor import NO_NUMBER, REMEDIES, Predictor
from catheters.polylines import lengths_along
from catheters.runtime.device import device_name
from catheters.runtime.precision import autocast
from catheters.runtime.shortage import device_work

Floats = npt.NDArray[np.float64]

OF_MODELS = TracingOptions(
    tip_threshold=0.3, tip_threshold_at_end=0.12, min_depth_at_end=0.2, min_confidence_without_tip=0.9
)
"""How models' maps are traced. Tips that models are unsure of have low peaks, which are trusted where a line ends, but
not where catheters come in. The weighted loss makes blurred courses likely: of the synthetic sample's out-of-fold lines
without a peak in the tip map 1 in 17 had a true tip near. See the lab notes."""


@dataclass(frozen=True, kw_only=True)
class PredictedLine:
    """A catheter that the models see.

    Attributes:
        device_type: its name.
        label: of that device type, the one that the models hold for the likeliest at its tip.
        points: (n, 2) float64, n at least 2: x and y in pixels of the original image as shown, from the entry to the
            tip.
        confidence: mean probability of a line along it, in 0..1.
        tip_probability: height of the tip's peak, in 0..1; 0 where the models see none, so that the tip is the line's
            own end.
        length: in pixels of the original image.
    """

    device_type: str
    label: str
    points: Floats
    confidence: float
    tip_probability: float
    length: float

    @property
    def tip(self) -> tuple[float, float]:
        """The last point, x and y in pixels of the original image."""
        x, y = self.points[-1].tolist()
        return x, y


def find_lines(
    maps: LineMaps, probabilities: Mapping[str, float], options: TracingOptions = OF_MODELS
) -> tuple[PredictedLine, ...]:
    """The lines of one image, device type by device type, the most confident first.

    A line's label is that of its device type with the highest mean probability at the tip, over the models with a
    pooled head that have a candidate there; where none has, the one with the highest probability in the image.

    Args:
        maps: of one model, or the mean of several.
        probabilities: label -> probability that the image has it.
        options: how maps become lines.
    """
    found = []
    reach = options.tip_reach * maps.lines.shape[2]
    for number, (device_type, labels) in enumerate(maps.device_types.items()):
        for traced in trace_lines(maps.lines[number], maps.tips[number], options):
            points = maps.frame.to_original(traced.points)
            at_tip = _position_probabilities(traced.points[-1], maps.positions.get(device_type, ()), reach)
            scores = at_tip or probabilities
            found.append(
                PredictedLine(
                    device_type=device_type,
                    label=max(labels, key=lambda label: scores.get(label, -1.0)),
                    points=points,
                    confidence=traced.confidence,
                    tip_probability=traced.tip_probability,
                    length=float(lengths_along(points)[-1]),
                )
            )
    return tuple(found)


def _position_probabilities(tip: Floats, positions: Sequence[TipPositions], reach: float) -> dict[str, float]:
    """Label -> mean over the models whose nearest candidate lies in reach of a tip; empty where there is none."""
    votes: dict[str, list[float]] = {}
    for of_model in positions:
        distances = np.hypot(*(of_model.points - tip).T)
        nearest = int(distances.argmin())
        if distances[nearest] <= reach:
            for label, probability in of_model.probabilities.items():
                votes.setdefault(label, []).append(float(probability[nearest]))
    return {label: float(np.mean(of_label)) for label, of_label in votes.items()}


def tips_of(lines: Sequence[PredictedLine], device_types: Sequence[str]) -> dict[str, list[tuple[float, float]]]:
    """Device type -> the tips of its lines, x and y in pixels of the original image; none where it has no line.

    Lines of a device type that end at the same tip have it once: they are one tube as far as the tip goes.
    """
    return {name: list(dict.fromkeys(line.tip for line in lines if line.device_type == name)) for name in device_types}


def with_decoder(models: Models) -> list[Checkpoint]:
    """The checkpoints that find lines.

    Raises:
        UserError: none does.
    """
    found = [checkpoint for checkpoint in models.checkpoints if checkpoint.model.finds_lines]
    if not found:
        count, first = len(models.checkpoints), models.checkpoints[0].file
        who = f"{first}: has" if count == 1 else f"{first} and the other {counted(count - 1, 'checkpoint')}: have"
        raise UserError(
            f'{who} no line decoder, so no lines can be predicted; train with lines="auxiliary" or "pooled"'
        )
    return found


def device_types_of(models: Models) -> dict[str, tuple[str, ...]]:
    """Device type -> its labels, those that a line decoder tells apart.

    Raises:
        UserError: no checkpoint has a line decoder.
    """
    found: dict[str, tuple[str, ...]] = {}
    for checkpoint in with_decoder(models):
        for name, labels in checkpoint.line_settings.device_types.items():
            found.setdefault(name, labels)
    return found


def predict_maps(predictor: Predictor, batch: Sequence[Sequence[Preprocessed]]) -> list[LineMaps]:
    """What the checkpoints with a line decoder say of B images, the mean of them, each image as it is (no TTA).

    Args:
        predictor: the models.
        batch: B images, each as each of `predictor.preprocessings` makes it.

    Raises:
        UserError: no checkpoint has a line decoder.
        DeviceError: the device has no room for so many.
    """
    checkpoints = with_decoder(predictor.models)
    with device_work(f"finding lines on {device_name(predictor.device)}", REMEDIES):
        of_checkpoints = [_maps_of(checkpoint, predictor, batch) for checkpoint in checkpoints]
    return [mean_maps(of_image) for of_image in zip(*of_checkpoints, strict=True)]


@torch.inference_mode()
def _maps_of(checkpoint: Checkpoint, predictor: Predictor, batch: Sequence[Sequence[Preprocessed]]) -> list[LineMaps]:
    preprocessing, settings = checkpoint.preprocessing, checkpoint.line_settings
    made = [of_image[predictor.preprocessings.index(preprocessing)] for of_image in batch]
    images = torch.from_numpy(np.stack([image.pixels for image in made]))[:, None].to(predictor.device)
    with autocast(predictor.device, checkpoint.dtype_on(predictor.device)):
        outputs = checkpoint.model(images, with_lines=True)
    frames = [
        Frame(
            placement=place(image.box, preprocessing),
            image_shape=preprocessing.image_shape,
            map_shape=settings.map_shape,
        )
        for image in made
    ]
    return split_outputs(outputs, settings.label_columns, settings.device_types, frames, settings.landmarks)


def predict_lines(
    predictor: Predictor, made: Sequence[Preprocessed], probabilities: Mapping[str, float]
) -> tuple[PredictedLine, ...]:
    """The lines of one image; see `predict_finite_maps` and `find_lines`.

    Raises:
        UserError: no checkpoint has a line decoder.
        UnreadableImage: a decoder outputs NaN or infinity.
        DeviceError: the device has no room for it.
    """
    return find_lines(predict_finite_maps(predictor, made), probabilities)


def predict_finite_maps(predictor: Predictor, made: Sequence[Preprocessed]) -> LineMaps:
    """The maps of one image, see `predict_maps`.

    Raises:
        UserError: no checkpoint has a line decoder.
        UnreadableImage: a decoder outputs NaN or infinity.
        DeviceError: the device has no room for it.
    """
    (maps,) = predict_maps(predictor, [made])
    if not maps.are_finite:
        raise UnreadableImage(NO_NUMBER)
    return maps
