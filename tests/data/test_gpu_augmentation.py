"""Augmentation on the GPU: the CPU's draws, and its images but for the rounding of one interpolation."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch

from catheters.data.augmentation import Augmentation
from catheters.data.gpu_augmentation import GpuAugmentation
from catheters.errors import SettingsError
from tests.data.chains import FULL_CHAIN

Chain = tuple[tuple[str, dict[str, Any]], ...]

SHAPE = (96, 128)
AFFINE = {"scale": (0.9, 1.1), "translate_percent": (-0.06, 0.06), "rotate": (-15, 15), "p": 1.0}
CROP = ("RandomResizedCrop", {"scale": (0.5, 0.9)})


def smooth_image(shape: tuple[int, int] = SHAPE) -> npt.NDArray[np.uint8]:
    """Without anything that one interpolation more would blur."""
    rows, columns = np.indices(shape)
    return (128 + 60 * np.sin(columns / 17) + 50 * np.cos(rows / 13)).astype(np.uint8)


def both(chain: Chain, image: npt.NDArray[np.uint8], seeds: range) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """(n, H, W) of the CPU and of the device, with the same seeds."""
    of_cpu, of_device = Augmentation(chain, image.shape), GpuAugmentation(chain, image.shape)
    draws = torch.from_numpy(np.stack([of_device.draw(seed) for seed in seeds]))
    images = torch.from_numpy(image)[None, None].expand(len(seeds), 1, -1, -1)
    result = of_device(images, draws)
    assert result.dtype == torch.float32
    return np.stack([of_cpu(image, seed) for seed in seeds]).astype(np.float32), result[:, 0].numpy()


@pytest.mark.parametrize(
    "chain",
    [
        (("HorizontalFlip", {"p": 0.5}), ("VerticalFlip", {"p": 0.5})),
        (("CoarseDropout", {"num_holes_range": (1, 5), "fill": 77, "p": 0.7}),),
        (("HorizontalFlip", {"p": 0.5}), ("CoarseDropout", {"num_holes_range": (2, 2), "p": 1.0})),
        (),
    ],
)
def test_what_needs_no_interpolation_is_the_same(chain: Chain, rng: np.random.Generator) -> None:
    image = rng.integers(0, 256, SHAPE, dtype=np.uint8)
    of_cpu, of_device = both(chain, image, range(40))
    np.testing.assert_allclose(of_device, of_cpu, atol=0.01)  # places are in float32


@pytest.mark.parametrize(
    "chain",
    [
        (("Affine", AFFINE),),
        (("Affine", {**AFFINE, "fill": 200}),),
        (("Affine", {**AFFINE, "border_mode": 1}),),
        (("Affine", {**AFFINE, "border_mode": 2, "shear": (-5, 5)}),),
        (("Affine", {**AFFINE, "border_mode": 4, "keep_ratio": True}),),
        (CROP,),
        (CROP, ("HorizontalFlip", {"p": 0.5})),
        (CROP, ("VerticalFlip", {"p": 0.5}), ("Affine", AFFINE)),
        (CROP, CROP),
        (("Affine", AFFINE), ("Affine", AFFINE)),
        (("VerticalFlip", {"p": 0.5}), ("Affine", AFFINE), ("HorizontalFlip", {"p": 0.5}), CROP),
        (("RandomSizedCrop", {"min_max_height": (40, 90)}),),
        (("RandomBrightnessContrast", {"p": 0.8}), ("Affine", AFFINE)),
        FULL_CHAIN,
    ],
)
def test_warps_differ_by_interpolation_alone(chain: Chain) -> None:
    """Each image is drawn the same; OpenCV rounds places to 1/32 pixel and every step to whole grey values."""
    of_cpu, of_device = both(chain, smooth_image(), range(40))
    difference = np.abs(of_device - of_cpu)
    assert difference.mean() < 0.5
    # A border's step lies on other sides of a pixel here and there.
    assert (difference > 3).mean() < 0.02
    assert np.std(of_cpu.mean(axis=(1, 2))) > 0.5, "the draws differ from image to image"


def test_images_have_the_statistics_of_the_cpu(sample_folder: Path) -> None:
    """A full chain over synthetic radiographs: how bright, how spread, how much is black, how sharp."""
    for file in sorted((sample_folder / "train").glob("*.jpg"))[:4]:
        image = cv2.imread(str(file), cv2.IMREAD_GRAYSCALE)
        assert image is not None
        of_cpu, of_device = both(FULL_CHAIN, image, range(200))
        for statistic, tolerance in (
            (lambda pixels: pixels.mean(axis=(1, 2)), 0.5),
            (lambda pixels: pixels.std(axis=(1, 2)), 1.0),
            (lambda pixels: 100 * (pixels < 1).mean(axis=(1, 2)), 1.0),
            (lambda pixels: np.abs(np.diff(pixels, axis=2)).mean(axis=(1, 2)), 1.5),
        ):
            difference = statistic(of_device) - statistic(of_cpu)  # (200,) image by image
            assert np.abs(difference).mean() < tolerance
            # One interpolation less leaves a little more of the finest detail; the rest is the same on average.
            assert abs(difference.mean()) < tolerance


@pytest.mark.parametrize(
    ("chain", "message"),
    [
        ((("GaussNoise", {}),), "GaussNoise runs on a CPU only; set augment_on='cpu' (a device does HorizontalFlip, "),
        ((("OneOf", {"transforms": (("HorizontalFlip", {}),)}),), "OneOf runs on a CPU only; set augment_on='cpu'"),
        ((("Affine", {"interpolation": 0}),), "Affine: another interpolation than linear is for a CPU only"),
        ((("Affine", {"border_mode": 3}),), "Affine: border_mode=3 is for a CPU only"),
        ((("Affine", {"fit_output": True}),), "Affine: fit_output=True is for a CPU only"),
        ((("CoarseDropout", {"fill": "random"}),), "CoarseDropout: fill='random' is for a CPU only"),
        ((("RandomBrightnessContrast", {"brightness_by_max": False}),), "brightness_by_max=False is for a CPU only"),
        ((("HorizontalFlop", {}),), "'HorizontalFlop' is not an albumentations transform; did you mean"),
    ],
)
def test_what_a_device_cannot_do(chain: Chain, message: str) -> None:
    with pytest.raises(SettingsError) as raised:
        GpuAugmentation(chain, SHAPE)
    assert message in str(raised.value)
