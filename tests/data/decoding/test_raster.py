"""JPEG, PNG, TIFF and WebP: pixels against values worked out by hand or by other libraries."""

import io
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from catheters.data.decoding.image import UnreadableImage
from catheters.data.decoding.radiograph import read_radiograph
from catheters.data.decoding.raster import decode_jpeg, decode_raster

WHITE_IS_ZERO = {262: 0}


@pytest.fixture
def grey(rng: np.random.Generator) -> np.ndarray:
    """(30, 20) uint8."""
    return rng.integers(0, 256, (30, 20), dtype=np.uint8)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("x.png", {}),
        ("x.tif", {}),
        ("x.tif", {"compression": "tiff_lzw"}),
        ("x.tif", {"compression": "tiff_adobe_deflate"}),
        ("x.webp", {"lossless": True, "exact": True}),
        ("no_suffix", {"format": "PNG"}),
        ("wrong_suffix.jpg", {"format": "PNG"}),
    ],
)
def test_lossless_formats_are_read_as_they_are(
    tmp_path: Path, grey: np.ndarray, name: str, options: dict[str, object]
) -> None:
    Image.fromarray(grey).save(tmp_path / name, **options)
    decoded = read_radiograph(tmp_path / name)
    assert (decoded.image == grey).all()
    assert decoded.image.dtype == np.uint8
    assert decoded.full_shape == (30, 20)
    assert decoded.notes == ()


@pytest.mark.parametrize("suffix", ["jpg", "webp"])
def test_lossy_formats(tmp_path: Path, suffix: str) -> None:
    Image.new("L", (24, 16), 77).save(tmp_path / f"x.{suffix}")
    image = read_radiograph(tmp_path / f"x.{suffix}").image
    assert image.shape == (16, 24)
    assert (np.abs(image.astype(int) - 77) <= 1).all()


def test_one_bit(tmp_path: Path, rng: np.random.Generator) -> None:
    bits = rng.integers(0, 2, (9, 11)).astype(bool)
    for suffix, options in [("png", {}), ("tif", {}), ("tiff", {"compression": "group4"})]:
        Image.fromarray(bits).save(tmp_path / f"x.{suffix}", **options)
        assert (read_radiograph(tmp_path / f"x.{suffix}").image == bits * np.uint8(255)).all()


@pytest.mark.parametrize("suffix", ["png", "tif", "webp", "jpg"])
def test_colour_becomes_luma(tmp_path: Path, suffix: str) -> None:
    options = {"lossless": True} if suffix == "webp" else {}
    Image.new("RGB", (8, 8), (255, 0, 0)).save(tmp_path / f"x.{suffix}", **options)
    image = read_radiograph(tmp_path / f"x.{suffix}").image
    assert np.abs(image.astype(int) - round(0.299 * 255)).max() <= 1  # ITU-R BT.601


def test_palette(tmp_path: Path) -> None:
    palette_image = Image.new("P", (2, 1))
    palette_image.putpalette([0, 0, 255, 10, 10, 10])  # blue, grey
    palette_image.putpixel((1, 0), 1)
    palette_image.save(tmp_path / "x.png")
    assert read_radiograph(tmp_path / "x.png").image.tolist() == [[round(0.114 * 255), 10]]


def test_what_is_transparent_is_black(tmp_path: Path) -> None:
    rgba = np.array([[[200, 200, 200, 255], [200, 200, 200, 0], [200, 200, 200, 128]]], dtype=np.uint8)
    Image.fromarray(rgba).save(tmp_path / "x.png")
    Image.fromarray(rgba[..., [0, 3]]).save(tmp_path / "la.png")
    for name in ("x.png", "la.png"):
        assert np.abs(read_radiograph(tmp_path / name).image.astype(int) - [200, 0, 100]).max() <= 1
    grey = Image.fromarray(np.array([[7, 90]], dtype=np.uint8))
    grey.save(tmp_path / "colour_key.png", transparency=7)
    assert read_radiograph(tmp_path / "colour_key.png").image.tolist() == [[0, 90]]


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_show_the_middle_of_their_values(tmp_path: Path, suffix: str) -> None:
    """A 12-bit ramp of 1,000 values with a burnt-in letter: the window is that of the 0.5th and 99.5th percentile."""
    ramp = np.linspace(100, 4000, 1000).round()
    ramp[-1] = 65535
    cv2.imwrite(str(tmp_path / f"x.{suffix}"), ramp.reshape(20, 50).astype(np.uint16))
    low, high = np.percentile(ramp, 0.5), np.percentile(ramp, 99.5)
    expected = np.clip((ramp - low) / (high - low), 0, 1).reshape(20, 50) * 255
    assert np.abs(read_radiograph(tmp_path / f"x.{suffix}").image - expected).max() <= 0.5 + 1e-3


