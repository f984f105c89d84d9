"""A plain folder of images as a table."""

import errno
import os
import re
from pathlib import Path

import pytest

from catheters.data.decoding.image import UnreadableImage
from catheters.data.decoding.radiograph import read_file
from catheters.data.tables.image_folder import folder_table
from catheters.io.csv_files import TableError


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
    assert table.labels.dtype == "float32"
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


def test_a_file_of_several_names_is_taken_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By the name that is no link, also where the link or a linked folder comes first."""
    touch(tmp_path, "b.png", "z/c.png")
    (tmp_path / "a.png").symlink_to("b.png")
    (tmp_path / "y").symlink_to("z")
    assert folder_table(tmp_path).uids.tolist() == ["b.png", "z/c.png"]
    said = capsys.readouterr().err
    assert "warning: 2 further names of files that are taken once" in said
    assert "a.png (b.png), y/c.png (z/c.png)" in said


def test_links_out_of_the_folder_are_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    touch(tmp_path, "elsewhere/a.png")
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "x.png").symlink_to("../elsewhere/a.png")
    (tmp_path / "images" / "w.png").symlink_to("../elsewhere/a.png")
    assert folder_table(tmp_path / "images").uids.tolist() == ["w.png"]
    assert "x.png (w.png)" in capsys.readouterr().err


def test_links_to_nowhere_are_images_with_a_reason(tmp_path: Path) -> None:
    for name, target in {"a.png": "gone.png", "b.png": "gone.png", "loop.png": "loop.png"}.items():
        (tmp_path / name).symlink_to(target)
    assert folder_table(tmp_path).uids.tolist() == ["a.png", "b.png", "loop.png"]
    with pytest.raises(UnreadableImage, match=r"is a link to gone\.png, which is not there"):
        read_file(tmp_path / "b.png")
    with pytest.raises(UnreadableImage, match="cannot be read: Too many levels of symbolic links"):
        read_file(tmp_path / "loop.png")


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO])
def test_a_folder_in_it_that_cannot_be_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    """One that is not for this user is passed over with a word; a disk that fails makes the command fail."""
    touch(tmp_path, "a.png", "b/b.png")
    list_folder = os.scandir

    def fail_in_b(path: str) -> object:
        if Path(path).name == "b":
            raise OSError(number, os.strerror(number), str(path))
        return list_folder(path)

    monkeypatch.setattr(os, "scandir", fail_in_b)
    said = f"{tmp_path / 'b'}:.* cannot be listed: {os.strerror(number)}"
    if number == errno.EIO:
        with pytest.raises(TableError, match=said):
            folder_table(tmp_path)
    else:
        assert folder_table(tmp_path).uids.tolist() == ["a.png"]
        assert re.search(said, capsys.readouterr().err)
