"""DICOM radiographs made here, with greys worked out by hand or by pydicom, and the real ones."""

import hashlib
import io
from pathlib import Path
from typing import Any

import cv2
import gdcm
import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels import apply_voi_lut
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGBaseline8Bit

from catheters.data.decoding.dicom import decode_dicom, decode_jpeg_extended
from catheters.data.decoding.image import UnreadableImage
from catheters.data.decoding.radiograph import read_radiograph
from tests.conftest import SHARED_DATA

DICOM_FOLDER = SHARED_DATA / "dicom"
needs_real_dicom = pytest.mark.skipif(not DICOM_FOLDER.is_dir(), reason="the real DICOM files are not at hand")


def make_dicom(
    pixels: np.ndarray, syntax: pydicom.uid.UID = ExplicitVRLittleEndian, preamble: bool = True, **tags: Any
) -> bytes:
    """A DX file of these stored values."""
    dataset = Dataset()
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"
    dataset.SOPInstanceUID = "1.2.3"
    dataset.Modality = "DX"
    dataset.Rows, dataset.Columns = pixels.shape[-2:] if pixels.ndim == 2 else pixels.shape[:2]
    dataset.SamplesPerPixel = 1 if pixels.ndim == 2 else 3
    dataset.PhotometricInterpretation = "MONOCHROME2" if pixels.ndim == 2 else "RGB"
    dataset.BitsAllocated = 8 * pixels.dtype.itemsize
    dataset.BitsStored = dataset.BitsAllocated
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    if pixels.ndim == 3:
        dataset.PlanarConfiguration = 0
    is_big = syntax == ExplicitVRBigEndian
    dataset.PixelData = pixels.astype(pixels.dtype.newbyteorder(">" if is_big else "<")).tobytes()
    dataset["PixelData"].VR = "OW" if pixels.dtype.itemsize == 2 else "OB"
    for keyword, value in tags.items():
        setattr(dataset, keyword, value)
    buffer = io.BytesIO()
    if preamble:
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = syntax
        pydicom.dcmwrite(buffer, dataset, enforce_file_format=True)
    else:
        pydicom.dcmwrite(buffer, dataset, implicit_vr=syntax.is_implicit_VR, little_endian=not is_big)
    return buffer.getvalue()


RAMP = np.arange(0, 4096, 16, dtype=np.uint16).reshape(16, 16)
"""12 bits."""
TWELVE_BITS: dict[str, Any] = {"BitsStored": 12, "HighBit": 11}


@pytest.mark.parametrize("preamble", [True, False])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_raw_pixels_in_every_byte_order(syntax: pydicom.uid.UID, preamble: bool) -> None:
    data = make_dicom(RAMP, syntax, preamble, **TWELVE_BITS, WindowCenter=2048, WindowWidth=4096)
    assert data.startswith(b"\x00" * 128 + b"DICM") == preamble
    image = decode_dicom(data).image
    # PS3.3 C.11.2.1.2.1: y = (x - (c - 0.5)) / (w - 1) + 0.5, so 0 is black and 4095 white.
    assert np.abs(image - RAMP / 4095 * 255).max() <= 0.5 + 1e-3
    assert image.dtype == np.uint8


def test_monochrome1_is_inverted_after_the_window() -> None:
    tags = {**TWELVE_BITS, "WindowCenter": 1000, "WindowWidth": 500}
    plain = decode_dicom(make_dicom(RAMP, **tags)).image
    inverted = decode_dicom(make_dicom(RAMP, **tags, PhotometricInterpretation="MONOCHROME1")).image
    assert (inverted == 255 - plain).all()
    assert plain[0, 0] == 0
    assert plain[-1, -1] == 255


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize(("center", "width"), [(1000, 500), (2048.5, 3000), (100, 1)])
@pytest.mark.parametrize(("slope", "intercept"), [(1, 0), (2, -1000)])
def test_windows_are_pydicoms(function: str, center: float, width: float, slope: float, intercept: float) -> None:
    """pydicom's own window, scaled from the range that it gives values in."""
    tags = {
        **TWELVE_BITS,
        "WindowCenter": center,
        "WindowWidth": width,
        "VOILUTFunction": function,
        "RescaleSlope": slope,
        "RescaleIntercept": intercept,
    }
    data = make_dicom(RAMP, **tags)
    dataset = pydicom.dcmread(io.BytesIO(data))
    with np.errstate(over="ignore"):  # exp of large numbers, in pydicom
        shown = apply_voi_lut(RAMP.astype(np.float64) * slope + intercept, dataset)
    low, high = intercept, 4095 * slope + intercept
    expected = (shown - low) / (high - low) * 255
    assert np.abs(decode_dicom(data).image - expected).max() <= 0.5 + 1e-3


