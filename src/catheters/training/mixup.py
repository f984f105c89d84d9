"""Mixup on multi-label targets."""

import torch
from torch import Tensor

from catheters.training.device import send
from catheters.training.draws import MIXUP, generator_of


class Mixup:
    """Mixes each image and its labels with another's of the batch.

    Zhang et al. 2018, "mixup: Beyond Empirical Risk Minimization", eq. 1, with a share of its own for each image.
    """

    def __init__(self, alpha: float, seed: int, rank: int = 0) -> None:
        """Draw shares from Beta(alpha, alpha).

        All draws follow from the seed, the number of the batch and the rank of the process, each of which mixes the
        images that it has of the batch.
        """
        self._alpha = alpha
        self._seed = seed
        self._rank = rank

    def __call__(self, images: Tensor, targets: Tensor, batch: int) -> tuple[Tensor, Tensor]:
        """Mix a batch.

        Args:
            images: (B, 1, H, W) uint8, or float32 in 0..255.
            targets: (B, K) float32.
            batch: number of the batch in the whole training.

        Returns:
            (B, 1, H, W) float32 in 0..255, (B, K) float32, on the device of `images`.
        """
        rng = generator_of(self._seed, MIXUP, batch, self._rank)
        shares = rng.beta(self._alpha, self._alpha, size=len(images)).astype("float32")
        partners = send(torch.from_numpy(rng.permutation(len(images))), images.device)
        share = send(torch.from_numpy(shares), images.device)
        mixed = torch.lerp(images[partners].float(), images.float(), share[:, None, None, None])
        return mixed, torch.lerp(targets[partners], targets, share[:, None])
