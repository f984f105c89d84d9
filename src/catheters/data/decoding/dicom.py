"""DICOM radiographs (CR, DX and their kin) as a viewer would show them.

Stored values go through the modality LUT, then the VOI LUT or window, then MONOCHROME1 is inverted (DICOM PS3.3
C.7.6.3.1.2, C.11.1, C.11.2). pydicom and GDCM are loaded when the first DICOM file comes.
"""

import contextlib
import io
import logging
import struct
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import numpy.typing as npt

from catheters.data.decoding.image import DecodedImage, Note, UnreadableImage, check_size
from catheters.data.decoding.messages import decoder_messages
from catheters.data.decoding.raster import decode_jpeg
from catheters.data.decoding.window import percentile_window, to_greys
from catheters.errors import is_of_path, one_line, raise_of_machine

if TYPE_CHECKING:
    from pydicom import Dataset

JPEG_BASELINE = "1.2.840.10008.1.2.4.50"
JPEG_EXTENDED = "1.2.840.10008.1.2.4.51"
TWELVE_BITS_MESSAGE = "Unsupported JPEG data precision 12"
"""What GDCM's decoder of 8 bits says of any file of 12, before the one of 12 bits is asked."""
RLE = "1.2.840.10008.1.2.5"
FRONTAL_VIEWS = ("PA", "AP")
LATERAL_VIEWS = ("LL", "RL", "LAT", "LATERAL", "LLD", "RLD")
"""Values of ViewPosition; the standard has LL and RL, archives the others."""
RADIOGRAPH_MODALITIES = ("CR", "DX", "DR", "RG", "RF", "XC", "OT")
CHEST_WORDS = ("CHEST", "THORAX", "LUNG", "RIB", "TORAX", "BABYGRAM")
MIN_GREYS_SHOWN = 26
"""A window that shows the middle 99% of an image's values in fewer of the 256 greys was not meant for it."""
MAX_LUT_SIZE = 1 << 17
"""Integer values of a smaller range are looked up; each is computed once, not once a pixel."""

Values = npt.NDArray[Any]


def is_dicom(data: bytes) -> bool:
    """Whether the content starts as a DICOM file does, with or without its preamble."""
    if data[128:132] == b"DICM":
        return True
    # Without preamble, the first element is of group 0002 or 0008, in either byte order.
    return data[:2] in (b"\x02\x00", b"\x08\x00") or data[:4] in (b"\x00\x02\x00\x00", b"\x00\x08\x00\x05")


def depth_of_colours(file: Path) -> int | None:
    """BitsStored of a DICOM file that holds RGB or YBR; None for any other file, or one that is gone or damaged.

    Raises:
        OSError: the machine cannot read it.
    """
    import pydicom

    try:
        with file.open("rb") as stream, warnings.catch_warnings(action="ignore"):
            if not is_dicom(stream.read(132)):
                return None
            stream.seek(0)
            keywords = ["SamplesPerPixel", "BitsStored"]
            dataset = pydicom.dcmread(stream, stop_before_pixels=True, specific_tags=list(keywords), force=True)
            return int(dataset.BitsStored) if dataset.SamplesPerPixel == 3 else None
    except Exception as error:  # whatever a damaged file brings out in the library
        if not (isinstance(error, OSError) and is_of_path(error)):
            raise_of_machine(error)
        return None


def decode_dicom(data: bytes, min_shape: tuple[int, int] | None = None) -> DecodedImage:
    """Decode the first frame.

    Args:
        data: the file's content.
        min_shape: (height, width) in pixels that are enough, as for `decode_jpeg`.

    Raises:
        UnreadableImage: no DICOM, no pixel data, or pixel data that cannot be decoded whole.
        MemoryError: memory is too short for it. Of GDCM's own shortages only some can be told from damage.
    """
    import pydicom

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = pydicom.dcmread(io.BytesIO(data), force=True)
            return _decode_dataset(dataset, min_shape)
    except (UnreadableImage, MemoryError):
        raise
    except RecursionError:
        raise UnreadableImage("damaged DICOM: its sequences are nested without end") from None
    except Exception as error:  # pydicom raises whatever its parsers stumble over
        raise_of_machine(error)
        raise UnreadableImage(f"damaged DICOM: {type(error).__name__}: {one_line(error)}") from None


