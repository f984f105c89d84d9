"""Mixup: the same share for an image and its labels, drawn from Beta(alpha, alpha)."""

import numpy as np
import pytest
import torch

from catheters.data.batch import Batch
from catheters.training.losses import BinaryCrossEntropy
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


def test_labels_count_by_the_weight_of_their_own_image() -> None:
    """Binary cross-entropy is linear in targets: the mixed one is that of each image, by its share and its weight."""
    logits, targets = torch.tensor([[0.3], [0.3]]), torch.tensor([[1.0], [0.0]])
    weights = torch.tensor([0.5, 3.0])
    loss = BinaryCrossEntropy(torch.ones(1))
    alone = [float(loss(logits[:1], targets[row : row + 1])) for row in range(2)]
    images = torch.tensor([255, 0], dtype=torch.uint8).view(2, 1, 1, 1)
    for number in range(20):
        mixed = Mixup(0.4, seed=1)(Batch(images=images, targets=targets, numbers={"weight": weights}), number)
        for row in range(2):
            share = float(mixed.images[row]) / 255  # of the first image
            one = float(loss(logits[:1], mixed.targets[row : row + 1], mixed.numbers["weight"][row : row + 1]))
            assert one == pytest.approx(share * 0.5 * alone[0] + (1 - share) * 3.0 * alone[1], rel=1e-5)


def test_an_image_of_weight_0_teaches_its_partner_nothing() -> None:
    images, targets = torch.zeros((2, 1, 1, 1), dtype=torch.uint8), torch.tensor([[1.0], [0.0]])
    for weights in (torch.tensor([0.0, 1.0]), torch.zeros(2)):
        for number in range(10):
            mixed = Mixup(0.4, seed=1)(Batch(images=images, targets=targets, numbers={"weight": weights}), number)
            assert torch.isfinite(mixed.targets).all()
            assert (mixed.targets * mixed.numbers["weight"][:, None] == 0).all()
