"""Contact sheets: which images, where catheters and labels are drawn, and that augmented images are training's."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from PIL import Image

from catheters.checkpoints.parts import build_preprocessing
from catheters.commands.preproc import show_images
from catheters.config.settings import Settings
from catheters.data.annotations import Annotation
from catheters.data.augmentation import Augmentation
from catheters.data.cache.cache import ImageCache, open_cache
from catheters.data.cache.writer import build_cache
from catheters.data.samples import CachedRadiographs
from catheters.data.tables.image_folder import folder_table
from catheters.data.tables.label_table import LabelTable, read_label_table
from catheters.inference.heatmaps import describe_sheet
from catheters.io.csv_files import TableError
from catheters.runs.build import build_table_source
from catheters.viz.contact_sheets import (
    AS_CACHED,
    BESIDE,
    CATHETERS,
    CHOSEN,
    LANDMARKS,
    NOT_LEARNT,
    describe_images,
)
from catheters.viz.layout import GAP, MAX_TITLE_LINES, MIN_COLUMNS, TILE_WIDTH
from catheters.viz.lengths import CROSS_RADIUS
from catheters.viz.lines import (
    DEVICE_TYPE_COLOURS,
    FONT_SIZE,
    MARK_COLOUR,
    OTHER_COLOURS,
    UNKNOWN_COLOUR,
    DeviceTypes,
)
from catheters.viz.text import load_font, wrap
from catheters.viz.tiles import NOTE_COLOUR, drawn_tile, grey_tile, prepare_image


@pytest.fixture
def annotated(settings: Settings) -> Settings:
    """The tiny sample with its drawn catheters."""
    return dataclasses.replace(settings, annotation_table="train_annotations.csv")


def cache_of(settings: Settings, table: LabelTable) -> ImageCache:
    build_cache(table, settings.cache_file, build_preprocessing(settings))
    return open_cache(settings.cache_file, table, build_preprocessing(settings))


def write_sheets(settings: Settings, num_images: int) -> list[npt.NDArray[np.uint8]]:
    table = read_label_table(build_table_source(settings))
    files = show_images(settings, table, cache_of(settings, table), num_images)
    stem = settings.cache_file.stem
    assert [file.name for file in files] == [f"{stem}_images.png", f"{stem}_augmented.png"]
    assert {file.parent for file in files} == {settings.cache_file.parent}
    return [np.array(Image.open(file).convert("RGB")) for file in files]


# Which images are shown


# Where catheters are drawn


PLACES = {
    # 200 x 100 px to 60 x 40: x = (51 + .5) * .3 - .5, y = (41 + .5) * .4 - .5
    "stretch": ({"image_size": (40, 60)}, (14.95, 16.1)),
    # to 64 x 32, 16 rows of black above
    "pad": ({"image_size": 64, "resize": "pad"}, (15.98, 28.78)),
    # 160 x 80 px are left, from (30, 10) on, and become 40 x 40: x = (51 + .5 - 30) * .25 - .5
    "crop": ({"image_size": 40, "crop_borders": True}, (4.875, 15.25)),
    # they become 64 x 32, 16 rows of black above
    "crop and pad": ({"image_size": 64, "crop_borders": True, "resize": "pad"}, (8.1, 28.1)),
}


@pytest.mark.parametrize("case", PLACES)
def test_catheters_lie_on_their_pixels(case: str, tmp_path: Path) -> None:
    """A bright spot of the X-ray, and the point annotated on it, meet in the cached image."""
    changes, expected = PLACES[case]
    image = np.full((100, 200), 100, dtype=np.uint8)
    image[:10] = image[90:] = image[:, :30] = image[:, 190:] = 0
    cv2.circle(image, (51, 41), 6, 255, cv2.FILLED)
    (tmp_path / "xrays").mkdir()
    cv2.imwrite(str(tmp_path / "xrays" / "one.png"), image)
    settings = dataclasses.replace(Settings(), cache_folder=str(tmp_path), **changes)
    table = folder_table(tmp_path / "xrays")
    cache = cache_of(settings, table)
    annotation = Annotation("ETT - Normal", np.array([[51.0, 0.0], [51.0, 41.0]]))
    types = DeviceTypes.of({}, [], [annotation.label])
    shown = prepare_image(table, cache, 0, [annotation], build_preprocessing(settings), types)
    point = shown.lines[0].points[1]
    assert point == pytest.approx(expected)
    brightness = np.clip(shown.pixels.astype(np.float64) - 101, 0, None)
    rows, columns = np.indices(brightness.shape)
    spot = np.array([(columns * brightness).sum(), (rows * brightness).sum()]) / brightness.sum()
    assert np.abs(spot - point).max() < 0.2
    assert shown.lines[0].tip == -1
    assert shown.lines[0].colour == DEVICE_TYPE_COLOURS["ETT"]


def test_what_stands_under_an_image(annotated: Settings) -> None:
    table = read_label_table(build_table_source(annotated))
    cache = cache_of(annotated, table)
    cache.entries[0].notes["inverted"] = "likely inverted grayscale"
    positive = [label for label, value in zip(table.label_columns, table.labels[0], strict=True) if value]
    shown = prepare_image(table, cache, 0, [], build_preprocessing(annotated), DeviceTypes({}, {}))
    assert str(table.uids[0]).endswith(shown.text[0][0].removeprefix("..."))
    assert [text for text, _ in shown.text[1:]] == [
        f"patient {table.patient_ids[0]}",
        " · ".join(positive) or "no positive label",
        "likely inverted grayscale",
    ]
    assert shown.text[-1][1] == NOTE_COLOUR
    assert NOTE_COLOUR not in {colour for _, colour in shown.text[:-1]}


# Whole sheets


def find_tile(sheet: npt.NDArray[np.uint8], tile: npt.NDArray[np.uint8], column: int) -> int | None:
    """The first row of the sheet at which a tile stands in a column."""
    height, width = tile.shape[:2]
    left = GAP + column * (TILE_WIDTH + GAP)
    strip = sheet[:, left : left + width]
    rows = [y for y in range(len(strip) - height + 1) if (strip[y] == tile[0]).all()]
    return next((y for y in rows if (strip[y : y + height] == tile).all()), None)


def as_tile(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    return np.array(grey_tile(pixels).convert("RGB"))


@pytest.mark.slow
@pytest.mark.parametrize("image_size", [32, (24, 48)])
def test_augmented_images_are_those_of_training(annotated: Settings, image_size: int | tuple[int, int]) -> None:
    transforms = (("HorizontalFlip", {}), ("Affine", {"rotate": (-9, 9), "border_mode": 4, "p": 1.0}))
    settings = dataclasses.replace(annotated, train_transforms=transforms, image_size=image_size, seed=3)
    _, sheet = write_sheets(settings, 40)
    table = read_label_table(build_table_source(settings))
    cache = open_cache(settings.cache_file, table, build_preprocessing(settings))
    samples = CachedRadiographs(
        cache.file, cache.rows, table.uids, table.labels, Augmentation(transforms, settings.image_shape), 3
    )
    tops = {row: find_tile(sheet, as_tile(cache.images[cache.rows[row]]), 0) for row in range(len(table))}
    found = {row: top for row, top in tops.items() if top is not None}
    assert len(found) == 8
    for row, top in found.items():
        for epoch in range(5):
            expected = as_tile(samples[epoch, row]["images"][0].numpy())
            left = GAP + (epoch + 1) * (TILE_WIDTH + GAP)
            got = sheet[top : top + expected.shape[0], left : left + expected.shape[1]]
            assert (got == expected).all(), (row, epoch)


@pytest.mark.slow
def test_raw_beside_drawn(annotated: Settings) -> None:
    """Each annotated image is there as it is, and once more with colours; the sheet is no wider than a screen."""
    sheet, augmented = write_sheets(annotated, 12)
    assert sheet.shape[1] <= 1900
    assert augmented.shape[1] <= 1900
    table = read_label_table(build_table_source(annotated))
    cache = open_cache(annotated.cache_file, table, build_preprocessing(annotated))
    uids = set(pd.read_csv(Path(annotated.dataset_folder) / "train_annotations.csv")["StudyInstanceUID"])
    num_found = 0
    for row, uid in enumerate(table.uids.tolist()):
        tile = as_tile(cache.images[cache.rows[row]])
        places = [(column, find_tile(sheet, tile, column)) for column in (0, 2, 4)]
        for column, top in places:
            if top is not None:
                assert uid in uids
                left = GAP + (column + 1) * (TILE_WIDTH + GAP)
                drawn = sheet[top : top + len(tile), left : left + TILE_WIDTH].astype(int)
                is_coloured = np.ptp(drawn, axis=2) > 40
                assert 0.002 < is_coloured.mean() < 0.3
                # What is not drawn over is the same X-ray.
                assert (drawn == tile).all(axis=2).mean() > 0.6
                num_found += 1
    assert num_found == 12


@pytest.mark.slow
def test_sheets_are_the_same_again(annotated: Settings) -> None:
    first = write_sheets(annotated, 6)
    again = write_sheets(annotated, 6)
    other = write_sheets(dataclasses.replace(annotated, seed=5), 6)
    assert all((one == two).all() for one, two in zip(first, again, strict=True))
    assert first[0].shape != other[0].shape or (first[0] != other[0]).any()


@pytest.mark.slow
def test_tiny_images_and_all_of_them(settings: Settings) -> None:
    sheet, _ = write_sheets(dataclasses.replace(settings, image_size=16, train_transforms=()), 1000)
    assert sheet.shape[1] <= 1900
    assert len(sheet) > 7 * TILE_WIDTH  # 40 images in rows of six


def test_the_heading_says_what_the_images_are(annotated: Settings) -> None:
    """It is nowhere cut off, on the narrowest sheet either."""
    table = read_label_table(build_table_source(annotated))
    whole = describe_images(table, 3, with_catheters=True, with_landmarks=True, learns_lines=False)
    assert whole == f"{AS_CACHED} {CHOSEN} {BESIDE.format(f'{CATHETERS} and {LANDMARKS}')} {NOT_LEARNT}"
    of_catheters = describe_images(table, 3, with_catheters=True, with_landmarks=False, learns_lines=True)
    assert of_catheters == f"{AS_CACHED} {CHOSEN} {BESIDE.format(CATHETERS)}"
    all_of_them = describe_images(table, len(table), with_catheters=False, with_landmarks=False, learns_lines=False)
    assert all_of_them == AS_CACHED
    width = MIN_COLUMNS * (TILE_WIDTH + GAP) - GAP
    for text in (whole, describe_sheet(is_calibrated=False)):
        assert " ".join(wrap(text, load_font(FONT_SIZE), width, MAX_TITLE_LINES)) == text


def test_unreadable_images_are_left_out(settings: Settings, tmp_path: Path) -> None:
    folder = tmp_path / "xrays"
    folder.mkdir()
    cv2.imwrite(str(folder / "good.png"), np.full((40, 40), 90, dtype=np.uint8))
    (folder / "bad.png").write_text("no image")
    table = folder_table(folder)
    assert table.label_columns == ()
    cache = cache_of(settings, table)
    files = show_images(settings, table, cache, 5)
    assert len(files) == 2
    sheet = np.array(Image.open(files[0]))
    grey = np.full((TILE_WIDTH, TILE_WIDTH, 3), 90, dtype=np.uint8)
    assert find_tile(sheet, grey, 0) is not None
    assert find_tile(sheet, np.zeros_like(grey), 1) is None
    unreadable = table.take(np.array([0]))
    cache = open_cache(settings.cache_file, unreadable, build_preprocessing(settings))
    assert show_images(settings, unreadable, cache, 5) == []


# What is warned of


def test_missing_annotations_are_a_line(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    write_sheets(dataclasses.replace(settings, annotation_table="elsewhere.csv"), 3)
    file = Path(settings.dataset_folder) / "elsewhere.csv"
    assert f"warning: annotation_table={file}: no such file, so no catheters are drawn\n" in capsys.readouterr().err


def write_annotations(settings: Settings, tmp_path: Path, *rows: tuple[str, str, str]) -> Settings:
    file = tmp_path / "annotations.csv"
    pd.DataFrame(rows, columns=["StudyInstanceUID", "label", "data"]).to_csv(file, index=False)
    return dataclasses.replace(settings, annotation_table=str(file))  # an absolute path stays what it is


def has_in_legend(sheet: npt.NDArray[np.uint8], colour: tuple[int, int, int]) -> bool:
    """Whether a stroke of the colour, 18 x 3 px, stands in the sheet's heading."""
    return bool((sheet[:70] == colour).all(axis=2).sum() >= 50)


