"""Size, aspect, borders and polarity: pixels and points against values worked out by hand."""

import cv2
import numpy as np
import pytest

from catheters.checkpoints.parts import build_preprocessing
from catheters.config.settings import Settings
from catheters.data.decoding.image import UnreadableImage
from catheters.data.preprocessing import Preprocessing, place, preprocess, resize
from tests.data.decoding.test_polarity import drawn_chest


def png(image: np.ndarray) -> bytes:
    return cv2.imencode(".png", image)[1].tobytes()


def block_means(image: np.ndarray, factor: int) -> np.ndarray:
    """Area averaging by definition, in float64."""
    height, width = image.shape
    return image.reshape(height // factor, factor, width // factor, factor).astype(float).mean(axis=(1, 3))


@pytest.mark.parametrize("factor", [1, 2, 3, 5])
def test_whole_factors_are_block_means(rng: np.random.Generator, factor: int) -> None:
    image = rng.integers(0, 256, (12 * factor, 20 * factor), dtype=np.uint8)
    assert np.abs(resize(image, (12, 20)) - block_means(image, factor)).max() <= 0.5 + 1e-9


@pytest.mark.parametrize("shape", [(100, 100), (80, 130), (64, 128), (127, 65)])
def test_other_factors_are_close_to_area_averaging(shape: tuple[int, int]) -> None:
    """A smooth image with an edge, against OpenCV's areas, which are exact and slower."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    image = (120 + 60 * np.sin(rows / 9) + 50 * np.cos(columns / 7)).astype(np.uint8)
    image[shape[0] // 3 :, shape[1] // 2 :] //= 2
    exact = cv2.resize(image, (64, 64), interpolation=cv2.INTER_AREA).astype(float)
    difference = resize(image, (64, 64)) - exact
    assert np.abs(difference).mean() < 0.5
    assert abs(difference.mean()) < 0.1


def test_enlarging_is_bilinear() -> None:
    image = np.array([[0, 100], [100, 200]], dtype=np.uint8)
    # Centres of 4 pixels over 2: at -0.25, 0.25, 0.75 and 1.25 of the old ones, held at the edge.
    assert resize(image, (2, 4)).tolist() == [[0, 25, 75, 100], [100, 125, 175, 200]]


def test_one_side_shrinks_and_the_other_is_enlarged() -> None:
    """Stripes of one pixel become their mean, whatever happens to the other side."""
    stripes = np.tile(np.array([0, 200], dtype=np.uint8), (30, 300))  # 30 x 600
    resized = resize(stripes, (60, 100))
    assert resized.shape == (60, 100)
    assert np.abs(resized.astype(int) - 100).max() <= 1


def test_stretch_and_pad(rng: np.random.Generator) -> None:
    image = rng.integers(1, 256, (64, 32), dtype=np.uint8)
    stretched = preprocess(png(image), Preprocessing(image_shape=(16, 16)))
    assert stretched.pixels.shape == (16, 16)
    assert stretched.full_shape == (64, 32)
    assert stretched.box == (0, 0, 64, 32)
    padded = preprocess(png(image), Preprocessing(image_shape=(16, 16), resize="pad")).pixels
    assert np.abs(padded[:, 4:12] - block_means(image, 4)).max() <= 0.5 + 1e-9  # 16 x 8, in the middle
    assert not padded[:, :4].any()
    assert not padded[:, 12:].any()
    wide = preprocess(png(image.T), Preprocessing(image_shape=(16, 32), resize="pad")).pixels
    assert wide.shape == (16, 32)
    assert wide.all()  # it fits: nothing is left to fill


def test_black_borders_are_cut_off(rng: np.random.Generator) -> None:
    decoded = rng.integers(50, 256, (40, 30), dtype=np.uint8)
    bordered = rng.integers(0, 13, (60, 50), dtype=np.uint8)  # not quite black
    bordered[5:45, 12:42] = decoded
    plain = Preprocessing(image_shape=(20, 15))
    cropping = Preprocessing(image_shape=(20, 15), crop_borders=True)
    made = preprocess(png(bordered), cropping)
    assert made.box == (5, 12, 45, 42)
    assert (made.pixels == preprocess(png(decoded), plain).pixels).all()
    assert preprocess(png(bordered), plain).box == (0, 0, 60, 50)
    black = preprocess(png(np.zeros((30, 30), dtype=np.uint8)), cropping)
    assert black.box == (0, 0, 30, 30)
    assert not black.pixels.any()


def test_what_is_left_of_a_large_jpeg_is_not_enlarged(rng: np.random.Generator) -> None:
    """Decoded to a half, the part inside the border would be smaller than the image asked for."""
    inside = cv2.GaussianBlur(rng.integers(60, 256, (300, 300), dtype=np.uint8), (0, 0), 2)
    bordered = np.zeros((600, 600), dtype=np.uint8)
    bordered[100:400, 200:500] = inside
    jpeg = cv2.imencode(".jpg", bordered, [cv2.IMWRITE_JPEG_QUALITY, 100])[1].tobytes()
    made = preprocess(jpeg, Preprocessing(image_shape=(300, 300), crop_borders=True))
    assert made.box == pytest.approx((100, 200, 400, 500), abs=2)
    if made.box == (100, 200, 400, 500):
        assert np.abs(made.pixels.astype(int) - inside).mean() < 1.5


@pytest.mark.parametrize("treatment", ["keep", "invert", "exclude"])
def test_inverted_grayscale(treatment: str) -> None:
    upright, inverted = png(drawn_chest()), png(255 - drawn_chest())
    preprocessing = Preprocessing(image_shape=(64, 64), inverted=treatment)
    expected = preprocess(upright, Preprocessing(image_shape=(64, 64))).pixels
    assert (preprocess(upright, preprocessing).pixels == expected).all()
    if treatment == "exclude":
        with pytest.raises(UnreadableImage, match="excluded: likely inverted grayscale"):
            preprocess(inverted, preprocessing)
        return
    made = preprocess(inverted, preprocessing)
    assert made.notes[0].kind == "inverted"
    assert ("turned round" in made.notes[0].text) == (treatment == "invert")
    difference = made.pixels.astype(int) - (expected if treatment == "invert" else 255 - expected)
    assert np.abs(difference).max() <= 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "preprocessing",
    [
        Preprocessing(image_shape=(50, 80)),
        Preprocessing(image_shape=(64, 64), resize="pad"),
        Preprocessing(image_shape=(90, 40), resize="pad"),
        Preprocessing(image_shape=(70, 70), crop_borders=True),
        Preprocessing(image_shape=(70, 60), resize="pad", crop_borders=True),
    ],
)
@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_points_go_where_their_pixels_go(preprocessing: Preprocessing, suffix: str) -> None:
    """The centre of a bright blob, found in the preprocessed pixels, is where `place` puts the blob's point."""
    rows, columns = np.mgrid[:300, :400]
    x, y = 233.0, 121.0
    image = 30 + 200 * np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / (2 * 12**2))
    image[:20] = 0
    image[:, 370:] = 0
    data = cv2.imencode(suffix, image.round().astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 100])[1].tobytes()
    made = preprocess(data, preprocessing)
    weights = np.clip(made.pixels.astype(float) - 60, 0, None)
    found = [(weights.sum(axis=axis) * np.arange(weights.shape[1 - axis])).sum() / weights.sum() for axis in (0, 1)]
    placed = place(made.box, preprocessing).apply(np.array([[x, y]]))[0]
    assert placed == pytest.approx(found, abs=0.15)


def test_placement_by_hand() -> None:
    """100 x 200 kept, from (10, 20) on, padded to 50 x 50: 25 rows of 50, from row 12 on; a scale of a quarter."""
    placement = place((10, 20, 110, 220), Preprocessing(image_shape=(50, 50), resize="pad"))
    assert placement.scale == (0.25, 0.25)
    corner_of_kept = np.array([[19.5, 9.5]])  # the edge of the first kept pixel
    assert placement.apply(corner_of_kept).tolist() == [[-0.5, 11.5]]
    assert placement.undo(np.array([[-0.5, 11.5], [49.5, 36.5]])).tolist() == [[19.5, 9.5], [219.5, 109.5]]


def test_settings() -> None:
    settings = Settings(image_size=(320, 256), resize="pad", crop_borders=True, inverted="invert", cache_name="x")
    preprocessing = build_preprocessing(settings)
    assert preprocessing.describe() == {
        "image_size": [320, 256],
        "resize": "pad",
        "crop_borders": True,
        "inverted": "invert",
        "resampling": "area",
    }
    assert settings.cache_file.name == "x_320x256.npy"
    assert Settings(image_size=64).image_shape == (64, 64)
    assert Settings(image_size=64).cache_file.name == "ranzcr_64.npy"