def test_the_first_of_several_windows() -> None:
    tags = {**TWELVE_BITS, "WindowCenter": [1000, 9], "WindowWidth": [500, 9]}
    one = {**TWELVE_BITS, "WindowCenter": 1000, "WindowWidth": 500}
    assert (decode_dicom(make_dicom(RAMP, **tags)).image == decode_dicom(make_dicom(RAMP, **one)).image).all()


def lut(first: int, entries: list[int], bits: int) -> Dataset:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [len(entries), first, bits])
    item.add_new("LUTData", "US", entries)
    return item


def test_modality_lut_then_voi_lut() -> None:
    """Stored 0..3 -> 10, 20, 30, 40 -> the VOI LUT's 10-bit entries from 20 on; it is preferred to the window."""
    modality = lut(0, [10, 20, 30, 40], 8)
    modality.ModalityLUTType = "US"
    voi = lut(20, [100] * 10 + [500] * 10 + [1023], 10)
    data = make_dicom(
        np.array([[0, 1, 2, 3]], dtype=np.uint16),
        BitsStored=2,
        HighBit=1,
        ModalityLUTSequence=Sequence([modality]),
        VOILUTSequence=Sequence([voi]),
        WindowCenter=1,
        WindowWidth=2,
    )
    expected = np.array([100, 100, 500, 1023]) / 1023 * 255  # below the first entry: the first
    assert np.abs(decode_dicom(data).image[0] - expected).max() <= 0.5 + 1e-3


def test_without_a_window_the_middle_of_the_values_is_shown() -> None:
    data = make_dicom(RAMP, **TWELVE_BITS)
    low, high = np.percentile(RAMP, 0.5), np.percentile(RAMP, 99.5)
    expected = np.clip((RAMP - low) / (high - low), 0, 1) * 255
    assert np.abs(decode_dicom(data).image - expected).max() <= 0.5 + 1e-3


def test_a_window_that_shows_nothing_is_not_used() -> None:
    decoded = decode_dicom(make_dicom(RAMP, **TWELVE_BITS, WindowCenter=60000, WindowWidth=10))
    assert [note.kind for note in decoded.notes] == ["window"]
    assert (decoded.image == decode_dicom(make_dicom(RAMP, **TWELVE_BITS)).image).all()
    for center, width in [("", 10), (100, -4), (100, 0)]:
        tags = {**TWELVE_BITS, "WindowCenter": center, "WindowWidth": width}
        assert (decode_dicom(make_dicom(RAMP, **tags)).image == decoded.image).all()


def test_signed_values() -> None:
    values = np.arange(-128, 128, dtype=np.int16).reshape(16, 16)
    image = decode_dicom(make_dicom(values, WindowCenter=0, WindowWidth=256)).image
    assert np.abs(image - (values + 128)).max() <= 1


def test_unused_high_bits_do_not_show() -> None:
    """Old files keep overlays in them."""
    tags = {**TWELVE_BITS, "WindowCenter": 2048, "WindowWidth": 4096}
    dirty = RAMP.copy()
    dirty[::2] |= 0xF000
    assert (decode_dicom(make_dicom(dirty, **tags)).image == decode_dicom(make_dicom(RAMP, **tags)).image).all()


def test_values_in_the_upper_bits_are_refused() -> None:
    with pytest.raises(UnreadableImage, match="12 bits whose highest is bit 15; only those that begin with bit 0"):
        decode_dicom(make_dicom(RAMP << 4, BitsStored=12, HighBit=15))


def test_tables_that_cannot_be_used() -> None:
    """Packed in bytes, or said to have more bits than they use: the middle of the values is shown, with a note."""
    expected = decode_dicom(make_dicom(RAMP, **TWELVE_BITS)).image
    packed = Dataset()
    packed.add_new("LUTDescriptor", "US", [256, 0, 8])
    packed.add_new("LUTData", "OW", bytes(range(256)))
    dark = lut(0, list(range(4096)), 16)
    for item in (packed, dark):
        decoded = decode_dicom(make_dicom(RAMP, **TWELVE_BITS, VOILUTSequence=Sequence([item])))
        assert [note.kind for note in decoded.notes] == ["window"]
        assert (decoded.image == expected).all()


def test_padding_is_black_and_does_not_count() -> None:
    values = np.linspace(1000, 2000, 400).round().astype(np.uint16).reshape(20, 20)
    padded = np.zeros((30, 20), dtype=np.uint16)
    padded[:20] = values
    for photometric in ("MONOCHROME1", "MONOCHROME2"):
        image = decode_dicom(make_dicom(padded, PixelPaddingValue=0, PhotometricInterpretation=photometric)).image
        alone = decode_dicom(make_dicom(values, PhotometricInterpretation=photometric)).image
        assert (image[:20] == alone).all()
        assert not image[20:].any()


