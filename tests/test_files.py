"""Files are whole or absent."""

from pathlib import Path

import pytest

from catheters.files import write_text, write_whole


def test_a_failed_write_leaves_the_old_content(tmp_path: Path) -> None:
    file = tmp_path / "x.txt"
    write_text(file, "old")

    def fail(part: Path) -> None:
        part.write_text("half of the n")
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        write_whole(file, fail)
    assert file.read_text() == "old"
    write_text(file, "new")
    assert file.read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["x.txt"]
