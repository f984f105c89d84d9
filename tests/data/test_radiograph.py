"""Decoding and resizing: pixels against values worked out by hand, and every unreadable file."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from catheters.data.radiograph import UnreadableImage, read_radiograph, resize
from tests.conftest import SHARED_DATA


def test_png_is_read_as_it_is(tmp_path: Path, rng: np.random.Generator) -> None:
    image = rng.integers(0, 256, (30, 20), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "x.png"), image)
    assert (read_radiograph(tmp_path / "x.png") == image).all()


def test_jpeg_of_one_grey(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "x.jpg"), np.full((16, 24), 77, dtype=np.uint8))
    image = read_radiograph(tmp_path / "x.jpg")
    assert image.shape == (16, 24)
    assert (np.abs(image.astype(int) - 77) <= 1).all()


def test_colour_becomes_luma(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "x.png"), np.full((4, 4, 3), (0, 0, 255), dtype=np.uint8))  # red, in OpenCV's order
    assert (read_radiograph(tmp_path / "x.png") == round(0.299 * 255)).all()


def test_sixteen_bits_keep_their_range(tmp_path: Path) -> None:
    """A 12-bit ramp in a 16-bit file: its values, not the file's, become 0..255."""
    ramp = np.linspace(100, 4095, 64).round().astype(np.uint16).reshape(8, 8)
    cv2.imwrite(str(tmp_path / "x.png"), ramp)
    expected = (ramp.astype(np.float64) - 100) / (4095 - 100) * 255
    assert np.abs(read_radiograph(tmp_path / "x.png") - expected).max() <= 0.5 + 1e-3
    cv2.imwrite(str(tmp_path / "flat.png"), np.full((4, 4), 9, dtype=np.uint16))
    assert not read_radiograph(tmp_path / "flat.png").any()


@pytest.mark.parametrize("suffix", ["png", "jpg"])
@pytest.mark.parametrize("kept", [0.2, 0.6, 0.95])
def test_truncated_file_is_refused(tmp_path: Path, rng: np.random.Generator, suffix: str, kept: float) -> None:
    whole = cv2.imencode(f".{suffix}", rng.integers(0, 256, (64, 64), dtype=np.uint8))[1].tobytes()
    (tmp_path / f"x.{suffix}").write_bytes(whole[: int(len(whole) * kept)])
    with pytest.raises(UnreadableImage, match="cannot be decoded"):
        read_radiograph(tmp_path / f"x.{suffix}")


def test_other_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(UnreadableImage, match="no such file"):
        read_radiograph(tmp_path / "absent.png")
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(UnreadableImage, match="empty"):
        read_radiograph(tmp_path / "empty.jpg")
    (tmp_path / "page.jpg").write_text("<html>not an image</html>")
    with pytest.raises(UnreadableImage, match="cannot be decoded: not an image"):
        read_radiograph(tmp_path / "page.jpg")
    with pytest.raises(UnreadableImage, match="cannot be read"):
        read_radiograph(tmp_path)


def test_shrinking_averages_areas() -> None:
    image = np.array([[0, 100, 10, 30], [100, 200, 50, 70]], dtype=np.uint8).repeat(2, axis=0)
    # 4 x 4 to 2 x 2: each pixel is the mean of a 2 x 2 block, two equal rows here.
    assert resize(image, 2).tolist() == [[50, 20], [150, 60]]


def test_resizing_stretches(rng: np.random.Generator) -> None:
    assert resize(rng.integers(0, 256, (50, 90), dtype=np.uint8), 64).shape == (64, 64)
    assert resize(rng.integers(0, 256, (5, 9), dtype=np.uint8), 64).shape == (64, 64)


@pytest.mark.skipif(not (SHARED_DATA / "xrays").is_dir(), reason="the real radiographs are not at hand")
def test_real_radiographs() -> None:
    files = sorted((SHARED_DATA / "xrays").glob("*.png"))
    assert len(files) == 52
    for file in files:
        image = read_radiograph(file)
        assert image.shape[1] == 640
        assert 20 < image.mean() < 235
