"""A plain folder of images as a table."""

from pathlib import Path

import pytest

from catheters.csv_files import TableError
from catheters.data.folder import folder_table


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_images_at_any_depth_sorted_by_path(tmp_path: Path) -> None:
    touch(tmp_path, "b/2.JPG", "b/10.jpeg", "a.png", "c/d/IM0001", "c/x.tif", "c/x.TIFF", "z.webp", "y.dcm", "w.Dicom")
    touch(tmp_path, "1.2.840.113619.2.5")
    table = folder_table(tmp_path)
    expected = [
        "1.2.840.113619.2.5",
        "a.png",
        "b/10.jpeg",
        "b/2.JPG",
        "c/d/IM0001",
        "c/x.TIFF",
        "c/x.tif",
        "w.Dicom",
        "y.dcm",
        "z.webp",
    ]
    assert table.uids.tolist() == expected
    assert table.paths == tuple(tmp_path / name for name in expected)
    assert table.patient_ids.tolist() == expected
    assert table.labels.shape == (10, 0)
    assert table.labels.dtype == "uint8"
    assert table.label_columns == ()
    assert table.folds is None


def test_what_is_no_image_is_passed_over(tmp_path: Path) -> None:
    touch(tmp_path, ".DS_Store", ".hidden/a.png", "__MACOSX/a.png", "b/__MACOSX/._a.png", "notes.txt", "b/train.csv")
    touch(tmp_path, "DICOMDIR", "._a.png", "a.png", "a.npy", "b.jpg.part")
    assert folder_table(tmp_path).uids.tolist() == ["a.png"]


def test_a_hidden_folder_may_be_asked_for(tmp_path: Path) -> None:
    touch(tmp_path, ".mine/a.png")
    assert folder_table(tmp_path / ".mine").uids.tolist() == ["a.png"]


def test_folders_without_images_say_what_is_in_them(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="absent: no such folder; a folder of images is expected"):
        folder_table(tmp_path / "absent")
    touch(tmp_path, "a.CSV", "b.csv", "c.npy", ".hidden")
    with pytest.raises(TableError, match=r"a\.CSV: is a file; a folder of images is expected"):
        folder_table(tmp_path / "a.CSV")
    with pytest.raises(TableError) as error:
        folder_table(tmp_path)
    assert "files that end in .jpg, .jpeg, .png, .tif, .tiff, .webp, .dcm, .dicom or have no suffix" in str(error.value)
    assert str(error.value).endswith("and there are only others: .csv (2), .npy (1)")
    (tmp_path / "empty").mkdir()
    with pytest.raises(TableError, match="are sought, and there are no files"):
        folder_table(tmp_path / "empty")