def test_sixteen_bits_of_one_value_or_almost(tmp_path: Path) -> None:
    flat = np.full((40, 40), 9, dtype=np.uint16)
    cv2.imwrite(str(tmp_path / "flat.png"), flat)
    assert not read_radiograph(tmp_path / "flat.png").image.any()
    flat[0, 0] = 500  # less than the half percent that a window leaves out
    cv2.imwrite(str(tmp_path / "dot.png"), flat)
    image = read_radiograph(tmp_path / "dot.png").image
    assert (image[0, 0], image[1, 1]) == (255, 0)


def test_values_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    values = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    Image.fromarray(values).save(tmp_path / "x.tif")
    assert np.abs(read_radiograph(tmp_path / "x.tif").image - 255 * values).max() < 5
    values[3, 3] = np.nan
    Image.fromarray(values).save(tmp_path / "x.tif")
    with pytest.raises(UnreadableImage, match="holds values that are no numbers"):
        read_radiograph(tmp_path / "x.tif")


def test_tiff_whose_zeros_are_white(tmp_path: Path) -> None:
    eight = np.array([[0, 100, 255]], dtype=np.uint8)
    Image.fromarray(eight).save(tmp_path / "8.tif", tiffinfo=WHITE_IS_ZERO)
    sixteen = np.array([[0, 1000, 4000]], dtype=np.uint16)
    Image.fromarray(sixteen).save(tmp_path / "16.tif", tiffinfo=WHITE_IS_ZERO)
    as_it_is = np.array([[0, 1000, 4000]], dtype=np.uint16)
    Image.fromarray(as_it_is).save(tmp_path / "black.tif")
    negative = read_radiograph(tmp_path / "16.tif").image
    assert (negative == 255 - read_radiograph(tmp_path / "black.tif").image).all()
    assert negative[0, 0] == 255
    assert bytes([255, 155, 0]) in (tmp_path / "8.tif").read_bytes()  # Pillow writes what will look like `eight`
    assert (read_radiograph(tmp_path / "8.tif").image == eight).all()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
def test_exif_rotation(tmp_path: Path, orientation: int, suffix: str) -> None:
    """As OpenCV, another implementation, turns it; all corners differ."""
    image = np.zeros((32, 64), dtype=np.uint8)
    image[:16, :32], image[:16, 32:], image[16:, :32] = 250, 170, 90
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if suffix == "webp" else {}
    Image.fromarray(image).save(tmp_path / f"x.{suffix}", exif=exif, **options)
    Image.fromarray(image).save(tmp_path / "reference.jpg", exif=exif)
    expected = cv2.imread(str(tmp_path / "reference.jpg"), cv2.IMREAD_GRAYSCALE)
    decoded = read_radiograph(tmp_path / f"x.{suffix}")
    assert decoded.full_shape == expected.shape
    assert np.abs(decoded.image.astype(int) - expected).max() <= 2