def test_unknown_labels_are_grey_and_named(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = read_label_table(build_table_source(settings))
    uid = str(table.uids[4])
    points = "[[32, 2], [32, 30], [30, 40]]"
    changed = write_annotations(settings, tmp_path, (uid, "ETT - Abnormall", points), (uid, "ETT - Normal", points))
    sheet, _ = write_sheets(changed, 40)
    err = capsys.readouterr().err
    assert "1 row of labels that are not in label_columns, ETT - Abnormall: 'ETT - Abnormall' is not one of" in err
    assert "did you mean 'ETT - Abnormal'?" in err
    assert has_in_legend(sheet, UNKNOWN_COLOUR)
    assert has_in_legend(sheet, DEVICE_TYPE_COLOURS["ETT"])
    assert (sheet[70:] == DEVICE_TYPE_COLOURS["ETT"]).all(axis=2).any()


def test_labels_of_the_table_have_colours_of_their_own(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = read_label_table(build_table_source(settings))
    renamed = dataclasses.replace(table, labels=table.labels[:, :1], label_columns=("chest drain",))
    cache = cache_of(settings, renamed)
    changed = write_annotations(settings, tmp_path, (str(table.uids[4]), "chest drain", "[[32, 2], [32, 30]]"))
    sheet = np.array(Image.open(show_images(changed, renamed, cache, 40)[0]))
    assert "warning" not in capsys.readouterr().err
    assert (sheet == OTHER_COLOURS[0]).all(axis=2).any()
    assert not has_in_legend(sheet, UNKNOWN_COLOUR)


def test_landmarks_are_crosses_with_their_names(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On the first sheet, beside the image as it is; an image may have landmarks and no catheter."""
    table = read_label_table(build_table_source(settings))
    file = tmp_path / "landmarks.csv"
    file.write_text(f"StudyInstanceUID,name,x,y\n{table.uids[4]},carina,32,30\n")
    sheet, _ = write_sheets(dataclasses.replace(settings, landmark_table=str(file)), 40)
    cache = open_cache(settings.cache_file, table, build_preprocessing(settings))
    tile = as_tile(cache.images[cache.rows[4]])
    top = find_tile(sheet, tile, 0)  # annotated images come first
    assert top is not None
    drawn = sheet[top : top + len(tile), GAP + TILE_WIDTH + GAP :][:, :TILE_WIDTH]
    is_drawn = (drawn != tile).any(axis=2)
    assert 0.001 < is_drawn.mean() < 0.05
    assert (drawn[is_drawn] == MARK_COLOUR).all(axis=1).any()
    assert "warning" not in capsys.readouterr().err
    write_sheets(dataclasses.replace(settings, landmark_table="gone.csv"), 1)
    gone = Path(settings.dataset_folder) / "gone.csv"
    assert f"warning: landmark_table={gone}: no such file, so no landmarks are drawn\n" in capsys.readouterr().err


def test_landmarks_lie_on_their_pixels() -> None:
    """The image is shown at 300 x 300: (10, 20) of 60 x 60 is centred on (10 + .5) x 5 - .5 = 52 and 102."""
    drawn = np.array(drawn_tile(np.full((60, 60), 90, dtype=np.uint8), [], {"carina": (10.0, 20.0)}))
    rows, columns = np.nonzero((drawn == MARK_COLOUR).all(axis=2))
    is_cross = columns <= 52 + CROSS_RADIUS + 1
    assert (rows[is_cross].min() + rows[is_cross].max()) / 2 == pytest.approx(102, abs=1)
    assert columns.min() == pytest.approx(52 - CROSS_RADIUS, abs=1)
    assert columns.max() > 52 + 2 * CROSS_RADIUS  # its name


@pytest.mark.slow
def test_labels_of_one_device_type_share_its_colour(settings: Settings, tmp_path: Path) -> None:
    """As `heads` groups labels of one's own; that of another device type has another colour."""
    table = read_label_table(build_table_source(settings))
    labels = ("tube high", "tube low", "line wrong")
    renamed = dataclasses.replace(table, labels=table.labels[:, :3], label_columns=labels)
    heads = {"tube": labels[:2], "line": labels[2:]}
    rows = [(str(table.uids[k]), labels[k], "[[32, 2], [32, 30]]") for k in range(3)]
    own = dataclasses.replace(settings, label_columns=labels, heads=heads)
    cache = cache_of(own, renamed)

    def drawn(num_rows: int) -> list[bool]:
        changed = write_annotations(own, tmp_path, *rows[:num_rows])
        sheet = np.array(Image.open(show_images(changed, renamed, cache, 40)[0]))
        return [has_in_legend(sheet, colour) for colour in (*OTHER_COLOURS, UNKNOWN_COLOUR)]

    assert drawn(2) == [True, *[False] * 7]
    assert drawn(3) == [True, True, *[False] * 6]


def test_annotations_of_other_images(settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_sheets(write_annotations(settings, tmp_path, ("1.2.3", "ETT - Normal", "[[1, 2]]")), 2)
    assert "none of its ids, such as 1.2.3, is in the label table" in capsys.readouterr().err


@pytest.mark.parametrize("others", [0, 1])
def test_annotations_of_images_whose_ids_have_another_form(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str], others: int
) -> None:
    """As RANZCR's ids with the suffix of a file; one right id beside it is no reason to say nothing."""
    uids = read_label_table(build_table_source(settings)).uids.tolist()
    rows = [(uid, "ETT - Normal", "[[1, 2]]") for uid in (f"{uids[0]}.jpg", *uids[1 : 1 + others])]
    write_sheets(write_annotations(settings, tmp_path, *rows), 2)
    err = capsys.readouterr().err
    said = f"1 of its 2 ids without a row in the label table, the first is {uids[0]}.jpg"
    assert (said if others else f"none of its ids, such as {uids[0]}.jpg, is in the label table") in err
    assert f"; {uids[0]}.jpg and {uids[0]} differ only in their form, and ids are compared as text" in err


def test_annotations_of_another_size(settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Points of a larger copy of the image, and a row that stands there twice."""
    uid = str(read_label_table(build_table_source(settings)).uids[4])
    write_sheets(write_annotations(settings, tmp_path, *[(uid, "ETT - Normal", "[[640, 40], [640, 900]]")] * 2), 2)
    err = capsys.readouterr().err
    assert "4 points of 1 image more than 5% of a side beyond the edge" in err
    assert "1 row the same as an earlier one" in err


def test_broken_annotations(settings: Settings, tmp_path: Path) -> None:
    changed = write_annotations(settings, tmp_path, ("1.2.3", "ETT - Normal", "12"))
    with pytest.raises(TableError, match="line 2, column 'data': '12' is not a list of points"):
        write_sheets(changed, 2)


@pytest.mark.slow
def test_catheters_are_not_drawn_where_they_would_be_wrong(annotated: Settings) -> None:
    """No row with catheters under images whose points cannot be followed: half the height."""
    flips = write_sheets(annotated, 2)[1]
    wrong = write_sheets(dataclasses.replace(annotated, train_transforms=(("ThinPlateSpline", {}),)), 2)[1]
    assert len(flips) - len(wrong) == pytest.approx(2 * TILE_WIDTH, abs=40)
    assert (np.ptp(flips.astype(int), axis=2) > 100).any()
    assert not (np.ptp(wrong.astype(int), axis=2) > 100).any()


def test_preparing_without_contact_sheets_does_not_wait_for_them() -> None:
    code = "import sys, catheters.viz; print({'torch', 'albumentations', 'matplotlib'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "set()\n"
