"""Which images are predicted, and under what names."""

import dataclasses
from pathlib import Path

import pytest

from catheters.config.settings import Settings
from catheters.errors import UserError
from catheters.inference.inputs import list_images
from catheters.inference.writers import read_submission
from catheters.runs.build import build_table_source

SETTINGS = Settings()
SOURCE = build_table_source(SETTINGS)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("images/a.jpg", "images/deep/b.dcm", "images/deep/1.2.826", "images/notes.txt", "c.png"):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"x")
    return tmp_path


def test_files_and_folders(folder: Path) -> None:
    images = list_images([Path("images"), Path("c.png")], SOURCE, None)
    assert images.uids == ("a", "1.2.826", "b", "c")
    assert images.paths[1] == Path("images/deep/1.2.826")


def test_names_keep_their_suffix_where_the_table_has_it(folder: Path) -> None:
    settings = dataclasses.replace(SETTINGS, path_pattern="images*/{uid}")
    assert list_images([Path("c.png")], build_table_source(settings), None).uids == ("c.png",)


def test_two_of_one_name_are_called_after_their_paths(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("images/deep/a.png").write_bytes(b"x")
    assert list_images([Path("images")], SOURCE, None).uids == (
        "a.jpg",
        "deep/1.2.826",
        "deep/a.png",
        "deep/b.dcm",
    )
    assert "several images are named a" in capsys.readouterr().err
    Path("other").mkdir()
    Path("other/c.png").write_bytes(b"x")
    assert list_images([Path("c.png"), Path("other")], SOURCE, None).uids == (
        "c.png",
        "other/c.png",
    )


def test_what_is_given_twice_is_predicted_once(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("images/link.jpg").symlink_to("a.jpg")
    images = list_images([Path("c.png"), Path("images"), Path("images/a.jpg"), Path("c.png")], SOURCE, None)
    assert images.uids == ("c", "a", "1.2.826", "b")
    said = capsys.readouterr().err
    assert "1 further names of files that are taken once (in brackets their own): link.jpg (a.jpg)" in said
    assert "2 further names of files that are taken once" in said
    assert "images/a.jpg (images/a.jpg), c.png (c.png)" in said
    # Ids of a table keep a row each, and its file is not predicted by its path as well.
    Path("ids.csv").write_text("StudyInstanceUID\na\nlink\n")
    images = list_images([Path("images/a.jpg"), Path("ids.csv")], SOURCE, "images/{uid}.jpg")
    assert images.uids == ("a", "link")


def test_a_table_of_ids(folder: Path) -> None:
    Path("ids.csv").write_text("StudyInstanceUID,x\na,1\nz,0\n")
    with pytest.raises(UserError, match=r"none of its images is there, train/a\.jpg for one; say with --images"):
        list_images([Path("ids.csv")], SOURCE, None)
    images = list_images([Path("ids.csv")], SOURCE, "images/{uid}.jpg")
    assert images.uids == ("a", "z")
    assert images.paths == (Path("images/a.jpg"), Path("images/z.jpg"))
    with pytest.raises(UserError, match=r"--images images/a\.jpg: .*\{uid\} or a \{column\} of the table is expected"):
        list_images([Path("ids.csv")], SOURCE, "images/a.jpg")
    by_header = dataclasses.replace(SETTINGS, path_pattern="**/*", dicom_id="StudyInstanceUID")
    with pytest.raises(UserError, match="were found by StudyInstanceUID; say with --images where these are"):
        list_images([Path("ids.csv")], build_table_source(by_header), None)


def test_nothing_there(folder: Path) -> None:
    with pytest.raises(UserError, match="gone: no such file or folder; images, folders of images or a CSV"):
        list_images([Path("gone")], SOURCE, None)
    Path("empty").mkdir()
    with pytest.raises(UserError, match="empty: no image in it, nor in its folders"):
        list_images([Path("empty")], SOURCE, None)


def test_a_table_whose_images_have_another_form(folder: Path) -> None:
    Path("ids.csv").write_text("StudyInstanceUID\na\n")
    said = r"none of its images is there, images/a\.JPG for one; .*; images/a\.jpg is there: is it meant\?$"
    with pytest.raises(UserError, match=said):
        list_images([Path("ids.csv")], SOURCE, "images/{uid}.JPG")


def test_a_submission_whose_ids_have_another_form(folder: Path) -> None:
    Path("sample.csv").write_text("id,x\na.jpg,0\n")
    images = list_images([Path("images")], SOURCE, None)
    with pytest.raises(UserError, match=r"; a\.jpg and a differ only in their form"):
        read_submission(Path("sample.csv"), images, ("x",))
