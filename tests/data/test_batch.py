"""A batch: what it is made of, and where it is sent."""

import pytest
import torch

from catheters.data.batch import Batch


def test_collate_stacks_by_name() -> None:
    samples = [
        {"targets": torch.tensor([float(n), 0.0]), "images": torch.full((1, 2, 3), n, dtype=torch.uint8)}
        for n in (3, 7)
    ]
    batch = Batch.collate(samples)
    assert len(batch) == 2
    assert batch.images.shape == (2, 1, 2, 3)
    assert batch.images[:, 0, 1, 2].tolist() == [3, 7]
    assert batch.targets.tolist() == [[3.0, 0.0], [7.0, 0.0]]
    assert batch.draws is None
    drawn = Batch.collate([{**sample, "draws": torch.ones(4)} for sample in samples])
    assert drawn.draws is not None
    assert drawn.draws.shape == (2, 4)
    with pytest.raises(TypeError, match="'weight'"):
        Batch.collate([{**sample, "weight": torch.ones(())} for sample in samples])


def test_what_losses_read_comes_without_images() -> None:
    parts = [
        Batch(
            images=torch.zeros((n, 1, 4, 4), dtype=torch.uint8), targets=torch.full((n, 3), n), draws=torch.ones(n, 2)
        )
        for n in (2, 1)
    ]
    known = Batch.concatenate([part.without_images() for part in parts])
    assert (len(known), known.images.numel(), known.draws) == (3, 0, None)
    assert known.targets[:, 0].tolist() == [2, 2, 1]


@pytest.mark.gpu
def test_a_batch_goes_to_the_gpu_without_waiting() -> None:
    batch = Batch(images=torch.ones((2, 1, 4, 4), dtype=torch.uint8), targets=torch.zeros((2, 3)))
    assert batch.pin_memory().images.is_pinned()
    torch.cuda.set_sync_debug_mode("error")
    try:
        sent = batch.to(torch.device("cuda"))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(sent.images.cpu(), batch.images)
    assert torch.equal(sent.targets.cpu(), batch.targets)
