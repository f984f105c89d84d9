"""Thin lines survive resizing; what was made with the earlier, quick resizing is named so and never mixed with it."""

import dataclasses
import hashlib
import importlib
import json
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
import simplejpeg
import torch

from catheters.checkpoints.checkpoint import load_checkpoint
from catheters.data.cache.cache import CacheError, open_cache
from catheters.data.cache.index import read_index, write_index
from catheters.data.cache.writer import build_cache
from catheters.data.preprocessing import Preprocessing, preprocess
from catheters.data.tables.label_table import LabelTable
from tests.conftest import REPOSITORY
from tests.data.decoding.test_dicom import make_dicom

AREA, QUICK = (Preprocessing(image_shape=(8, 8), resampling=resampling) for resampling in ("area", "quick"))


@pytest.fixture
def resizing(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """benchmarks/resizing.py, which draws the lines and measures them."""
    monkeypatch.syspath_prepend(str(REPOSITORY / "benchmarks"))
    return importlib.import_module("resizing")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "x_8.npy"


def area_weights(before: int, after: int) -> np.ndarray:
    """(after, before) float64: the share that each pixel before has in each pixel after, by how far they overlap."""
    edges = np.arange(after + 1) * before / after
    starts = np.arange(before)
    overlap = np.minimum(edges[1:, None], starts + 1) - np.maximum(edges[:-1, None], starts)
    return np.clip(overlap, 0, None) * after / before


def exact_areas(data: bytes, target: int) -> np.ndarray:
    """Full decoding and area averaging by definition."""
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE).astype(np.float64)
    height, width = image.shape
    return area_weights(height, target) @ image @ area_weights(width, target).T


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(2048, 2500), (2500, 2048)])
def test_lines_of_two_to_six_pixels_keep_their_contrast(resizing: ModuleType, shape: tuple[int, int]) -> None:
    """Contrast of every width, and the gradients, within 2% of exact area averaging from full decoding."""
    background = resizing.synthetic_radiograph(shape, np.random.default_rng(0))
    drawn = resizing.draw_lines(background, np.random.default_rng(1))

    def as_by_default(data: bytes, target: int) -> np.ndarray:
        return preprocess(data, Preprocessing(image_shape=(target, target))).pixels

    for target in (256, 512, 640, 1024):
        found = resizing.Measured.of(as_by_default, drawn, target, 1)
        expected = resizing.Measured.of(exact_areas, drawn, target, 1)
        assert len(found.contrasts) == 5
        assert min(expected.contrasts) > 3
        for width, contrast, whole in zip(resizing.WIDTHS, found.contrasts, expected.contrasts, strict=True):
            assert contrast >= 0.98 * whole, (target, width)
        assert found.gradient >= 0.98 * expected.gradient, target


@pytest.mark.parametrize("shape", [(600, 500), (250, 300)])
def test_pixels_are_those_of_opencv_alone(rng: np.random.Generator, shape: tuple[int, int]) -> None:
    """Other programs, which run an exported model, need nothing else; also where the quick way would go by blocks."""
    image = cv2.GaussianBlur(rng.integers(0, 256, shape, dtype=np.uint8), (0, 0), 1)
    data = cv2.imencode(".jpg", image)[1].tobytes()
    alone = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
    expected = cv2.resize(alone, (128, 120), interpolation=cv2.INTER_AREA)
    assert (preprocess(data, Preprocessing(image_shape=(120, 128))).pixels == expected).all()


def test_quick_pixels_are_those_of_version_0_2_0(rng: np.random.Generator) -> None:
    """600 x 600 to 128 x 128: decoded to a quarter, bilinear to 256 x 256, blocks of 2 x 2."""
    image = cv2.GaussianBlur(rng.integers(0, 256, (600, 600), dtype=np.uint8), (0, 0), 1)
    data = cv2.imencode(".jpg", image)[1].tobytes()
    quarter = simplejpeg.decode_jpeg(data, "GRAY", min_height=150, min_width=150)[..., 0]
    assert quarter.shape == (150, 150)
    twice = cv2.resize(quarter, (256, 256), interpolation=cv2.INTER_LINEAR)
    expected = cv2.resize(twice, (128, 128), interpolation=cv2.INTER_AREA)
    assert (preprocess(data, Preprocessing(image_shape=(128, 128), resampling="quick")).pixels == expected).all()


def make_old(file: Path) -> None:
    """Its index as version 0.2.0 wrote it, which knew no resampling and no versions of the polarity check."""
    index = read_index(file)
    known = {name: value for name, value in index.preprocessing.items() if name != "resampling"}
    decoders = {name: version for name, version in index.decoders.items() if name != "polarity check"}
    write_index(file, dataclasses.replace(index, preprocessing=known, decoders=decoders))


def test_an_old_cache_is_kept_by_name_alone(file: Path, table: LabelTable) -> None:
    build_cache(table, file, QUICK)
    make_old(file)
    assert open_cache(file, table, QUICK).failed == {}
    with pytest.raises(
        CacheError,
        match=r"made with resampling='quick', the settings say 'area'; set resampling='quick' to use it as it is, "
        r"or run preproc_npy\.py with the same settings$",
    ):
        open_cache(file, table, AREA)


@pytest.mark.parametrize("resampling", ["area", "quick"])
def test_rows_of_an_old_cache_are_taken_over_by_name_alone(
    file: Path, table: LabelTable, resampling: str, capsys: pytest.CaptureFixture[str]
) -> None:
    build_cache(table.take(np.array([0, 1, 2])), file, QUICK)
    make_old(file)
    build_cache(table, file, dataclasses.replace(QUICK, resampling=resampling))
    is_refused = (
        "nothing is taken over from the earlier cache: resampling was quick, is area" in capsys.readouterr().out
    )
    assert is_refused == (resampling == "area")
    assert read_index(file).preprocessing["resampling"] == resampling


