"""Mixup: the same share for an image and its labels, drawn from Beta(alpha, alpha)."""

import numpy as np
import pytest
import torch

from catheters.data.batch import Batch
from catheters.training.mixup import Mixup


def test_images_and_labels_are_mixed_by_the_same_share() -> None:
    """Images as bright as their labels are positive stay so, whatever they are mixed with."""
    targets = torch.tensor([[0.0], [1.0], [0.0], [1.0], [1.0]])
    images = (255 * targets[:, :, None, None].expand(-1, 1, 4, 4)).to(torch.uint8)
    mixed = Mixup(0.4, seed=3)(Batch(images=images, targets=targets), number=7)
    mixed_images, mixed_targets = mixed.images, mixed.targets
    assert mixed_images.shape == (5, 1, 4, 4)
    assert torch.allclose(mixed_images / 255, mixed_targets[:, :, None, None].expand(-1, 1, 4, 4), atol=1e-6)
    assert ((mixed_targets > 0) & (mixed_targets < 1)).any()


def test_draws_follow_from_seed_and_batch() -> None:
    batch = Batch(images=torch.randint(0, 256, (6, 1, 2, 2), dtype=torch.uint8), targets=torch.rand(6, 2))
    first = Mixup(1.0, seed=0)(batch, 5).targets
    assert torch.equal(Mixup(1.0, seed=0)(batch, 5).targets, first)
    assert not torch.equal(Mixup(1.0, seed=0)(batch, 6).targets, first)
    assert not torch.equal(Mixup(1.0, seed=1)(batch, 5).targets, first)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_shares_have_the_betas_mean_and_variance(alpha: float) -> None:
    """Beta(a, a): mean 1/2, variance 1 / (4 (2 a + 1))."""
    mixup = Mixup(alpha, seed=0)
    targets = torch.tensor([[1.0], [0.0]])
    images = torch.zeros((2, 1, 1, 1), dtype=torch.uint8)
    shares = []
    for number in range(4000):
        mixed = mixup(Batch(images=images, targets=targets), number).targets
        if mixed[0] != 1.0:  # its partner was the other one
            shares.append(float(mixed[0]))
    assert len(shares) == pytest.approx(2000, abs=150)
    assert np.mean(shares) == pytest.approx(0.5, abs=0.03)
    assert np.var(shares) == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.1)
