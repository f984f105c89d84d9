"""Inverted grayscale: on drawings, and on every real radiograph at hand."""

import importlib

import cv2
import numpy as np
import pytest

from catheters.data.decoding.polarity import looks_inverted, polarity_score
from catheters.data.decoding.radiograph import read_radiograph
from tests.conftest import REPOSITORY, SHARED_DATA


def drawn_chest() -> np.ndarray:
    """Bright mediastinum, dark lungs, dark air above the shoulders."""
    chest = np.full((256, 256), 140, dtype=np.uint8)
    chest[:50] = 10
    cv2.ellipse(chest, (72, 110), (35, 70), 0, 0, 360, 40, -1)
    cv2.ellipse(chest, (184, 110), (35, 70), 0, 0, 360, 40, -1)
    chest[40:220, 115:141] = 220
    return chest


def test_drawn_chest() -> None:
    chest = drawn_chest()
    assert polarity_score(chest) > 0.5
    assert not looks_inverted(chest)
    assert looks_inverted(255 - chest)
    assert polarity_score(255 - chest) == pytest.approx(-polarity_score(chest), abs=1e-3)


def test_contrast_does_not_matter() -> None:
    chest = drawn_chest()
    assert polarity_score((chest // 8 + 100).astype(np.uint8)) == pytest.approx(polarity_score(chest), abs=0.05)


def test_blank_images_are_not_suspected() -> None:
    for grey in (0, 128, 255):
        assert polarity_score(np.full((100, 80), grey, dtype=np.uint8)) == 0
    assert not looks_inverted(np.full((3, 2), 9, dtype=np.uint8))


def test_images_too_small_to_tell_are_not_judged(rng: np.random.Generator) -> None:
    assert polarity_score(rng.integers(0, 256, (31, 80), dtype=np.uint8)) == 0


@pytest.mark.skipif(not (SHARED_DATA / "xrays").is_dir(), reason="the real radiographs are not at hand")
def test_real_radiographs() -> None:
    files = sorted((SHARED_DATA / "xrays").glob("*.png"))
    assert len(files) == 52
    for file in files:
        image = read_radiograph(file).image
        assert image.shape[1] == 640
        assert not looks_inverted(image), file
        assert looks_inverted(255 - image), file


@pytest.mark.slow
@pytest.mark.skipif(not (SHARED_DATA / "xrays").is_dir(), reason="the real radiographs are not at hand")
def test_ordinary_variants_of_real_radiographs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every fifth radiograph off-centre, turned, zoomed, cropped, with arms: version 0.2.0 called 16 of 627 inverted
    and missed 71 of their inverses."""
    monkeypatch.syspath_prepend(str(REPOSITORY / "benchmarks"))
    judge = importlib.import_module("polarity").judge
    paths = tuple(sorted((SHARED_DATA / "xrays").glob("*.png"))[::5])
    judged = [outcome for row in range(len(paths)) for outcome in judge(paths, row)]
    assert len(judged) == 627
    assert not [kind for kind, is_predicted_positive, _ in judged if is_predicted_positive]
    assert sum(not inverse_is_called for _, _, inverse_is_called in judged) <= 3


def test_fine_bright_structures_tell_where_no_chest_is_seen() -> None:
    """Bright lines of a pixel on grey: all that is fine is bright, 1.5 in all, and nothing else differs."""
    lines = np.full((128, 128), 100, dtype=np.uint8)
    lines[::8] = 200
    assert polarity_score(lines) == pytest.approx(1.5, abs=0.01)
    assert polarity_score(255 - lines) == pytest.approx(-1.5, abs=0.01)