def test_colour() -> None:
    colours = np.zeros((4, 4, 3), dtype=np.uint8)
    colours[..., 0] = 255
    assert (decode_dicom(make_dicom(colours)).image == round(0.299 * 255)).all()


@pytest.mark.parametrize(("dtype", "bits"), [("u1", 8), ("u1", 7), ("u2", 12), ("u2", 16), ("u4", 32)])
def test_colours_of_any_number_of_bits(dtype: str, bits: int) -> None:
    """Greys in three channels: value / (2^bits - 1) of 255."""
    largest = (1 << bits) - 1
    values = np.linspace(0, largest, 64).astype(dtype).reshape(8, 8)
    colours = np.repeat(values[..., None], 3, axis=2)
    image = decode_dicom(make_dicom(colours, BitsStored=bits, HighBit=bits - 1)).image
    assert np.abs(image - values.astype(np.float64) / largest * 255).max() <= 0.5 + 1e-3


def test_jpeg_extended_of_12_bits() -> None:
    """All stored values are those that imagecodecs 2026.3.6 decodes, with libjpeg-turbo: 0 to 264, this digest."""
    file = get_testdata_file("JPGExtended.dcm")
    dataset = pydicom.dcmread(file)
    frame = next(generate_frames(dataset.PixelData, number_of_frames=1))
    values = decode_jpeg_extended(frame, dataset)
    assert values.shape == (1024, 256)
    assert (values[420, 140], values[230, 120]) == (244, 95)  # pydicom's own expectation, of pylibjpeg
    digest = hashlib.sha256(values.astype("<u2").tobytes()).hexdigest()
    assert digest == "d30242775a414c01d616447854ebe3f2b20259822894bcd6891f879bcdcbf313"
    assert decode_dicom(Path(file).read_bytes()).full_shape == (1024, 256)
    with pytest.raises(UnreadableImage, match="is coded as 12-bit JPEG Extended, of which its decoder says"):
        decode_jpeg_extended(frame[: len(frame) // 2], dataset)


def encapsulated(frame: bytes, **tags: Any) -> bytes:
    """An 8-bit file of 64 x 64 that holds a JPEG."""
    data = make_dicom(np.zeros((64, 64), dtype=np.uint8), **tags)
    dataset = pydicom.dcmread(io.BytesIO(data))
    dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    dataset.PixelData = encapsulate([frame])
    dataset["PixelData"].is_undefined_length = True
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    return buffer.getvalue()


def test_baseline_jpeg_with_damage_is_refused(rng: np.random.Generator) -> None:

    pixels = rng.integers(0, 256, (64, 64), dtype=np.uint8)
    frame = cv2.imencode(".jpg", pixels)[1].tobytes()
    whole = encapsulated(frame, WindowCenter=128, WindowWidth=256)
    expected = cv2.imdecode(np.frombuffer(frame, np.uint8), cv2.IMREAD_GRAYSCALE)
    assert np.abs(decode_dicom(whole).image.astype(int) - expected).max() <= 1
    with pytest.raises(UnreadableImage, match="damaged JPEG"):
        decode_dicom(encapsulated(frame[:-400] + b"\xff\xd9"))
    with pytest.raises(UnreadableImage, match=r"its JPEG is \(32, 32\), its tags say \(64, 64\)"):
        decode_dicom(encapsulated(cv2.imencode(".jpg", pixels[:32, :32])[1].tobytes()))


@pytest.mark.parametrize("syntax", ["JPEGLosslessProcess14_1", "JPEGLSLossless", "JPEG2000Lossless", "RLELossless"])
def test_packed_pixels(tmp_path: Path, rng: np.random.Generator, syntax: str) -> None:
    """Packed by GDCM: the same greys as from raw pixels; cut off, a reason."""
    smooth = np.cumsum(rng.integers(0, 8, (64, 64)), axis=1).astype(np.uint16) + 500
    raw = tmp_path / "raw.dcm"
    raw.write_bytes(make_dicom(smooth, **TWELVE_BITS, WindowCenter=800, WindowWidth=600))
    reader = gdcm.ImageReader()
    reader.SetFileName(str(raw))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, syntax)))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    packed = tmp_path / "packed.dcm"
    writer.SetFileName(str(packed))
    assert writer.Write()
    assert pydicom.dcmread(packed).file_meta.TransferSyntaxUID.is_encapsulated
    expected = read_radiograph(raw).image
    assert (read_radiograph(packed).image == expected).all()
    packed.write_bytes(packed.read_bytes()[:-600])
    with pytest.raises(UnreadableImage, match=r"damaged DICOM|cut off"):
        read_radiograph(packed)


