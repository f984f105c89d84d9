"""Pixel spacing: tables, and small DICOM headers with every rule's tags."""

import struct
import warnings
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from catheters.data.spacing import (
    check_sizes,
    check_spacing_ids,
    read_dicom_spacing,
    read_spacing_table,
    spacings_of,
)
from catheters.io.csv_files import TableError
from catheters.measurements import PixelSpacing

TOO_LONG = "lengths are about 1.05 to 1.3 times too long"


def write_table(file: Path, *rows: str, header: str = "uid,spacing_x,spacing_y") -> Path:
    file.write_text("\n".join([header, *rows]) + "\n")
    return file


def test_table(tmp_path: Path) -> None:
    file = write_table(tmp_path / "s.csv", "b,0.143,0.2", "a,1e-1, 1")
    assert read_spacing_table(file, "uid") == {"b": PixelSpacing((0.143, 0.2)), "a": PixelSpacing((0.1, 1.0))}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a,,1", "column 'spacing_x' is empty in line 3"),
        (",1,1", "column 'uid' is empty in line 3"),
        ("a,x,1", "line 3, column 'spacing_x': 'x' is not a finite number; mm per pixel are expected"),
        ("a,1,inf", "line 3, column 'spacing_y': 'inf' is not a finite number; mm per pixel are expected"),
        ("a,1,0.0", "line 3, column 'spacing_y': '0.0' is not above 0; mm per pixel are expected"),
        ("a,-0.1,1", "line 3, column 'spacing_x': '-0.1' is not above 0; mm per pixel are expected"),
        ("b,1,1", "1 duplicate ids in column uid; the first is b in line 3"),
    ],
)
def test_what_a_table_must_not_hold(tmp_path: Path, row: str, message: str) -> None:
    file = write_table(tmp_path / "s.csv", "b,1,1", row)
    with pytest.raises(TableError) as error:
        read_spacing_table(file, "uid")
    assert str(error.value) == f"{file}: {message}"


@pytest.mark.parametrize(
    ("header", "hint"),
    [
        ("uid,spacing_x", "there are: uid, spacing_x"),  # which is wanted itself
        ("uid,spacing_x,note", "there are: uid, spacing_x, note"),
        ("uid,spacing_x,spacing-y", "did you mean 'spacing-y'?"),
    ],
)
def test_table_without_a_column(tmp_path: Path, header: str, hint: str) -> None:
    file = write_table(tmp_path / "s.csv", "b,1,1" if header.count(",") > 1 else "b,1", header=header)
    with pytest.raises(TableError) as error:
        read_spacing_table(file, "uid")
    assert str(error.value) == f"{file}: 'spacing_y' is not a column; {hint}"


def test_images_without_a_row_have_no_spacing() -> None:
    known = {"a": PixelSpacing((0.1, 0.2)), "b": PixelSpacing((0.3, 0.4)), "c": PixelSpacing(None)}
    np.testing.assert_array_equal(
        spacings_of(known, ["b", "x", "c", "a"]),
        [[0.3, 0.4], [np.nan, np.nan], [np.nan, np.nan], [0.1, 0.2]],
    )


def test_a_table_of_other_images() -> None:
    check_spacing_ids(["a", "b"], ["b", "c"], "s.csv")
    with pytest.raises(TableError) as error:
        check_spacing_ids(["001", "2"], ["1", "7"], "--spacing s.csv")
    assert str(error.value) == (
        "--spacing s.csv: none of its 2 ids is that of an image; it has 001, and the images are called like 1; 001 and "
        "1 differ only in their form, and ids are compared as text: use one form"
    )


SHAPES = {"a": (3000, 2500), "b": (1600, 2000), "c": (2048, 2048), "failed": (0, 0)}
USUAL = {"a": (0.143, 0.143), "b": (0.175, 0.2), "c": (0.168, 0.168), "failed": (9e9, 1.0), "of no image": (9e9, 1.0)}
"""Sides of 357.5 x 429, 350 x 320 and 344.064 mm."""


