"""Augmentation: draws by seed alone, and every mistake in the settings' pairs."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from catheters.config.published import SINGLE_TRANSFORMS
from catheters.data.augmentation import Augmentation
from catheters.data.quiet_albumentations import A
from catheters.errors import SettingsError
from tests.data.chains import FULL_CHAIN

FLIP = (("HorizontalFlip", {"p": 0.5}),)
TRANSFORMS = FULL_CHAIN
ONE_OF = (
    ("OneOf", {"transforms": (("HorizontalFlip", {}), ("VerticalFlip", {}), ("GaussNoise", {})), "p": 0.75}),
    ("CLAHE", {"p": 0.5}),
)


def test_flip_is_a_flip_half_the_time(rng: np.random.Generator) -> None:
    augmentation = Augmentation(FLIP, (16, 16))
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
    augmentation = Augmentation(TRANSFORMS, (32, 32))
    image = rng.integers(0, 256, (32, 32), dtype=np.uint8)
    first = [augmentation(image, seed) for seed in range(8)]
    again = [augmentation(image, seed) for seed in reversed(range(8))][::-1]
    other = Augmentation(TRANSFORMS, (32, 32))
    for seed in range(8):
        assert (first[seed] == again[seed]).all()
        assert (first[seed] == other(image, seed)).all()
    assert len({result.tobytes() for result in first}) == 8


def test_absent_size_is_the_image_size() -> None:
    augmentation = Augmentation((("RandomResizedCrop", {}),), (24, 32))
    assert augmentation(np.zeros((24, 32), dtype=np.uint8), 0).shape == (24, 32)


def dot_image(point: tuple[float, float], shape: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """A round bright dot on black."""
    rows, columns = np.indices(shape)
    distance = np.hypot(columns - point[0], rows - point[1])
    return np.clip(255 * (5 - distance), 0, 255).astype(np.uint8)


def centre_of(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64] | None:
    """x and y of the dot's centre of mass; None where it is not wholly in the image."""
    rows, columns = np.nonzero(image)
    height, width = image.shape
    if not len(rows) or min(rows.min(), columns.min(), height - 1 - rows.max(), width - 1 - columns.max()) < 2:
        return None
    values = image[rows, columns].astype(np.float64)
    return np.array([(columns * values).sum(), (rows * values).sum()]) / values.sum()


MIRRORED = {"scale": (0.8, 1.2), "translate_percent": (-0.1, 0.1), "rotate": (-30, 30), "border_mode": 4, "p": 1.0}
FOLLOWED = {
    "flip": (FLIP, 0.01),
    "affine": ((("Affine", {"scale": (0.8, 1.2), "rotate": (-30, 30), "p": 1.0}),), 0.05),
    "affine with a mirrored border": ((("Affine", MIRRORED),), 0.05),
    "crop": ((("RandomResizedCrop", {"scale": (0.5, 1.0), "ratio": (0.8, 1.2)}),), 0.5),
    "full chain but for the holes": (TRANSFORMS[:3], 0.3),
    "one of several": (
        (("OneOf", {"transforms": (("HorizontalFlip", {}), ("Rotate", {"border_mode": 2})), "p": 1.0}),),
        0.3,
    ),
    "elastic": ((("ElasticTransform", {"alpha": 20, "sigma": 10, "p": 1.0}),), 2.0),
    "grid distortion": ((("GridDistortion", {"p": 1.0}),), 2.0),
    "optical distortion": ((("OpticalDistortion", {"p": 1.0}),), 2.0),
    "perspective": ((("Perspective", {"p": 1.0}),), 0.2),
    "rotate": ((("Rotate", {"border_mode": 2, "p": 1.0}), ("VerticalFlip", {"p": 0.5})), 0.1),
    "shift, scale, rotate": ((("ShiftScaleRotate", {"p": 1.0}),), 0.1),
}


