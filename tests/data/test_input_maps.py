"""Maps beside an image: they move as the image does, on the CPU and on a device."""

from typing import Any

import cv2
import numpy as np
import pytest
import torch

from catheters.config.presets import SAMPLE
from catheters.data.augmentation import Augmentation
from catheters.data.gpu_augmentation import GpuAugmentation
from tests.data.chains import FULL_CHAIN
from tests.data.test_gpu_augmentation import smooth_image

SHAPE = (48, 64)
NUM_MAPS = 8
GEOMETRIC: dict[str, dict[str, Any]] = {
    "HorizontalFlip": {},
    "VerticalFlip": {},
    "Affine": {"rotate": (20, 20), "scale": (0.8, 0.8), "translate_percent": (0.1, 0.1)},
    "RandomResizedCrop": {"scale": (0.5, 0.6)},
    "RandomSizedCrop": {"min_max_height": (20, 30)},
    "Perspective": {},
    "ElasticTransform": {"alpha": 20.0},
    "GridDistortion": {},
    "OpticalDistortion": {},
}


@pytest.mark.parametrize("name", sorted(GEOMETRIC))
def test_maps_move_as_the_image_does(name: str, rng: np.random.Generator) -> None:
    """A map with the image's own content ends as the image, and the image as without maps."""
    image = rng.integers(0, 256, SHAPE, dtype=np.uint8)
    maps = np.stack([image] * NUM_MAPS, axis=2)
    augmentation = Augmentation(((name, {**GEOMETRIC[name], "p": 1.0}),), SHAPE)
    for seed in range(5):
        moved, moved_maps = augmentation.with_maps(image, maps, seed)
        assert np.array_equal(moved, augmentation(image, seed))
        assert not np.array_equal(moved, image)
        for number in range(NUM_MAPS):
            assert np.array_equal(moved_maps[..., number], moved)


@pytest.mark.parametrize("name", ["CoarseDropout", "RandomBrightnessContrast", "GaussNoise", "CLAHE"])
def test_what_changes_greys_leaves_maps(name: str, rng: np.random.Generator) -> None:
    image = rng.integers(0, 256, SHAPE, dtype=np.uint8)
    maps = rng.integers(0, 256, (*SHAPE, NUM_MAPS), dtype=np.uint8)
    moved, moved_maps = Augmentation(((name, {"p": 1.0}),), SHAPE).with_maps(image, maps, 3)
    assert not np.array_equal(moved, image)
    assert np.array_equal(moved_maps, maps)


@pytest.mark.parametrize("chain", [FULL_CHAIN, SAMPLE.train_transforms], ids=["full", "sample"])
def test_a_device_moves_them_as_the_cpu(chain: Any) -> None:
    """But for the rounding of one interpolation; border and cutout fill the image alone."""
    image = smooth_image(SHAPE)
    maps = np.stack([cv2.flip(smooth_image(SHAPE), number % 2) for number in range(NUM_MAPS)], axis=2)
    of_cpu, of_device = Augmentation(chain, SHAPE), GpuAugmentation(chain, SHAPE)
    draws = torch.from_numpy(np.stack([of_device.draw(seed) for seed in range(12)]))
    channels = torch.from_numpy(np.concatenate([image[None], maps.transpose(2, 0, 1)])).expand(12, -1, -1, -1)
    result = of_device(channels, draws)
    assert torch.equal(result[:, :1], of_device(channels[:, :1], draws))
    for seed in range(12):
        _, expected = of_cpu.with_maps(image, maps, seed)
        difference = np.abs(result[seed, 1:].numpy().transpose(1, 2, 0) - expected)
        assert np.quantile(difference, 0.98) < 3