def test_tags_that_give_quality_flags() -> None:
    def notes(**tags: Any) -> list[tuple[str, str]]:
        return [(note.kind, note.text) for note in decode_dicom(make_dicom(RAMP, **tags)).notes]

    assert notes(ViewPosition="PA", BodyPartExamined="CHEST") == []
    assert notes(ViewPosition="", BodyPartExamined="") == []
    assert notes(ViewPosition="LL") == [("lateral", "ViewPosition LL, lateral view")]
    assert notes(ViewPosition="RAO") == [("lateral", "ViewPosition RAO, neither PA nor AP")]
    assert notes(BodyPartExamined="HIP") == [("not a chest", "BodyPartExamined HIP")]
    assert [kind for kind, _ in notes(PresentationIntentType="FOR PROCESSING")] == ["raw"]
    assert notes(Modality="CT") == [("not a chest", "Modality CT")]


def test_the_first_frame_of_several() -> None:
    frames = np.stack([RAMP, RAMP[::-1]])
    data = make_dicom(RAMP, **TWELVE_BITS, WindowCenter=2048, WindowWidth=4096)
    dataset = pydicom.dcmread(io.BytesIO(data))
    dataset.NumberOfFrames = 2
    dataset.PixelData = frames.tobytes()
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    decoded = decode_dicom(buffer.getvalue())
    assert (decoded.image == decode_dicom(data).image).all()
    assert [(note.kind, note.text) for note in decoded.notes] == [("frames", "the first of 2 frames")]


def test_files_without_an_image() -> None:
    data = make_dicom(RAMP)
    dataset = pydicom.dcmread(io.BytesIO(data))
    del dataset.PixelData
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    with pytest.raises(UnreadableImage, match=r"without pixel data, or cut off before their end \(modality DX\)"):
        decode_dicom(buffer.getvalue())
    with pytest.raises(UnreadableImage, match="damaged DICOM"):
        decode_dicom(data[:-100])
    with pytest.raises(UnreadableImage, match="64 million are decoded"):
        decode_dicom(make_dicom(RAMP, Rows=60000, Columns=60000))
    with pytest.raises(UnreadableImage, match="LUT function 'CUBIC' does not exist"):
        decode_dicom(make_dicom(RAMP, WindowCenter=1, WindowWidth=9, VOILUTFunction="CUBIC"))


def test_endless_sequences_are_refused() -> None:
    """A bomb: 20,000 sequences, each in the one before, of undefined length."""
    header = make_dicom(RAMP)[:132]
    meta_end = make_dicom(RAMP).index(b"\x08\x00\x16\x00")
    opening = b"\x08\x00\x40\x11SQ\x00\x00\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
    bomb = make_dicom(RAMP)[:meta_end] + opening * 20_000
    assert bomb.startswith(header)
    with pytest.raises(UnreadableImage, match=r"damaged DICOM|without pixel data"):
        decode_dicom(bomb)


REAL = {
    "RG1_J2KI.dcm": ((1955, 1841), 192.2, []),
    "RG3_J2KI.dcm": ((1760, 1760), 177.5, ["not a chest"]),
    "gdcm-CR-MONO1-10-chest.dcm": ((440, 440), 139.4, []),
    "rsna_c64d5667_jpegbaseline_8bit.dcm": ((1024, 1024), 143.8, []),
    "txv_1.2.276.0.7230010.3.1.4.8323329.6904.1517875201.850819.dcm": ((1024, 1024), 169.7, []),
    "txv_Fake_MONOHR1.dcm": ((1024, 1024), 85.3, ["inverted"]),
}
"""Shape, mean grey and notes of those that were looked at and are right."""
REFUSED = {
    "966.dcm": r"its pixel data cannot be decoded \(JPEG 2000",
    "Issue56-NoPixelData.dcm": "without pixel data",
    "RG2_JPLY.dcm": "12-bit JPEG Extended",
    "html_saved_as_dcm_1.dcm": "is a web page",
}


@needs_real_dicom
@pytest.mark.parametrize("name", sorted(REAL))
def test_real_files(name: str) -> None:
    shape, mean, notes = REAL[name]
    decoded = read_radiograph(DICOM_FOLDER / name)
    assert decoded.image.shape == shape
    assert decoded.image.mean() == pytest.approx(mean, abs=0.1)
    assert [note.kind for note in decoded.notes] == notes


@needs_real_dicom
@pytest.mark.parametrize("name", sorted(REFUSED))
def test_real_files_that_are_refused(name: str) -> None:
    with pytest.raises(UnreadableImage, match=REFUSED[name]):
        read_radiograph(DICOM_FOLDER / name)


@needs_real_dicom
def test_every_real_file_is_accounted_for() -> None:
    assert {file.name for file in DICOM_FOLDER.glob("*")} == REAL.keys() | REFUSED.keys()
