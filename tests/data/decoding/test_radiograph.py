"""From a file to an image: its content decides what it is, and there is a reason where it is none."""

import gzip
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from catheters.data.decoding.image import UnreadableImage
from catheters.data.decoding.radiograph import read_radiograph
from tests.conftest import SHARED_DATA
from tests.data.decoding.test_polarity import drawn_chest

ODD_FOLDER = SHARED_DATA / "odd"
REPOSITORY = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b"<!DOCTYPE html><p>log in", "is a web page, not the image: the download failed"),
        (b"\n<html>", "is a web page"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid",
            "git-lfs pointer, not the image; run `git lfs pull`",
        ),
        (b"%PDF-1.7", "is a PDF document; JPEG, PNG, TIFF, WebP and DICOM are read"),
        (b"PK\x03\x04", "is a ZIP archive; unpack it"),
        (gzip.compress(b"image", mtime=0), "is gzipped; unpack it"),
        (b"GIF89a", "is a GIF"),
        (b"\0" * 5000, "is nothing but zeros"),
        (b"hello", "is no image file of a known format"),
        (b"\x08\x00", "DICOM file without pixel data|damaged DICOM"),
        (b"\0" * 128 + b"DICM", "DICOM file without pixel data|damaged DICOM"),
        (b"\xff\xd8\xff", "damaged JPEG"),
        (b"\x89PNG\r\n\x1a\n", "damaged"),
        (b"II*\x00", "damaged"),
        (b"RIFF\x00\x00\x00\x00WEBP", "damaged"),
    ],
)
def test_files_that_are_no_image(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "x.jpg").write_bytes(content)
    with pytest.raises(UnreadableImage, match=reason):
        read_radiograph(tmp_path / "x.jpg")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UnreadableImage, match="no such file"):
        read_radiograph(tmp_path / "absent.png")
    with pytest.raises(UnreadableImage, match="is a folder, a pipe or a device, not a file"):
        read_radiograph(tmp_path)
    with (tmp_path / "huge.png").open("wb") as file:
        file.truncate((1 << 29) + 1)
    with pytest.raises(UnreadableImage, match="is larger than 512 MB"):
        read_radiograph(tmp_path / "huge.png")


def test_inverted_grayscale_is_noted(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "upright.png"), drawn_chest())
    cv2.imwrite(str(tmp_path / "inverted.png"), 255 - drawn_chest())
    assert read_radiograph(tmp_path / "upright.png").notes == ()
    decoded = read_radiograph(tmp_path / "inverted.png")
    assert [note.kind for note in decoded.notes] == ["inverted"]
    assert (decoded.image == 255 - drawn_chest()).all()  # noted, not changed


ODD = {
    "pillow_16bit.cropped.tif": ((64, 64), 82.0),
    "pillow_hopper_bw_500.png": ((500, 500), 98.5),
    "pillow_hopper_orientation_6.jpg": ((128, 128), 84.7),
    "pillow_mode_16bit.png": ((64, 128), 76.0),
    "pillow_pil_sample_cmyk.jpg": ((100, 100), 12.9),
    "pillow_transparent.png": ((150, 200), 24.9),
    "pillow_uncompressed_la.png": ((128, 128), 33.1),
}
"""Shape and mean grey of those that were looked at and are right."""
ODD_REFUSED = {
    "git_lfs_pointer_named.jpg": "git-lfs pointer",
    "pillow_broken_data_stream.png": "damaged",
    "pillow_decompression_bomb.ico": "Windows icon",
    "pillow_truncated_image.png": "damaged",
    "pillow_truncated_jpeg.jpg": "damaged JPEG: Premature end",
}


@pytest.mark.skipif(not ODD_FOLDER.is_dir(), reason="the odd files are not at hand")
def test_odd_files() -> None:
    assert {file.name for file in ODD_FOLDER.glob("*")} == ODD.keys() | ODD_REFUSED.keys()
    for name, (shape, mean) in ODD.items():
        image = read_radiograph(ODD_FOLDER / name).image
        assert image.shape == shape, name
        assert image.mean() == pytest.approx(mean, abs=0.1), name
    for name, reason in ODD_REFUSED.items():
        with pytest.raises(UnreadableImage, match=reason):
            read_radiograph(ODD_FOLDER / name)


@pytest.mark.slow
def test_mutated_files_never_crash_the_reader(tmp_path: Path, rng: np.random.Generator) -> None:
    """A few hundred of tests/stress/fuzz_reader.py's, of files made here; the 10,000 are run by hand."""
    from PIL import Image

    from tests.data.decoding.test_dicom import RAMP, make_dicom

    smooth = cv2.GaussianBlur(rng.integers(0, 256, (200, 160), dtype=np.uint8), (0, 0), 3)
    for suffix in ("png", "jpg", "webp", "tif"):
        Image.fromarray(smooth).save(tmp_path / f"x.{suffix}")
    Image.fromarray(smooth).save(tmp_path / "lzw.tif", compression="tiff_lzw")
    (tmp_path / "x.dcm").write_bytes(make_dicom(RAMP, BitsStored=12, HighBit=11))
    done = subprocess.run(
        [sys.executable, "tests/stress/fuzz_reader.py", "--num-files", "600", str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "600 mutants of 6 files" in done.stdout
    assert "crashed" not in done.stdout