def _decode_dataset(dataset: "Dataset", min_shape: tuple[int, int] | None) -> DecodedImage:
    if "PixelData" not in dataset:
        what = f" (modality {dataset.Modality})" if dataset.get("Modality") else ""
        raise UnreadableImage(f"is a DICOM file without pixel data, or cut off before their end{what}")
    if not dataset.get("Rows") or not dataset.get("Columns"):
        raise UnreadableImage("damaged DICOM: it does not say how many rows and columns its image has")
    shape = (int(dataset.Rows), int(dataset.Columns))
    check_size(*shape)
    if dataset.HighBit != dataset.BitsStored - 1:  # retired; pydicom would take the wrong bits
        raise UnreadableImage(
            f"holds values of {dataset.BitsStored} bits whose highest is bit {dataset.HighBit}; only those that begin "
            "with bit 0 are read"
        )
    pixels, full_shape = _decode_pixels(dataset, shape, min_shape)
    notes = _notes_of_tags(dataset)
    if pixels.ndim == 3:
        return DecodedImage(_luma(pixels, dataset), full_shape, notes)
    image, window_note, is_stretched = _show(pixels, dataset)
    return DecodedImage(image, full_shape, notes + window_note, is_stretched)


def _decode_pixels(
    dataset: "Dataset", shape: tuple[int, int], min_shape: tuple[int, int] | None
) -> tuple[Values, tuple[int, int]]:
    """The first frame's (h, w) stored values or (h, w, 3) colours, and its full size."""
    from pydicom.encaps import generate_frames
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.pixels.processing import apply_color_lut

    syntax = _transfer_syntax(dataset)
    if syntax == JPEG_BASELINE and dataset.PhotometricInterpretation.startswith(("MONOCHROME", "YBR")):
        frame = next(generate_frames(dataset.PixelData, number_of_frames=_num_frames(dataset)))
        decoded = decode_jpeg(frame, min_shape)
        if decoded.full_shape != shape:
            raise UnreadableImage(f"damaged DICOM: its JPEG is {decoded.full_shape}, its tags say {shape}")
        return decoded.image, shape
    if syntax == JPEG_EXTENDED and dataset.BitsStored > 8:
        frame = next(generate_frames(dataset.PixelData, number_of_frames=_num_frames(dataset)))
        return decode_jpeg_extended(frame, dataset), shape
    is_encapsulated = syntax.is_encapsulated
    plugin = "" if not is_encapsulated else "pydicom" if syntax == RLE else "gdcm"
    try:
        with decoder_messages() as messages, _memory_errors_of_pydicom():
            pixels, _ = get_decoder(syntax).as_array(dataset, index=0, decoding_plugin=plugin)
    except RuntimeError:  # pydicom's, when no plugin could; what it says is about the plugins
        raise UnreadableImage(f"damaged DICOM: its pixel data cannot be decoded ({syntax.name})") from None
    if messages:
        raise UnreadableImage(f"damaged DICOM: its decoder says: {messages[0][:200]}")
    if pixels.shape[:2] != shape:
        raise UnreadableImage(f"damaged DICOM: its image is {pixels.shape[:2]}, its tags say {shape}")
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        pixels = apply_color_lut(pixels, dataset)
    return pixels, shape


class _MemoryErrors(logging.Handler):
    """Keeps the last MemoryError that is logged."""

    found: MemoryError | None = None

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, MemoryError):
            self.found = error


@contextlib.contextmanager
def _memory_errors_of_pydicom() -> Iterator[None]:
    """Raise the MemoryError that pydicom logs, and then reports as a RuntimeError like any other of its plugins."""
    handler = _MemoryErrors()
    logger = logging.getLogger("pydicom")
    logger.addHandler(handler)
    try:
        yield
    except RuntimeError:
        if handler.found is None:
            raise
        raise MemoryError(*handler.found.args) from None
    finally:
        logger.removeHandler(handler)


