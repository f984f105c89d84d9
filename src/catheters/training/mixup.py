"""Mixup on multi-label targets."""

import dataclasses

import torch
from torch import Tensor

from catheters.config.settings import IMAGE_WEIGHT
from catheters.data.batch import KNOWN, MAPS, Batch, send
from catheters.runtime.random import MIXUP, generator_of


class Mixup:
    """Mixes each image and its labels with another's of the batch.

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
        of_maps = share[:, None, None, None]
        lines: dict[str, Tensor] = {}
        for name in MAPS:
            maps: Tensor | None = getattr(batch, name)
            if maps is not None:
                lines[name] = torch.lerp(maps[partners].float(), maps.float(), of_maps)
        for name in KNOWN:
            known: Tensor | None = getattr(batch, name)
            if known is not None:
                lines[name] = known * known[partners]
        return dataclasses.replace(
            batch,
            images=torch.lerp(images[partners].float(), images.float(), of_maps),
            targets=torch.lerp(targets[partners], targets, of_labels[:, None]),
            numbers=numbers,
            **lines,
        )