@pytest.mark.slow
def test_a_checkpoint_of_before_sees_what_it_learnt_from(evaluated_run: Path, tmp_path: Path) -> None:
    content = torch.load(evaluated_run / "fold0" / "best.pt", weights_only=True)
    assert content["preprocessing"]["resampling"] == "area"
    assert load_checkpoint(evaluated_run / "fold0" / "best.pt").preprocessing.resampling == "area"
    settings = json.loads(content["settings"])
    del settings["resampling"], content["preprocessing"]["resampling"]
    torch.save({**content, "settings": json.dumps(settings)}, tmp_path / "best.pt")
    old = load_checkpoint(tmp_path / "best.pt")
    assert (old.settings.resampling, old.preprocessing.resampling) == ("quick", "quick")


@pytest.mark.parametrize("inverted", ["keep", "invert"])
def test_rows_of_another_polarity_check_are_made_anew_where_it_decides_on_pixels(
    file: Path, table: LabelTable, inverted: str, capsys: pytest.CaptureFixture[str]
) -> None:
    preprocessing = dataclasses.replace(QUICK, inverted=inverted)
    build_cache(table.take(np.array([0, 1, 2])), file, preprocessing)
    make_old(file)
    build_cache(table, file, preprocessing)
    is_refused = "from the earlier cache: polarity check was None, is 2" in capsys.readouterr().out
    assert is_refused == (inverted == "invert")


def test_an_old_cache_whose_inverted_images_were_turned_by_another_check_is_refused(
    file: Path, table: LabelTable, capsys: pytest.CaptureFixture[str]
) -> None:
    preprocessing = dataclasses.replace(QUICK, inverted="invert")
    build_cache(table, file, preprocessing)
    make_old(file)
    with pytest.raises(
        CacheError, match=r"was made with inverted='invert' by an earlier polarity check .*; run preproc"
    ):
        open_cache(file, table, preprocessing)
    build_cache(table, file, preprocessing)
    assert "polarity check was None, is 2" in capsys.readouterr().out
    assert open_cache(file, table, preprocessing).failed == {}


@pytest.mark.parametrize("inverted", ["keep", "exclude"])
def test_an_old_cache_whose_pixels_no_check_decided_opens(file: Path, table: LabelTable, inverted: str) -> None:
    preprocessing = dataclasses.replace(QUICK, inverted=inverted)
    build_cache(table, file, preprocessing)
    make_old(file)
    assert len(open_cache(file, table, preprocessing).entries) == 5


def make_row_old(file: Path, row: int, pixels: np.ndarray) -> None:
    """A row as an earlier version wrote it: these pixels, and an index that describes them."""
    images = np.load(file, mmap_mode="r+")
    images[row] = pixels
    images.flush()
    index = read_index(file)
    index.rows[row] = dataclasses.replace(
        index.rows[row],
        digest=hashlib.sha256(pixels.tobytes()).hexdigest(),
        grey_sum=int(pixels.sum(dtype=np.int64)),
        grey_square_sum=int((pixels.astype(np.int64) ** 2).sum()),
    )
    write_index(file, index)
    make_old(file)


@pytest.mark.parametrize("bits", [10, 12, 15])
def test_colours_of_dicom_that_version_0_2_0_made_too_dark_are_made_anew(
    file: Path, table: LabelTable, bits: int
) -> None:
    """It took values of any number of bits for those of 16: value / 65535 of 255."""
    values = np.linspace(0, (1 << bits) - 1, 64).astype(np.uint16).reshape(8, 8)
    table.paths[3].write_bytes(make_dicom(np.repeat(values[..., None], 3, axis=2), BitsStored=bits, HighBit=bits - 1))
    build_cache(table, file, QUICK)
    expected = np.load(file)
    make_row_old(file, 3, np.rint(values / 65535 * 255).astype(np.uint8))
    with pytest.raises(CacheError, match=rf"3\.png holds colours of {bits} bits, .* version 0\.2\.0 .*; run preproc"):
        open_cache(file, table, QUICK)
    build_cache(table, file, QUICK)
    assert (np.load(file) == expected).all()
    assert open_cache(file, table, QUICK).failed == {}


@pytest.mark.parametrize("kind", ["grey of 12 bits", "colours of 8 bits", "colours of 16 bits", "gone", "unreadable"])
def test_old_rows_of_other_dark_files_stay(file: Path, table: LabelTable, kind: str) -> None:
    """Their pixels are those of now; what is gone cannot be looked at, nor rebuilt."""
    dark = np.full((8, 8, 3), 100, dtype=np.uint8)
    if kind == "grey of 12 bits":
        data = make_dicom(np.full((8, 8), 7, dtype=np.uint16), BitsStored=12, HighBit=11)
    elif kind == "colours of 8 bits":
        data = make_dicom(dark)
    elif kind == "colours of 16 bits":
        data = make_dicom(dark.astype(np.uint16))
    else:
        data = make_dicom(dark.astype(np.uint16), BitsStored=12, HighBit=11)
    table.paths[3].write_bytes(data[:-10] if kind == "unreadable" else data)
    build_cache(table, file, QUICK)
    pixels = np.load(file)
    make_old(file)
    if kind == "gone":
        table.paths[3].unlink()
    assert list(open_cache(file, table, QUICK).failed) == ["3"] * (kind == "unreadable")
    build_cache(table, file, QUICK)
    assert (np.load(file) == pixels).all()
