"""Files and ids that were meant, by another way of writing them."""

from pathlib import Path

import pytest

from catheters.io.near_misses import file_hint, form_of, same_id_hint, without_decimals


@pytest.mark.parametrize(
    ("there", "asked"),
    [
        ("img/i0.jpg", "img\\i0.jpg"),
        ("i0.JPG", "i0.jpg"),
        ("Train/i0.jpg", "train/i0.jpg"),
        ("0.jpg", "0.0.jpg"),
        ("00000.jpg", "0.jpg"),
        ("i0.png", "i0.jpg"),
    ],
)
def test_the_file_that_is_there_is_named(tmp_path: Path, there: str, asked: str) -> None:
    (tmp_path / there).parent.mkdir(exist_ok=True)
    (tmp_path / there).touch()
    assert file_hint(tmp_path / asked) == f"; {tmp_path / there} is there: is it meant?"
    assert file_hint(tmp_path / there) == ""
    assert file_hint(tmp_path / "other.jpg") == ""


def test_names_that_no_file_has(tmp_path: Path) -> None:
    assert file_hint(tmp_path / ("a" * 300)) == ""
    assert file_hint(tmp_path / "a\0b") == ""


def test_forms_of_ids() -> None:
    assert {form_of(text) for text in ("1000", "1000.0", "01000", "1000.jpg", "train\\1000.PNG", " 1000 ")} == {"1000"}
    assert form_of("0") == form_of("00000") == "0"
    assert form_of("1.2.840") != form_of("1.2.84")
    assert (without_decimals("12.0"), without_decimals("0012"), without_decimals("12.5")) == ("12", "0012", "12.5")
    assert same_id_hint(["x", "7.0"], ["7", "8"]).startswith("; 7.0 and 7 differ only in their form")
    assert same_id_hint(["x"], ["7"]) == ""
