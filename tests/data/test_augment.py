"""Augmentation: draws by seed alone, and every mistake in the settings' pairs."""

from typing import Any

import numpy as np
import pytest

from catheters.data.augment import Augmentation
from catheters.errors import SettingsError
from catheters.settings_file import load_settings
from tests.conftest import REPOSITORY

FLIP = (("HorizontalFlip", {"p": 0.5}),)
TRANSFORMS = load_settings(REPOSITORY / "config.py").train_transforms


def test_flip_is_a_flip_half_the_time(rng: np.random.Generator) -> None:
    augmentation = Augmentation(FLIP, 16)
    image = rng.integers(0, 256, (16, 16), dtype=np.uint8)
    flipped = 0
    for seed in range(400):
        result = augmentation(image, seed)
        if (result == image[:, ::-1]).all():
            flipped += 1
        else:
            assert (result == image).all()
    assert 160 < flipped < 240  # 200 expected, 4 standard deviations of 10


def test_seed_decides_alone(rng: np.random.Generator) -> None:
    augmentation = Augmentation(TRANSFORMS, 32)
    image = rng.integers(0, 256, (32, 32), dtype=np.uint8)
    first = [augmentation(image, seed) for seed in range(8)]
    again = [augmentation(image, seed) for seed in reversed(range(8))][::-1]
    other = Augmentation(TRANSFORMS, 32)
    for seed in range(8):
        assert (first[seed] == again[seed]).all()
        assert (first[seed] == other(image, seed)).all()
    assert len({result.tobytes() for result in first}) == 8


def test_absent_size_is_the_image_size() -> None:
    assert Augmentation((("RandomResizedCrop", {}),), 24)(np.zeros((24, 24), dtype=np.uint8), 0).shape == (24, 24)


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("HorizontalFlop", {}, "'HorizontalFlop' is not an albumentations transform; did you mean 'HorizontalFlip'?"),
        ("Compose", {}, "'Compose' is not an albumentations transform"),
        ("Affine", {"scales": (1, 2)}, "Affine: 'scales' is not a parameter; did you mean 'scale'?"),
        ("HorizontalFlip", {"p": 2}, "HorizontalFlip: p: Input should be less than or equal to 1"),
        ("RandomResizedCrop", {"scale": (0.8, 1.2)}, "RandomResizedCrop: scale: "),
        ("Resize", {"height": 8, "width": 8}, r"Resize: turns uint8 \(32, 32\) into uint8 \(8, 8\)"),
        (
            "Resize",
            {"height": 8, "width": 8, "p": 0.01},
            "Resize: turns uint8",
        ),  # rarely, and then in the middle of a run
        ("Normalize", {"mean": (0.5,), "std": (0.5,)}, r"into float32"),
    ],
)
def test_mistakes(name: str, params: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=f"^train_transforms: .*{message}") as error:
        Augmentation(((name, params),), 32)
    assert "\n" not in str(error.value)
