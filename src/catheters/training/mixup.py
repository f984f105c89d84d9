"""Mixup on multi-label targets."""

import dataclasses

import torch
from torch import Tensor

from catheters.config.settings import IMAGE_WEIGHT
from catheters.data.batch import Batch, send
from catheters.runtime.random import MIXUP, generator_of


class Mixup:
    """Mixes each image and its labels with another's of the batch; a label is known that is known of both.

    Zhang et al. 2018, "mixup: Beyond Empirical Risk Minimization", eq. 1, with a share of its own for each image.
    """

    def __init__(self, alpha: float, seed: int, rank: int = 0) -> None:
        """Draw shares from Beta(alpha, alpha).

        All draws follow from the seed, the number of the batch and the rank, which mixes its share of the global
        batch.
        """
        self._alpha = alpha
        self._seed = seed
        self._rank = rank

    def __call__(self, batch: Batch, number: int) -> Batch:
        """Mix a batch; `number` is its own in the whole training."""
        images, targets = batch.images, batch.targets
        rng = generator_of(self._seed, MIXUP, number, self._rank)
        shares = rng.beta(self._alpha, self._alpha, size=len(batch)).astype("float32")
        partners = send(torch.from_numpy(rng.permutation(len(batch))), images.device)
        share = send(torch.from_numpy(shares), images.device)
        numbers = {name: torch.lerp(value[partners], value, share) for name, value in batch.numbers.items()}
        of_labels, weights = share, batch.numbers.get(IMAGE_WEIGHT)
        if weights is not None:  # each image's labels count by its own weight
            of_labels = torch.where(numbers[IMAGE_WEIGHT] > 0, share * weights / numbers[IMAGE_WEIGHT], share)
        return dataclasses.replace(
            batch,
            images=torch.lerp(images[partners].float(), images.float(), share[:, None, None, None]),
            targets=torch.lerp(targets[partners], targets, of_labels[:, None]),
            labels_known=None if batch.labels_known is None else batch.labels_known * batch.labels_known[partners],
            numbers=numbers,
            **_mix_lines(batch, partners, share),
        )


def _mix_lines(batch: Batch, partners: Tensor, share: Tensor) -> dict[str, Tensor]:
    """Line targets: masks like images, points of both with their share as height; known is what is known of both."""
    mixed: dict[str, Tensor] = {}
    if batch.line_masks is not None and batch.lines_known is not None:
        masks = batch.line_masks.float()
        mixed["line_masks"] = torch.lerp(masks[partners], masks, share[:, None, None, None])
        mixed["lines_known"] = batch.lines_known * batch.lines_known[partners]
    # An image that is mixed with itself keeps its points as they are: two at one place are drawn as the higher one.
    is_itself = partners == torch.arange(len(partners), device=partners.device)
    share = torch.where(is_itself, torch.ones_like(share), share)
    for name, points in (("tips", batch.tips), ("landmarks", batch.landmarks)):
        if points is not None:
            both = torch.cat([points, points[partners]], 1)
            shares = torch.stack([share, 1 - share], 1).repeat_interleave(points.shape[1], 1)  # (B, 2 Q)
            mixed[name] = torch.cat([both[:, :, :-1], both[:, :, -1:] * shares[:, :, None]], 2)
    return mixed
