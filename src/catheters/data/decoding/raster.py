"""JPEG, PNG, TIFF and WebP files, of 1, 8 or 16 bits, in grey or colour, as grey images."""

import io
import warnings
import zlib

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image, ImageOps

from catheters.data.decoding.image import DecodedImage, Note, UnreadableImage, check_size
from catheters.data.decoding.messages import decoder_messages
from catheters.data.decoding.window import percentile_window, to_greys
from catheters.errors import one_line, raise_of_machine

Image.MAX_IMAGE_PIXELS = None  # check_size decides, for every format alike
WIDE_MODES = "IF"
"""First letters of Pillow's modes of more than 8 bits: I;16, I, F."""
PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
ORIENTATION_TAG = 0x0112
"""EXIF's tag that says how an image is turned."""
WHITE_IS_ZERO = 0
PHOTOMETRIC_TAG = 262
COMPRESSION_TAG, DEFLATE, FILL_ORDER_TAG = 259, (8, 32946), 266
"""TIFF's compression by zlib, under both of its numbers."""
STRIP_TAGS, TILE_TAGS = (273, 279), (324, 325)
"""Where in a TIFF the strips or tiles of a page begin, and how many bytes they have."""
INFLATED_AT_ONCE = 1 << 20
INFLATED_PER_PIXEL, INFLATED_BESIDE = 32, 64 << 20
"""Bytes that a TIFF's strips or tiles may hold: the widest pixels are four channels of 8 bytes, and tiles reach beyond
the image."""


