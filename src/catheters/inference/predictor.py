"""Pixels to probabilities, by one checkpoint or many."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from catheters.checkpoints.checkpoint import Checkpoint
from catheters.inference.loading import Models
from catheters.inference.quality_flags import OUT_OF_DISTRIBUTION
from catheters.inference.reading import ReadImage
from catheters.models.feature_space import pooled
from catheters.runtime.device import device_name
from catheters.runtime.precision import autocast
from catheters.runtime.shortage import device_work

Floats = npt.NDArray[np.float64]

REMEDIES = "fewer models or device=cpu (--device cpu) may fit"
"""What takes less room on a device."""
NO_NUMBER = "a model outputs NaN or infinity"
"""Reason why an image that could be read has no probabilities."""


class Predicted(NamedTuple):
    """What models say of B images.

    Attributes:
        probabilities: (C, B, K) of each checkpoint, labels in the order of `models.labels`.
        quality_flags: (B,) those of the images, with one more where most of the checkpoints that can tell find an image
            out-of-distribution.
        distances: (C, B) squared distances of the features over the checkpoint's limit, see `FeatureSpace`; NaN of
            checkpoints that cannot tell.
    """

    probabilities: npt.NDArray[np.float32]
    quality_flags: list[tuple[str, ...]]
    distances: Floats


class Predictor:
    """Models on a device.

    Attributes:
        models: what predicts.
        device: where.
        preprocessings: the different ways in which the models want their images, at least one.
    """

    def __init__(self, models: Models, device: torch.device, *, tta: bool = False) -> None:
        """Put the models on a device.

        Args:
            models: what predicts.
            device: where.
            tta: whether each image is predicted as it is and mirrored, and the probabilities averaged.

        Raises:
            DeviceError: the device has no room for them.
        """
        self.models = models
        self.device = device
        self.preprocessings = tuple(dict.fromkeys(checkpoint.preprocessing for checkpoint in models.checkpoints))
        self._tta = tta
        number = len(models.checkpoints)
        with device_work(f"loading {number} model{'s' * (number != 1)} onto {device_name(device)}", REMEDIES):
            for checkpoint in models.checkpoints:
                checkpoint.model.to(device)

    @torch.inference_mode()
    def predict(self, batch: Sequence[ReadImage]) -> Predicted:
        """Predict some images.

        Args:
            batch: B images that could be read, as the `preprocessings` make them.

        Raises:
            DeviceError: the device has no room for so many.
        """
        number = len(batch)
        what = f"predicting {number} image{'s' * (number != 1)} at a time on {device_name(self.device)}"
        with device_work(what, f"a smaller batch (--batch-size), {REMEDIES}"):
            return self._predict_batch(batch)

    def _predict_batch(self, batch: Sequence[ReadImage]) -> Predicted:
        images = {}
        for number, preprocessing in enumerate(self.preprocessings):
            pixels = np.stack([image.pixels[number] for image in batch])
            images[preprocessing] = torch.from_numpy(pixels)[:, None].to(self.device)
        probabilities, distances = [], np.full((len(self.models.checkpoints), len(batch)), np.nan)
        for number, checkpoint in enumerate(self.models.checkpoints):
            predicted, features = self._predict(checkpoint, images[checkpoint.preprocessing])
            probabilities.append(predicted)
            if checkpoint.feature_space is not None:
                distances[number] = checkpoint.feature_space.over_limit(features.astype(np.float64))
        votes = [of_checkpoint > 1 for of_checkpoint in distances if not np.isnan(of_checkpoint).all()]
        are_far = np.mean(votes, axis=0) > 0.5 if votes else np.zeros(len(batch), dtype=np.bool_)
        quality_flags = [
            (*image.quality_flags, *([OUT_OF_DISTRIBUTION] if far else []))
            for image, far in zip(batch, are_far, strict=True)
        ]
        return Predicted(np.stack(probabilities), quality_flags, distances)

    def _predict(
        self, checkpoint: Checkpoint, images: Tensor
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """(B, K) probabilities, and (B, C) features of the images as they are."""
        model = checkpoint.model
        with autocast(self.device, checkpoint.dtype_on(self.device)):
            features = model.features(images)
            views = [model.classify(features)] + ([model(images.flip(-1))] if self._tta else [])
        mean = torch.stack([model.probabilities(outputs) for outputs in views]).mean(dim=0)
        columns = [checkpoint.settings.label_columns.index(label) for label in self.models.labels]
        return mean[:, columns].cpu().numpy(), pooled(features.seen).cpu().numpy()

    def combine(self, probabilities: npt.NDArray[np.float32]) -> Floats:
        """(C, n, K) of the checkpoints -> (n, K) of all, uncalibrated; ranks are those among these images."""
        stacked, start = [], 0
        for member in self.models.members:
            end = start + len(member.checkpoints)
            stacked.append(probabilities[start:end].astype(np.float64).mean(axis=0))
            start = end
        return self.models.spec.combine(np.stack(stacked))

    def calibrate(self, combined: Floats) -> Floats:
        """(n, K) -> (n, K), as they are where there is no calibration."""
        calibrator = self.models.calibrator
        return combined if calibrator is None else calibrator(self.models.labels, combined)