@pytest.mark.parametrize(("orientation", "enough", "expected"), [(1, (60, 100), (60, 100)), (6, (100, 60), (100, 60))])
def test_a_jpeg_can_be_decoded_smaller(orientation: int, enough: tuple[int, int], expected: tuple[int, int]) -> None:
    """240 x 400: a quarter is enough; turned by a quarter, height and width are those of the image as shown."""
    ramp = np.tile(np.linspace(0, 255, 400), (240, 1)).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    Image.fromarray(ramp).save(buffer, "JPEG", exif=exif, quality=95)
    decoded = decode_jpeg(buffer.getvalue(), enough)
    assert decoded.image.shape == expected
    assert decoded.full_shape == ((240, 400) if orientation == 1 else (400, 240))
    whole = decode_jpeg(buffer.getvalue()).image.astype(float)
    blocks = whole.reshape(expected[0], 4, expected[1], 4).mean(axis=(1, 3))
    assert np.abs(decoded.image - blocks).mean() < 0.5
    a_little_more = (enough[0] + 1, enough[1])
    assert decode_jpeg(buffer.getvalue(), a_little_more).image.shape == (2 * expected[0], 2 * expected[1])


def test_a_cmyk_jpeg(tmp_path: Path) -> None:
    Image.new("RGB", (16, 16), (200, 200, 200)).convert("CMYK").save(tmp_path / "x.jpg")
    assert np.abs(read_radiograph(tmp_path / "x.jpg").image.astype(int) - 200).max() <= 2


def test_the_first_page(tmp_path: Path) -> None:
    pages = [Image.new("L", (8, 8), grey) for grey in (10, 200)]
    pages[0].save(tmp_path / "x.tif", save_all=True, append_images=pages[1:])
    decoded = read_radiograph(tmp_path / "x.tif")
    assert (decoded.image == 10).all()
    assert [(note.kind, note.text) for note in decoded.notes] == [("frames", "the first of 2 pages")]


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp"])
@pytest.mark.parametrize("kept", [0.02, 0.2, 0.6, 0.95])
def test_truncated_files_are_refused(tmp_path: Path, rng: np.random.Generator, suffix: str, kept: float) -> None:
    buffer = io.BytesIO()
    pil_image = Image.fromarray(rng.integers(0, 256, (64, 64), dtype=np.uint8))
    pil_image.save(buffer, {"jpg": "JPEG", "tif": "TIFF"}.get(suffix, suffix.upper()))
    whole = buffer.getvalue()
    (tmp_path / f"x.{suffix}").write_bytes(whole[: int(len(whole) * kept)])
    with pytest.raises(UnreadableImage, match="damaged"):
        read_radiograph(tmp_path / f"x.{suffix}")


def test_damage_that_libjpeg_bridges_is_refused(tmp_path: Path, rng: np.random.Generator) -> None:
    """Other readers give back half an image and grey: libjpeg only warns."""
    whole = cv2.imencode(".jpg", rng.integers(0, 256, (128, 128), dtype=np.uint8))[1].tobytes()
    middle = len(whole) // 2
    damaged = whole[:middle] + b"\xff\xd0\x00\x00" + whole[middle + 200 :]
    assert cv2.imdecode(np.frombuffer(damaged, np.uint8), cv2.IMREAD_GRAYSCALE) is not None
    (tmp_path / "x.jpg").write_bytes(damaged)
    with pytest.raises(UnreadableImage, match=r"damaged JPEG: .*(Corrupt|premature|restart)"):
        read_radiograph(tmp_path / "x.jpg")


def test_a_flipped_bit_in_a_png_is_refused(tmp_path: Path, grey: np.ndarray) -> None:
    """Wherever in the pixels' chunk: its checksum tells."""
    whole = cv2.imencode(".png", grey)[1].tobytes()
    start = whole.index(b"IDAT") + 4
    for position in range(start, len(whole) - 16, 7):
        damaged = bytearray(whole)
        damaged[position] ^= 1
        (tmp_path / "x.png").write_bytes(bytes(damaged))
        with pytest.raises(UnreadableImage, match="damaged"):
            read_radiograph(tmp_path / "x.png")


