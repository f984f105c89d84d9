"""Mixup on multi-label targets."""

import numpy as np
import torch
from torch import Tensor

MIXUP_STREAM = 1
"""Keeps mixup's draws apart from the other ones of the same seed."""


class Mixup:
    """Mixes each image and its labels with another's of the batch.

    Zhang et al. 2018, "mixup: Beyond Empirical Risk Minimization", eq. 1, with a share of its own for each image.
    """

    def __init__(self, alpha: float, seed: int) -> None:
        """Draw shares from Beta(alpha, alpha); all draws follow from the seed and the number of the batch."""
        self._alpha = alpha
        self._seed = seed

    def __call__(self, images: Tensor, targets: Tensor, batch: int) -> tuple[Tensor, Tensor]:
        """Mix a batch.

        Args:
            images: (B, 1, H, W) uint8.
            targets: (B, K) float32.
            batch: number of the batch in the whole training.

        Returns:
            (B, 1, H, W) float32 in 0..255, (B, K) float32, on the device of `images`.
        """
        rng = np.random.default_rng(np.random.SeedSequence(self._seed, spawn_key=(MIXUP_STREAM, batch)))
        shares = rng.beta(self._alpha, self._alpha, size=len(images)).astype(np.float32)
        partners = torch.from_numpy(rng.permutation(len(images))).to(images.device)
        share = torch.from_numpy(shares).to(images.device)
        mixed = torch.lerp(images[partners].float(), images.float(), share[:, None, None, None])
        return mixed, torch.lerp(targets[partners], targets, share[:, None])
