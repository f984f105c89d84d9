"""Figures of many images: what is passed over, and what is written of the others."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from catheters.data.decoding.image import UnreadableImage
from catheters.data.preprocessing import Preprocessing
from catheters.inference.figures import Figures, Xray, draw_images
from catheters.inference.inputs import Images
from catheters.runtime.shortage import DeviceError
from catheters.viz.layout import Cell, Heading


@pytest.fixture
def images(tmp_path: Path) -> Images:
    """Of uids a to d, the rows of which are 40 to 43 pixels high; c is gone."""
    paths = tuple(tmp_path / f"{uid}.png" for uid in "abcd")
    for number, path in enumerate(paths):
        Image.fromarray(np.full((40 + number, 50), 90, dtype=np.uint8)).save(path)
    paths[2].unlink()
    return Images(uids=tuple("abcd"), paths=paths)


def draw_all(images: Images, folder: Path, rows: list[int]) -> tuple[dict[str, str], int, Path | None]:
    def draw(row: int, name: str, read: Xray) -> Figures:
        xray, made = read
        assert xray.shape == (40 + row, 50) and made[0].pixels.shape == (32, 32)
        if name in ("b", "d"):
            raise DeviceError("no room") if name == "d" else UnreadableImage("no numbers")
        figure = Image.fromarray(xray)
        return Figures(files={f"{name}/one": figure, f"{name}/two": figure}, cell=Cell([[figure]], [], []))

    drawn = draw_images(
        folder,
        images,
        rows,
        (Preprocessing(image_shape=(32, 32)),),
        draw,
        lambda number: Heading(f"{number} images", "", {}),
        doing="drawing",
        num_workers=1,
    )
    return drawn.missing, drawn.num_figures, drawn.sheet


def test_what_cannot_be_drawn_is_named(images: Images, tmp_path: Path) -> None:
    folder = tmp_path / "figures"
    missing, num_figures, sheet = draw_all(images, folder, [0, 1, 2, 3])
    assert missing == {"b": "no numbers", "c": "no such file", "d": "no room"}
    assert num_figures == 2
    written = {file.relative_to(folder).as_posix() for file in folder.rglob("*.jpg")}
    assert written == {"a/one.jpg", "a/two.jpg", "contact_sheet.jpg"}
    assert sheet == folder / "contact_sheet.jpg"
    with Image.open(folder / "a" / "two.jpg") as figure:
        assert figure.size == (50, 40)


def test_nothing_to_draw(images: Images, tmp_path: Path) -> None:
    assert draw_all(images, tmp_path / "figures", []) == ({}, 0, None)
    assert list((tmp_path / "figures").iterdir()) == []