def decode_jpeg_extended(frame: bytes, dataset: "Dataset") -> Values:
    """Decode 12-bit JPEG Extended, by GDCM without pydicom, which does not ask it.

    Args:
        frame: the JPEG.
        dataset: what it belongs to.

    Returns:
        (h, w) uint16 or int16 stored values.

    Raises:
        UnreadableImage: it is of colours, or GDCM reports damage, that which it can bridge included.
    """
    import gdcm

    what = "is coded as 12-bit JPEG Extended"
    if dataset.SamplesPerPixel != 1 or dataset.BitsAllocated != 16:
        raise UnreadableImage(f"{what} of colours, which no decoder here reads; convert it with DCMTK's tools")
    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(frame)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((dataset.Columns, dataset.Rows, 1))
    image.SetDataElement(element)
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(gdcm.PhotometricInterpretation.MONOCHROME2))
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGExtendedProcess2_4))
    bits = dataset.BitsStored
    image.SetPixelFormat(gdcm.PixelFormat(1, 16, bits, bits - 1, dataset.PixelRepresentation))
    with decoder_messages() as messages:
        text: str | None = image.GetBuffer()  # bytes, which its interface takes for a text; None: it gave up
    buffer = (text or "").encode("utf-8", "surrogateescape")
    damage = [message for message in messages if message != TWELVE_BITS_MESSAGE]
    if damage or len(buffer) != 2 * dataset.Rows * dataset.Columns:
        said = damage[0][:200] if damage else f"{len(buffer)} bytes"
        raise UnreadableImage(f"{what}, of which its decoder says: {said}; convert it with DCMTK's tools")
    dtype = np.int16 if dataset.PixelRepresentation else np.uint16
    return np.frombuffer(buffer, dtype=dtype).reshape(dataset.Rows, dataset.Columns)


def _transfer_syntax(dataset: "Dataset") -> Any:
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    syntax = getattr(dataset.file_meta, "TransferSyntaxUID", None)
    if syntax is not None:
        return syntax
    # Without preamble there is no file meta group; how the elements were coded tells for pixels that are not packed.
    is_implicit, is_little_endian = dataset.original_encoding
    if not is_little_endian:
        return ExplicitVRBigEndian
    return ImplicitVRLittleEndian if is_implicit else ExplicitVRLittleEndian


def _num_frames(dataset: "Dataset") -> int:
    return int(dataset.get("NumberOfFrames") or 1)


def _luma(colours: Values, dataset: "Dataset") -> npt.NDArray[np.uint8]:
    """(h, w, 3) RGB of any number of bits -> (h, w) grey; a palette's colours fill their type, whatever is stored."""
    is_palette = dataset.PhotometricInterpretation == "PALETTE COLOR"
    largest = np.iinfo(colours.dtype).max if is_palette else (1 << int(dataset.BitsStored)) - 1
    if largest != np.iinfo(np.uint8).max:
        colours = to_greys(colours if is_palette else colours & largest, 0, largest)
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(colours), cv2.COLOR_RGB2GRAY), dtype=np.uint8)


def _show(stored: Values, dataset: "Dataset") -> tuple[npt.NDArray[np.uint8], tuple[Note, ...], bool]:
    """(h, w) stored values -> (h, w) greys, a note where its own window was of no use, `DecodedImage.is_stretched`."""
    stored, is_padding = _mask(stored, dataset)
    image_values = stored[~is_padding] if is_padding.any() and not is_padding.all() else stored
    lowest, highest = int(stored.min()), int(stored.max())
    notes: tuple[Note, ...] = ()
    window = _file_window(dataset)
    if window is not None and not _is_useful(window, image_values):
        notes = (Note("window", "its own window shows next to nothing; the middle 99% of its values is shown instead"),)
        window = None
    is_stretched = window is None
    if window is None:
        low, high = percentile_window(image_values)

        def window(values: Values) -> npt.NDArray[np.uint8]:
            return to_greys(values, low, high)

    if highest - lowest < MAX_LUT_SIZE:
        greys_of_value = window(np.arange(lowest, highest + 1))
        image = greys_of_value[stored - lowest]
    else:
        image = window(stored)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        image = 255 - image
    image[is_padding] = 0
    return image, notes, is_stretched


def _is_useful(window: Callable[[Values], npt.NDArray[np.uint8]], image_values: Values) -> bool:
    """Whether a file's own window can be applied, and shows more than a few greys of an image that has more."""
    middle = np.rint(percentile_window(image_values)).astype(image_values.dtype)
    if middle[0] == middle[1]:
        return True
    try:
        shown = window(middle)
    except (ValueError, TypeError, IndexError, struct.error):  # of a look-up table that is packed in another way
        return False
    return abs(int(shown[1]) - int(shown[0])) >= MIN_GREYS_SHOWN