def decode_jpeg(data: bytes, min_shape: tuple[int, int] | None = None) -> DecodedImage:
    """Decode a JPEG.

    libjpeg can leave out frequencies and so decode to a half, a quarter or an eighth of the size, in less time.

    Args:
        data: the file's content.
        min_shape: (height, width) in pixels that are enough of the image as shown; None: all there are.

    Raises:
        UnreadableImage: no JPEG, or libjpeg reports damage, that which it can bridge included.
    """
    try:
        height, width, colorspace, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError as error:
        raise UnreadableImage(f"damaged JPEG: {one_line(error)}") from None
    check_size(height, width)
    orientation = _exif_orientation(data)
    enough = min_shape
    if min_shape is not None and orientation >= 5:  # turned by a quarter: its rows are shown as columns
        enough = min_shape[::-1]
    factor = 1 if enough is None else _shrink_factor((height, width), enough)
    is_cmyk = colorspace in ("CMYK", "YCCK")
    try:
        image = simplejpeg.decode_jpeg(
            data,
            "CMYK" if is_cmyk else "GRAY",
            min_height=-(-height // factor),
            min_width=-(-width // factor),
        )
    except ValueError as error:
        raise UnreadableImage(f"damaged JPEG: {one_line(error)}") from None
    grey = _luma_of_cmyk(data) if is_cmyk else image[..., 0]
    return DecodedImage(_turn(grey, orientation), (width, height) if orientation >= 5 else (height, width))


def _luma_of_cmyk(data: bytes) -> npt.NDArray[np.uint8]:
    """By Pillow, which knows when inks are stored inverted."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about tags
        return np.asarray(Image.open(io.BytesIO(data)).convert("L"))


def _shrink_factor(shape: tuple[int, int], enough: tuple[int, int]) -> int:
    return next(
        (factor for factor in (8, 4, 2) if shape[0] // factor >= enough[0] and shape[1] // factor >= enough[1]), 1
    )


def _exif_orientation(data: bytes) -> int:
    """EXIF's code, 1 to 8, of how the image is turned; 1: not at all."""
    if data.find(b"Exif", 0, 1 << 20) < 0:
        return 1
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            orientation = Image.open(io.BytesIO(data)).getexif().get(ORIENTATION_TAG, 1)
    except Exception as error:  # broken EXIF beside an image that can be decoded
        raise_of_machine(error)
        return 1
    return orientation if orientation in range(1, 9) else 1


def _turn(image: npt.NDArray[np.uint8], orientation: int) -> npt.NDArray[np.uint8]:
    """The image as shown, by EXIF 2.32, table 6: where its first row and first column are."""
    if orientation >= 5:
        image = image.T
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    return np.ascontiguousarray(image)


def decode_raster(data: bytes) -> DecodedImage:
    """Decode a PNG, TIFF or WebP, by Pillow.

    Colour becomes luma, what is transparent becomes black. 16-bit grey is shown by the middle 99% of its values: few
    such files use all 16 bits.

    Raises:
        UnreadableImage: no such image, damaged, or too large.
    """
    try:
        with warnings.catch_warnings(), decoder_messages() as messages:
            warnings.simplefilter("ignore")
            if data.startswith(PNG_MAGIC):
                Image.open(io.BytesIO(data)).verify()  # the checksums of its chunks, which decoding passes over
            with Image.open(io.BytesIO(data), formats=("PNG", "TIFF", "WEBP")) as opened:
                check_size(opened.height, opened.width)
                num_frames = getattr(opened, "n_frames", 1)
                is_negative = _is_negative(opened)
                _compare_deflate_checksums(data, opened)
                opened.load()
                is_stretched = opened.mode[0] in WIDE_MODES
                image = _to_grey(ImageOps.exif_transpose(opened))
    except (UnreadableImage, MemoryError):
        raise
    except Exception as error:  # Pillow raises whatever its parsers stumble over
        raise_of_machine(error)
        raise UnreadableImage(f"damaged: {one_line(error)}") from None
    if messages:
        raise UnreadableImage(f"damaged: its decoder says: {messages[0][:200]}")
    if is_negative:
        image = 255 - image
    notes = (Note("frames", f"the first of {num_frames} pages"),) if num_frames > 1 else ()
    return DecodedImage(image, (image.shape[0], image.shape[1]), notes, is_stretched)


def _is_negative(opened: Image.Image) -> bool:
    """Whether it is a TIFF whose zeros are white, of the kinds that Pillow does not turn itself."""
    tags = getattr(opened, "tag_v2", {})
    return tags.get(PHOTOMETRIC_TAG) == WHITE_IS_ZERO and opened.mode[0] in WIDE_MODES


def _compare_deflate_checksums(data: bytes, opened: Image.Image) -> None:
    """Inflate a TIFF's strips or tiles: libtiff stops at the last pixel, before the checksum that ends each of them.

    Raises:
        zlib.error: one is damaged.
        UnreadableImage: one is cut off.
    """
    tags = getattr(opened, "tag_v2", {})
    room = INFLATED_PER_PIXEL * opened.height * opened.width + INFLATED_BESIDE
    if tags.get(COMPRESSION_TAG) not in DEFLATE or tags.get(FILL_ORDER_TAG, 1) != 1:
        return
    offset_tag, count_tag = TILE_TAGS if TILE_TAGS[0] in tags else STRIP_TAGS
    # By offset: a hostile file may name one strip many times.
    for offset, count in dict(zip(tags.get(offset_tag, ()), tags.get(count_tag, ()), strict=False)).items():
        inflater = zlib.decompressobj()
        rest = data[offset : offset + count]
        while not inflater.eof:
            inflated = inflater.decompress(rest, INFLATED_AT_ONCE)
            rest = inflater.unconsumed_tail
            room -= len(inflated)
            if room < 0:
                raise UnreadableImage("damaged: its deflated parts are larger than its image")
            if not (inflated or rest or inflater.eof):
                raise UnreadableImage("damaged: a deflated part of it is cut off")


def _to_grey(opened: Image.Image) -> npt.NDArray[np.uint8]:
    if opened.mode[0] in WIDE_MODES:
        values = np.asarray(opened)
        if not np.isfinite(values).all():
            raise UnreadableImage("holds values that are no numbers")
        return to_greys(values, *percentile_window(values))
    if opened.has_transparency_data:
        opened = opened.convert("RGBA")
        opened = Image.alpha_composite(Image.new("RGBA", opened.size, "black"), opened)
    return np.asarray(opened.convert("L"))