@pytest.mark.filterwarnings("ignore:ShiftScaleRotate is a special case of Affine")
@pytest.mark.parametrize("case", FOLLOWED)
def test_points_follow_the_pixels(case: str) -> None:
    """A dot lies after augmentation where its point is said to lie, whatever the other points are."""
    transforms, tolerance = FOLLOWED[case]
    shape = (96, 128)
    augmentation = Augmentation(transforms, shape)
    others = [(-4.0, 3.0), (127.5, 95.4)]
    num_checked = 0
    for seed in range(12):
        for point in ((64.0, 48.0), (40.0, 30.0), (90.0, 70.0)):
            image = dot_image(point, shape)
            augmented = augmentation(image, seed)
            moved = augmentation.with_points(image, np.array([others[0], point, others[1]]), seed)[1]
            assert moved.shape == (3, 2)
            assert (augmentation(image, seed) == augmented).all()
            centre = centre_of(augmented)
            is_lost = "distortion" in case and np.isnan(moved[1]).any()  # moved out of what can be followed
            if centre is not None and not is_lost:
                assert np.abs(moved[1] - centre).max() < tolerance, (seed, point)
                num_checked += 1
    assert num_checked > 12


def test_one_of_several(rng: np.random.Generator) -> None:
    """Each in a quarter of the images, never two; none in a quarter. Points follow the one that is chosen."""
    augmentation = Augmentation(ONE_OF[:1], (16, 24))
    image = rng.integers(0, 256, (16, 24), dtype=np.uint8)
    points = np.array([[3.0, 5.0]])
    results = {"none": (image, [[3, 5]]), "across": (image[:, ::-1], [[20, 5]]), "down": (image[::-1], [[3, 10]])}
    counts = dict.fromkeys([*results, "noise"], 0)
    for seed in range(400):
        augmented, moved = augmentation.with_points(image, points, seed)
        found = next((name for name, (result, _) in results.items() if (augmented == result).all()), "noise")
        assert moved.tolist() == (results[found][1] if found != "noise" else points.tolist())
        counts[found] += 1
    assert min(counts.values()) > 65  # 100 expected, 4 standard deviations of 8.7


def test_the_published_chain_gives_grey_images(rng: np.random.Generator) -> None:
    augmentation = Augmentation(SINGLE_TRANSFORMS, (64, 48))
    image = rng.integers(0, 256, (64, 48), dtype=np.uint8)
    results = [augmentation(image, seed) for seed in range(12)]
    assert {(result.shape, result.dtype) for result in results} == {((64, 48), np.dtype(np.uint8))}
    assert len({result.tobytes() for result in results}) == 12


def test_points_and_pixels_have_the_same_draws() -> None:
    """Worked out by hand: a flip takes x to width - 1 - x, and half the seeds flip."""
    augmentation = Augmentation(FLIP, (16, 24))
    image = np.tile(np.arange(24, dtype=np.uint8), (16, 1))
    points = np.array([[3.0, 5.0], [-1.5, 20.0]])
    flipped = 0
    for seed in range(40):
        is_flipped = augmentation(image, seed)[0, 0] == 23
        moved = augmentation.with_points(image, points, seed)[1]
        assert moved.tolist() == ([[20.0, 5.0], [24.5, 20.0]] if is_flipped else points.tolist())
        flipped += is_flipped
    assert 8 < flipped < 32


def test_points_without_anything_to_move_them() -> None:
    image = np.zeros((16, 16), dtype=np.uint8)
    points = np.array([[3.25, -5.0]])
    for transforms in ((), (("GaussNoise", {"p": 1.0}),), (("CoarseDropout", {"p": 1.0}),)):
        assert (Augmentation(transforms, (16, 16)).with_points(image, points, 0)[1] == points).all()
    assert Augmentation(FLIP, (16, 16)).with_points(image, np.empty((0, 2)), 0)[1].shape == (0, 2)


