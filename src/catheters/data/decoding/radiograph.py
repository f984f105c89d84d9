"""From a file to the grey image that a viewer would show, or the reason why there is none."""

import stat
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from catheters.data.decoding.dicom import decode_dicom, is_dicom
from catheters.data.decoding.image import DecodedImage, Note, UnreadableImage
from catheters.data.decoding.polarity import looks_inverted
from catheters.data.decoding.raster import decode_jpeg, decode_raster
from catheters.errors import is_of_path
from catheters.io.files import printable

OTHER_FORMATS = {
    b"version https://git-lfs": "is a git-lfs pointer, not the image; run `git lfs pull` where it came from",
    b"%PDF": "is a PDF document",
    b"PK\x03\x04": "is a ZIP archive; unpack it",
    b"\x1f\x8b": "is gzipped; unpack it",
    b"7z\xbc\xaf": "is a 7z archive; unpack it",
    b"GIF8": "is a GIF",
    b"BM": "is a BMP",
    b"\x00\x00\x01\x00": "is a Windows icon",
    b"\x93NUMPY": "is a NumPy array",
    b"\x00\x00\x00\x0cjP  ": "is a JPEG 2000 file outside DICOM",
}
READ_FORMATS = "JPEG, PNG, TIFF, WebP and DICOM are read"
NO_SUCH_FILE = "no such file"
"""The reason of a file that is missing."""
MAX_FILE_BYTES = 1 << 29
"""Larger files are refused before they are read: no radiograph is."""


def read_radiograph(file: Path, min_shape: tuple[int, int] | None = None) -> DecodedImage:
    """Decode an image file as a viewer would show it.

    JPEG, PNG, TIFF and WebP of 1, 8 or 16 bits: EXIF rotation applied, colour as luma, transparency over black. DICOM:
    modality LUT, VOI LUT or window, MONOCHROME1 inverted. Values of more than 8 bits without a window are shown by the
    middle 99% of them.

    Args:
        file: the file; its content decides, not its name.
        min_shape: (height, width) in pixels that are enough: a JPEG may then be decoded to a fraction of its size that
            is no smaller, in less time. None: every pixel.

    Returns:
        The image, with its quality flags as notes.

    Raises:
        UnreadableImage: the file is missing, empty, damaged or no such image; the message is the reason.
        OSError: the machine failed, not the file.
    """
    decoded = decode_radiograph(read_file(file), min_shape)
    return replace(decoded, notes=(*decoded.notes, *polarity_notes(decoded.image, decoded.notes)))


def decode_radiograph(data: bytes, min_shape: tuple[int, int] | None = None) -> DecodedImage:
    """`read_radiograph` for the content of a file, without a look at what it shows."""
    if data.startswith(b"\xff\xd8\xff"):
        return decode_jpeg(data, min_shape)
    is_webp = data[:4] == b"RIFF" and data[8:12] == b"WEBP"
    if is_webp or data.startswith((b"\x89PNG\r\n\x1a\n", b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")):
        return decode_raster(data)
    if is_dicom(data):
        return decode_dicom(data, min_shape)
    raise UnreadableImage(f"{_name_format(data)}; {READ_FORMATS}")


def polarity_notes(image: npt.NDArray[np.uint8], notes: tuple[Note, ...]) -> tuple[Note, ...]:
    """A note where an image looks like inverted grayscale, unless its notes say that it is no frontal chest."""
    if not {"lateral", "not a chest"}.isdisjoint(note.kind for note in notes) or not looks_inverted(image):
        return ()
    return (Note("inverted", "likely inverted grayscale: it looks like the negative of a chest"),)


def read_file(file: Path) -> bytes:
    """The content of an image file.

    Raises:
        UnreadableImage: it is missing, not for this user, empty, or larger than any radiograph.
        OSError: the machine cannot read it, for want of descriptors, memory or a sound disk.
    """
    try:
        state = file.stat()
        if not stat.S_ISREG(state.st_mode):
            raise UnreadableImage("is a folder, a pipe or a device, not a file")
        if state.st_size > MAX_FILE_BYTES:
            raise UnreadableImage(f"is larger than {MAX_FILE_BYTES >> 20} MB")
        data = file.read_bytes()
    except FileNotFoundError:
        if file.is_symlink():
            raise UnreadableImage(f"is a link to {printable(file.readlink())}, which is not there") from None
        raise UnreadableImage(NO_SUCH_FILE) from None
    except OSError as error:
        if not is_of_path(error):
            raise OSError(error.errno, error.strerror, str(file)) from None
        raise UnreadableImage(f"cannot be read: {error.strerror}") from None
    if not data:
        raise UnreadableImage("the file is empty")
    return data


def _name_format(data: bytes) -> str:
    for magic, name in OTHER_FORMATS.items():
        if data.startswith(magic):
            return name
    start = data[:512].lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return "is a web page, not the image: the download failed"
    if not any(data[:4096]):
        return "is nothing but zeros: the copy or the disk failed"
    return "is no image file of a known format"