def times(factor: float, spacings: dict[str, tuple[float, float]] = USUAL) -> dict[str, PixelSpacing]:
    return {uid: PixelSpacing((x * factor, y * factor)) for uid, (x, y) in spacings.items()}


def test_usual_sizes_are_not_warned_of() -> None:
    assert check_sizes(times(1), SHAPES, "s.csv") == []


@pytest.mark.parametrize(
    ("factor", "size", "unit"),
    [
        (0.001, "0.357 x 0.429", "; all seem to be 1,000 times too small, as in m"),
        (0.1, "35.8 x 42.9", "; all seem to be 10 times too small, as in cm"),
        (1000, "3.58e+05 x 4.29e+05", "; all seem to be 1,000 times too large, as in micrometres"),
        (100, "3.58e+04 x 4.29e+04", "; all seem to be 100 times too large"),
        (1 / 25.4, "14.1 x 16.9", ""),  # inches are no power of ten
    ],
)
def test_spacings_in_another_unit(factor: float, size: str, unit: str) -> None:
    assert check_sizes(times(factor), SHAPES, "s.csv") == [
        f"s.csv: 3 of 3 images would be implausibly large or small, such as a with {size} mm, so no lengths in mm "
        f"there; mm per pixel of the original image are expected{unit}"
    ]


def test_one_row_that_is_wrong() -> None:
    assert check_sizes({**times(1), "b": PixelSpacing((70.0, 70.0))}, SHAPES, "s.csv") == [
        "s.csv: 1 of 3 images would be implausibly large or small, such as b with 1.4e+05 x 1.12e+05 mm, so no lengths "
        "in mm there; mm per pixel of the original image are expected"
    ]


def test_pixels_far_from_square() -> None:
    oblong = {"a": PixelSpacing((0.1, 0.4)), "b": PixelSpacing((0.2, 0.16)), "c": PixelSpacing((0.2, 0.159))}
    assert check_sizes(oblong, SHAPES, "s.csv") == [
        "s.csv: 2 of 3 images would have pixels far from square, such as a with 0.1 x 0.4 mm, so one of the two may be "
        "wrong"
    ]