def _mask(stored: Values, dataset: "Dataset") -> tuple[Values, npt.NDArray[np.bool_]]:
    """(h, w) values without what old files hide in unused high bits, and which of them are padding."""
    stored = stored.astype(np.int64 if stored.dtype.itemsize > 2 else np.int32)
    if dataset.PixelRepresentation == 0:
        stored &= (1 << int(dataset.BitsStored)) - 1
    padding = dataset.get("PixelPaddingValue")
    if not isinstance(padding, int):
        return stored, np.zeros(stored.shape, dtype=np.bool_)
    limit = dataset.get("PixelPaddingRangeLimit")
    ends = sorted((padding, limit if isinstance(limit, int) else padding))
    return stored, (stored >= ends[0]) & (stored <= ends[1])


def _file_window(dataset: "Dataset") -> Callable[[Values], npt.NDArray[np.uint8]] | None:
    """From stored values to greys by the file's VOI LUT or window; None where it has neither."""
    from pydicom.pixels.processing import apply_modality_lut, apply_voi

    if dataset.get("VOILUTSequence"):
        bits = dataset.VOILUTSequence[0].LUTDescriptor[2]

        def by_lut(values: Values) -> npt.NDArray[np.uint8]:
            modality = np.rint(apply_modality_lut(values, dataset)).astype(np.int64)
            return to_greys(apply_voi(modality, dataset), 0, (1 << bits) - 1)

        return by_lut
    center, width = _first_number(dataset, "WindowCenter"), _first_number(dataset, "WindowWidth")
    if center is None or width is None or width <= 0:
        return None
    function = str(dataset.get("VOILUTFunction") or "LINEAR").upper()

    def by_window(values: Values) -> npt.NDArray[np.uint8]:
        return to_greys(window_values(apply_modality_lut(values, dataset), center, width, function), 0, 1)

    return by_window


def window_values(values: Values, center: float, width: float, function: str) -> npt.NDArray[np.float64]:
    """A VOI window of DICOM PS3.3 C.11.2.1.2 and C.11.2.1.3.

    Args:
        values: after the modality LUT, any shape.
        center: window center.
        width: window width, above 0.
        function: VOI LUT function: LINEAR, LINEAR_EXACT or SIGMOID.

    Returns:
        float64 of the same shape, in 0..1.

    Raises:
        UnreadableImage: no such function.
    """
    values = values.astype(np.float64)
    if function == "LINEAR":
        if width <= 1:
            return (values > center - 0.5).astype(np.float64)
        shown = (values - (center - 0.5)) / (width - 1) + 0.5
    elif function == "LINEAR_EXACT":
        shown = (values - center) / width + 0.5
    elif function == "SIGMOID":
        shown = 1 / (1 + np.exp(np.clip(-4 * (values - center) / width, -700, 700)))
    else:
        raise UnreadableImage(f"damaged DICOM: VOI LUT function '{function}' does not exist")
    return np.asarray(np.clip(shown, 0, 1))


def _first_number(dataset: "Dataset", keyword: str) -> float | None:
    """A window's first value, the view that a viewer opens with; None where there is none or it is no number."""
    value = dataset.get(keyword)
    try:
        number = float(value[0] if isinstance(value, list | tuple) or hasattr(value, "append") else value)
    except (TypeError, ValueError, IndexError):
        return None
    return number if np.isfinite(number) else None


def _notes_of_tags(dataset: "Dataset") -> tuple[Note, ...]:
    notes = []
    view = str(dataset.get("ViewPosition") or "").strip().upper()
    if view and view not in FRONTAL_VIEWS:
        kind = "lateral view" if view in LATERAL_VIEWS else "neither PA nor AP"
        notes.append(Note("lateral", f"ViewPosition {view}, {kind}"))
    body_part = str(dataset.get("BodyPartExamined") or "").strip().upper()
    if body_part and not any(word in body_part for word in CHEST_WORDS):
        notes.append(Note("not a chest", f"BodyPartExamined {body_part}"))
    modality = str(dataset.get("Modality") or "").strip().upper()
    if modality and modality not in RADIOGRAPH_MODALITIES:
        notes.append(Note("not a chest", f"Modality {modality}"))
    intent = str(dataset.get("PresentationIntentType") or "").strip().upper()
    if intent == "FOR PROCESSING":
        notes.append(Note("raw", "PresentationIntentType FOR PROCESSING: raw values of the detector"))
    if _num_frames(dataset) > 1:
        notes.append(Note("frames", f"the first of {_num_frames(dataset)} frames"))
    return tuple(notes)
