"""Pixels to probabilities, by one checkpoint or many."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from catheters.inference.models import Models
from catheters.training.checkpoint import Checkpoint
from catheters.training.step import amp_dtype, autocast

Floats = npt.NDArray[np.float64]
Pixels = npt.NDArray[np.uint8]


class Predictor:
    """Models on a device.

    Attributes:
        models: what predicts.
        device: where.
        preprocessings: the different ways in which the models want their images, at least one.
    """

    def __init__(self, models: Models, device: torch.device, *, flip: bool = False) -> None:
        """Put the models on a device.

        Args:
            models: what predicts.
            device: where.
            flip: whether each image is predicted as it is and mirrored, and the probabilities averaged.
        """
        self.models = models
        self.device = device
        self.preprocessings = tuple(dict.fromkeys(checkpoint.preprocessing for checkpoint in models.checkpoints))
        self._flip = flip
        for checkpoint in models.checkpoints:
            checkpoint.model.to(device)

    @torch.inference_mode()
    def predict(self, batches: Sequence[Pixels]) -> npt.NDArray[np.float32]:
        """Predict some images.

        Args:
            batches: for each of the `preprocessings` (B, H, W) uint8, the same images.

        Returns:
            (C, B, K) probabilities of each checkpoint, labels in the order of `models.labels`.
        """
        images = {
            preprocessing: torch.from_numpy(batch)[:, None].to(self.device)
            for preprocessing, batch in zip(self.preprocessings, batches, strict=True)
        }
        probabilities = [
            self._predict(checkpoint, images[checkpoint.preprocessing]) for checkpoint in self.models.checkpoints
        ]
        return np.stack(probabilities)

    def _predict(self, checkpoint: Checkpoint, images: Tensor) -> npt.NDArray[np.float32]:
        views = [images, images.flip(-1)] if self._flip else [images]
        dtype = amp_dtype(checkpoint.settings, self.device)
        with autocast(self.device, dtype):
            logits = [checkpoint.model(view) for view in views]
        mean = torch.stack([torch.sigmoid(of_view.float()) for of_view in logits]).mean(dim=0)
        columns = [checkpoint.settings.label_columns.index(label) for label in self.models.labels]
        of_labels: npt.NDArray[np.float32] = mean[:, columns].cpu().numpy()
        return of_labels

    def blend(self, probabilities: npt.NDArray[np.float32]) -> Floats:
        """(C, n, K) of the checkpoints -> (n, K) of all, uncalibrated; ranks are those among these images."""
        stacked, start = [], 0
        for member in self.models.members:
            end = start + len(member.checkpoints)
            stacked.append(probabilities[start:end].astype(np.float64).mean(axis=0))
            start = end
        return self.models.recipe.blend(np.stack(stacked))

    def calibrate(self, blended: Floats) -> Floats:
        """(n, K) -> (n, K), as they are where there is no calibration."""
        calibrator = self.models.calibrator
        return blended if calibrator is None else calibrator(self.models.labels, blended)