def test_bombs_are_refused_before_they_are_decoded(tmp_path: Path) -> None:
    """A PNG of 4 kB that unpacks to 4 gigapixels, and a JPEG that says it is 65,500 pixels wide and high."""
    header = bytearray(cv2.imencode(".png", np.zeros((4, 4), dtype=np.uint8))[1].tobytes())
    header[16:24] = (65535).to_bytes(4, "big") * 2
    header[29:33] = zlib.crc32(bytes(header[12:29])).to_bytes(4, "big")
    (tmp_path / "x.png").write_bytes(bytes(header))
    jpeg = bytearray(cv2.imencode(".jpg", np.zeros((16, 16), dtype=np.uint8))[1].tobytes())
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = (65500).to_bytes(2, "big") * 2
    (tmp_path / "x.jpg").write_bytes(bytes(jpeg))
    for name in ("x.png", "x.jpg"):
        with pytest.raises(UnreadableImage, match=r"pixels large; at most 64 million are decoded"):
            read_radiograph(tmp_path / name)


def tiled_tiff(grey: np.ndarray, size: int, rest: bytes = b"") -> bytes:
    """(h, w) uint8 in deflated tiles of `size` x `size`, written by hand (TIFF 6.0, sections 2 and 15).

    `rest` follows the pixels of each tile, where no image needs it.
    """
    height, width = grey.shape
    corners = [(top, left) for top in range(0, height, size) for left in range(0, width, size)]
    tiles = [zlib.compress(grey[top : top + size, left : left + size].tobytes() + rest) for top, left in corners]
    counts = [len(tile) for tile in tiles]
    offsets = [8 + sum(counts[:number]) for number in range(len(tiles))]
    lists = 8 + sum(counts)
    entries = [(256, width), (257, height), (258, 8), (259, 8), (262, 1), (277, 1), (322, size), (323, size)]
    directory = [(tag, 4, 1, value) for tag, value in entries]
    directory += [(324, 4, len(tiles), lists), (325, 4, len(tiles), lists + 4 * len(tiles))]
    start = lists + 8 * len(tiles)
    packed = b"".join(struct.pack("<HHII", *entry) for entry in directory)
    body = b"".join(tiles) + struct.pack(f"<{2 * len(tiles)}I", *offsets, *counts)
    return b"II*\0" + struct.pack("<I", start) + body + struct.pack("<H", len(directory)) + packed + bytes(4)


def test_a_deflated_tiff_holds_no_more_than_its_image() -> None:
    """Else 100 kB of it could keep a decoder busy for its whole minute."""
    grey = np.full((32, 16), 7, dtype=np.uint8)
    assert (decode_raster(tiled_tiff(grey, 16, bytes(1000))).image == 7).all()
    with pytest.raises(UnreadableImage, match="damaged: its deflated parts are larger than its image"):
        decode_raster(tiled_tiff(grey, 16, bytes(40 << 20)))


@pytest.mark.parametrize("kind", ["u1", "u2", "tiles"])
def test_a_flipped_bit_in_a_deflated_tiff_is_refused(rng: np.random.Generator, kind: str) -> None:
    """libtiff gives other pixels for about one in eight of them without a word; zlib's checksum finds each."""
    grey = cv2.GaussianBlur(rng.integers(0, 256, (192, 128), dtype=np.uint8), (0, 0), 3)
    if kind == "tiles":
        whole = tiled_tiff(grey, 64)
    else:
        options = [cv2.IMWRITE_TIFF_COMPRESSION, 8, cv2.IMWRITE_TIFF_ROWSPERSTRIP, 64]
        whole = cv2.imencode(".tiff", grey.astype(kind), options)[1].tobytes()
    assert decode_raster(whole).image.shape == (192, 128)
    if kind != "u2":
        assert (decode_raster(whole).image == grey).all()
    tags = Image.open(io.BytesIO(whole)).tag_v2
    starts, counts = (tags[324], tags[325]) if kind == "tiles" else (tags[273], tags[279])
    assert len(starts) == (6 if kind == "tiles" else 3)
    positions = np.concatenate([np.arange(start, start + count) for start, count in zip(starts, counts, strict=True)])
    for position in rng.choice(positions, 100, replace=False):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << rng.integers(8)
        with pytest.raises(UnreadableImage, match="damaged"):
            decode_raster(bytes(damaged))