def test_transforms_that_lose_their_points_are_named() -> None:
    """albumentations moves the points of a thin plate spline, but not to where the pixels go."""
    assert Augmentation((*FLIP, ("ThinPlateSpline", {})), (32, 32)).unfollowed == ("ThinPlateSpline",)
    assert Augmentation(TRANSFORMS, (32, 32)).unfollowed == ()


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
        ("OneOf", {}, "OneOf: {}; expected {'transforms': "),
        ("OneOf", {"transforms": ()}, "OneOf: .*expected {'transforms': "),
        ("OneOf", {"transforms": ("HorizontalFlip",)}, "OneOf: .*expected {'transforms': "),
        ("OneOf", {"transforms": FLIP, "q": 1}, "OneOf: .*expected {'transforms': "),
        ("OneOf", {"transforms": FLIP, "p": 2}, "OneOf: p=2; a probability in 0..1 is expected"),
        ("OneOf", {"transforms": ((1, {}),)}, "OneOf: .*expected {'transforms': "),
        (
            "OneOf",
            {"transforms": (("Blur", {"p": 0.0}), ("HorizontalFlip", {"p": 0}))},
            "OneOf: each of its transforms has p=0, and one is chosen by them; set one above 0",
        ),
        ("OneOf", {"transforms": ONE_OF}, "OneOf: holds another one"),
        ("OneOf", {"transforms": (("HorizontalFlop", {}),)}, "'HorizontalFlop' is not an albumentations transform"),
        ("OneOf", {"transforms": (("Resize", {"height": 8, "width": 8}),)}, "Resize: turns uint8"),
        ("Normalize", {"mean": (0.5,), "std": (0.5,)}, r"into float32"),
    ],
)
def test_mistakes(name: str, params: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=f"^train_transforms: .*{message}") as error:
        Augmentation(((name, params),), (32, 32))
    assert "\n" not in str(error.value)


def test_transforms_are_drawn_independently(rng: np.random.Generator) -> None:
    """Two flips of one half each: all four results as often; albumentations' own seeding would give only two."""
    augmentation = Augmentation((("HorizontalFlip", {"p": 0.5}), ("VerticalFlip", {"p": 0.5})), (16, 16))
    image = rng.integers(0, 256, (16, 16), dtype=np.uint8)
    results = [image, image[:, ::-1], image[::-1], image[::-1, ::-1]]
    counts = [0, 0, 0, 0]
    for seed in range(400):
        augmented = augmentation(image, seed)
        counts[next(number for number, result in enumerate(results) if (augmented == result).all())] += 1
    assert min(counts) > 65  # 100 expected, 4 standard deviations of 8.7


def test_draws_are_those_of_the_images(rng: np.random.Generator) -> None:
    """Parameters that are drawn without pixels, applied by albumentations itself, give the same images."""
    augmentation = Augmentation(TRANSFORMS, (48, 32))
    image = rng.integers(0, 256, (48, 32), dtype=np.uint8)
    for seed in range(30):
        result = image
        for transform, params in augmentation.draw(seed):
            if params is not None:
                result = transform.apply(np.ascontiguousarray(result), **params)
        assert (result == augmentation(image, seed)).all()


@pytest.mark.parametrize("name", ["HorizontalFlip", "VerticalFlip", "Affine", "RandomResizedCrop", "RandomSizedCrop"])
def test_usual_transforms_move_points_as_albumentations_does(name: str, rng: np.random.Generator) -> None:
    """Its crops leave out half a pixel of the scale, which OpenCV's resizing has."""
    given = {"RandomSizedCrop": {"min_max_height": (20, 40)}, "Affine": {"rotate": (-20, 20), "scale": (0.8, 1.2)}}
    augmentation = Augmentation(((name, {**given.get(name, {}), "p": 1.0}),), (48, 64))
    points = rng.uniform(-5, 70, (30, 2))
    points[7] = np.nan
    for seed in range(10):
        ((transform, params),) = augmentation.draw(seed)
        assert isinstance(transform, A.DualTransform) and params is not None
        keypoints = np.concatenate([points, np.zeros((30, 3))], axis=1).astype(np.float32)
        expected = transform.apply_to_keypoints(keypoints, **params)[:, :2].astype(np.float64)
        if "crop_coords" in params:
            left, top, right, bottom = params["crop_coords"]
            expected += 0.5 * np.array([64 / (right - left), 48 / (bottom - top)]) - 0.5
        np.testing.assert_allclose(augmentation.carry(points, [params]), expected, atol=1e-4)