def write_dicom(file: Path, **values: object) -> Path:
    """A header without pixels; texts are written as they are."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    with warnings.catch_warnings(action="ignore"):  # values that archives hold in spite of the standard
        for keyword, value in values.items():
            setattr(dataset, keyword, value)
        dataset.save_as(file, enforce_file_format=True)
    return file


def with_text(file: Path, tag: tuple[int, int], text: bytes) -> Path:
    """The file with a last element of decimal strings that pydicom would not write."""
    text += b" " * (len(text) % 2)
    with file.open("ab") as stream:
        stream.write(struct.pack("<HH", *tag) + b"DS" + struct.pack("<H", len(text)) + text)
    return file


@pytest.mark.parametrize("calibration", ["GEOMETRY", "FIDUCIAL", "fiducial "])
@pytest.mark.parametrize("others", [{}, {"ImagerPixelSpacing": [0.2, 0.2]}])
def test_calibrated_spacing_is_taken_rows_first(tmp_path: Path, calibration: str, others: dict[str, object]) -> None:
    """The magnification is in it already."""
    file = write_dicom(
        tmp_path / "a.dcm",
        PixelSpacing=[0.16, 0.17],
        PixelSpacingCalibrationType=calibration,
        EstimatedRadiographicMagnificationFactor=1.2,
        **others,
    )
    assert read_dicom_spacing(file) == PixelSpacing((0.17, 0.16))
    assert read_dicom_spacing(file.read_bytes()) == PixelSpacing((0.17, 0.16))


def test_spacing_at_the_detector_is_divided_by_the_magnification(tmp_path: Path) -> None:
    file = write_dicom(
        tmp_path / "a.dcm", ImagerPixelSpacing=[0.15, 0.18], EstimatedRadiographicMagnificationFactor=1.2
    )
    spacing = read_dicom_spacing(file)
    assert spacing.mm == pytest.approx((0.15, 0.125))
    assert spacing.doubt == ""


def test_spacing_at_the_detector_is_doubted_without_it(tmp_path: Path) -> None:
    file = write_dicom(tmp_path / "a.dcm", ImagerPixelSpacing=[0.15, 0.18])
    assert read_dicom_spacing(file) == PixelSpacing(
        (0.18, 0.15), f"ImagerPixelSpacing holds at the detector, so {TOO_LONG}"
    )


@pytest.mark.parametrize("factor", ["1", "0.9", "0", "-1.1", "2.5", "none"])
def test_impossible_magnification_is_not_used(tmp_path: Path, factor: str) -> None:
    # 0018,1114 comes before 0018,1164 in a file, but a reader takes any order
    file = with_text(write_dicom(tmp_path / "a.dcm", ImagerPixelSpacing=[0.1, 0.1]), (0x18, 0x1114), factor.encode())
    assert read_dicom_spacing(file) == PixelSpacing(
        (0.1, 0.1),
        f"EstimatedRadiographicMagnificationFactor '{factor}' is not above 1 and at most 2, so it is not used; "
        f"ImagerPixelSpacing holds at the detector, so {TOO_LONG}",
    )


def test_spacing_equal_to_the_detectors_is_not_calibrated(tmp_path: Path) -> None:
    same = {"PixelSpacing": [0.143, 0.143], "ImagerPixelSpacing": [0.14301, 0.143]}
    spacing = read_dicom_spacing(write_dicom(tmp_path / "a.dcm", **same))
    assert spacing.mm == pytest.approx((0.143, 0.143), rel=1e-3)
    assert spacing.doubt == f"ImagerPixelSpacing holds at the detector, so {TOO_LONG}"
    file = write_dicom(tmp_path / "b.dcm", **same, EstimatedRadiographicMagnificationFactor=1.1)
    assert read_dicom_spacing(file).mm == pytest.approx((0.13, 0.13), rel=1e-3)
    assert read_dicom_spacing(file).doubt == ""
    file = write_dicom(tmp_path / "c.dcm", **same, PixelSpacingCalibrationType="GEOMETRY")
    assert read_dicom_spacing(file).mm == pytest.approx((0.143, 0.143), rel=1e-3)
    assert read_dicom_spacing(file).doubt == (
        "PixelSpacingCalibrationType is GEOMETRY, but PixelSpacing is the same as ImagerPixelSpacing, which is not "
        f"corrected; ImagerPixelSpacing holds at the detector, so {TOO_LONG}"
    )


def test_spacing_that_differs_from_the_detectors_was_corrected(tmp_path: Path) -> None:
    file = write_dicom(tmp_path / "a.dcm", PixelSpacing=[0.13, 0.12], ImagerPixelSpacing=[0.143, 0.143])
    assert read_dicom_spacing(file) == PixelSpacing(
        (0.12, 0.13),
        "PixelSpacing is not ImagerPixelSpacing, so magnification was corrected, but the header does not say how",
    )
    file = write_dicom(
        tmp_path / "b.dcm",
        PixelSpacing=[0.15, 0.143],
        PixelSpacingCalibrationType="FIDUCIAL",
        ImagerPixelSpacing=[0.143, 0.143],
    )
    assert read_dicom_spacing(file) == PixelSpacing(
        (0.143, 0.15),
        "PixelSpacing is larger than ImagerPixelSpacing, but correcting magnification makes it smaller",
    )


@pytest.mark.parametrize("calibration", [{}, {"PixelSpacingCalibrationType": "BY EYE"}])
def test_spacing_alone_does_not_tell(tmp_path: Path, calibration: dict[str, str]) -> None:
    file = write_dicom(tmp_path / "a.dcm", PixelSpacing=[0.2, 0.1], **calibration)
    assert read_dicom_spacing(file) == PixelSpacing(
        (0.1, 0.2), f"PixelSpacing does not say whether magnification was corrected; if it was not, {TOO_LONG}"
    )


def test_scanned_film(tmp_path: Path) -> None:
    file = write_dicom(tmp_path / "a.dcm", NominalScannedPixelSpacing=[0.175, 0.171])
    assert read_dicom_spacing(file) == PixelSpacing(
        (0.171, 0.175), f"NominalScannedPixelSpacing holds at the film, so {TOO_LONG}"
    )
    file = write_dicom(
        tmp_path / "b.dcm",
        NominalScannedPixelSpacing=[0.2, 0.2],
        PixelSpacing=[0.2, 0.2],
        EstimatedRadiographicMagnificationFactor=1.25,
    )
    assert read_dicom_spacing(file) == PixelSpacing((0.16, 0.16))
    file = write_dicom(tmp_path / "c.dcm", NominalScannedPixelSpacing=[0.2, 0.2], ImagerPixelSpacing=[0.1, 0.1])
    assert read_dicom_spacing(file).mm == (0.1, 0.1)


@pytest.mark.parametrize(
    "text",
    ["0\\0", "-0.1\\0.1", "0.1\\0", "0.1", "0.1\\", "\\0.1", "0.1\\0.1\\0.1", "nan\\nan", "inf\\1", "x\\y", "0,1\\0,1"],
)
def test_wrong_spacing_counts_as_absent(tmp_path: Path, text: str) -> None:
    wrong = f"PixelSpacing {text!r} is not two numbers above 0, so it is not used"
    file = with_text(write_dicom(tmp_path / "a.dcm"), (0x28, 0x30), text.encode())
    assert read_dicom_spacing(file) == PixelSpacing(None, f"{wrong}; the header has no pixel spacing")
    file = write_dicom(tmp_path / "b.dcm", ImagerPixelSpacing=[0.2, 0.1], EstimatedRadiographicMagnificationFactor=2)
    assert read_dicom_spacing(with_text(file, (0x28, 0x30), text.encode())) == PixelSpacing((0.05, 0.1), wrong)


def test_without_spacing(tmp_path: Path) -> None:
    file = write_dicom(tmp_path / "a.dcm", PixelSpacing=None, EstimatedRadiographicMagnificationFactor=1.2)
    assert read_dicom_spacing(file) == PixelSpacing(None, "the header has no pixel spacing")


def test_what_is_no_dicom_file(tmp_path: Path) -> None:
    file = tmp_path / "a.jpg"
    file.write_bytes(b"\xff\xd8\xff\xe0" + bytes(200))
    unknown = PixelSpacing(None, "no DICOM file, or a damaged one, so its pixel spacing is not known")
    assert read_dicom_spacing(file) == unknown
    file.write_bytes(b"")
    assert read_dicom_spacing(file) == unknown
    with pytest.raises(FileNotFoundError):
        read_dicom_spacing(tmp_path / "b.dcm")


def test_pixels_stay_unread(tmp_path: Path) -> None:
    """A file that is cut off within its pixels still has its header."""
    file = write_dicom(tmp_path / "a.dcm", PixelSpacing=[0.2, 0.1], PixelSpacingCalibrationType="FIDUCIAL")
    with file.open("ab") as stream:
        stream.write(struct.pack("<HH", 0x7FE0, 0x10) + b"OW\0\0" + struct.pack("<I", 10**9) + bytes(10))
    assert read_dicom_spacing(file) == PixelSpacing((0.1, 0.2))


def test_spacing_of_the_sample(sample_folder: Path) -> None:
    spacing = read_spacing_table(sample_folder / "spacing.csv", "StudyInstanceUID")
    assert set(spacing) == {file.stem for file in sample_folder.glob("t*/*.jpg")}
    for each in spacing.values():
        assert each.mm is not None
        assert each.mm[0] == pytest.approx(400 / 64, rel=0.05)  # 400 mm, drawn a little larger or smaller
