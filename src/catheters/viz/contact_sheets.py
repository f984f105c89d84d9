"""The two sheets beside a cache: its images with their catheters, and what augmentation makes of some of them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from catheters.data.annotations import Annotation, check_annotations, read_annotations
from catheters.data.cache.cache import ImageCache
from catheters.data.landmarks import Landmarks, check_landmarks, read_landmarks
from catheters.data.preprocessing import Preprocessing
from catheters.data.tables.label_table import LabelTable
from catheters.errors import counted
from catheters.io.files import write_whole
from catheters.runtime.console import warn
from catheters.viz.image_selection import choose_images
from catheters.viz.layout import Cell, Heading, make_sheet
from catheters.viz.lines import DEVICE_TYPE_OF_LABEL, DeviceTypes
from catheters.viz.tiles import SheetImage, drawn_tile, grey_tile, legend_of, prepare_image

AS_CACHED = (
    "What the model gets, as the cache holds it. Look whether thin lines and their tips can be seen at this size."
)
CHOSEN = "The images are chosen to show every label, so their shares are not those of the data set."
BESIDE = "Beside them {}."
CATHETERS, LANDMARKS = "the annotated catheters, a ring at the tip", "the landmarks, a cross each"
NOT_LEARNT = "A model learns what is drawn only with the setting `lines`."
NUM_AUGMENTED = 8
"""Images of the second sheet, at most."""


def write_contact_sheets(
    table: LabelTable,
    cache: ImageCache,
    num_images: int,
    *,
    name: str,
    preprocessing: Preprocessing,
    annotation_table: Path | None,
    landmark_table: Path | None,
    learns_lines: bool,
    uid_column: str,
    device_types: Mapping[str, tuple[str, ...]],
    transforms: tuple[tuple[str, dict[str, Any]], ...],
    choice_seed: int,
    augmentation_seed: int,
) -> list[Path]:
    """Show cached images as the model gets them, beside the cache: `<cache>_images.png` and `<cache>_augmented.png`.

    The first has `num_images` readable images with their labels and quality flags. Where the annotation table has
    catheters of an image, or the landmark table landmarks, it is shown again with these drawn. The second has up to
    eight of them as training draws them in its first five epochs. `choice_seed` alone decides which images are shown:
    every label where there is room, annotated images first. A table of catheters or landmarks that is not there, or
    does not fit the label table, is warned of.

    Args:
        table: N images.
        cache: opened with this table.
        num_images: images to show; more than there are means all.
        name: of the data set, for the titles.
        preprocessing: that of the cache.
        annotation_table: has the catheters; None: there is none.
        landmark_table: has the landmarks; None: there is none.
        learns_lines: whether a model learns from them, by the settings.
        uid_column: the id column of both.
        device_types: name -> its labels, whose catheters share a colour.
        transforms: of the augmentation.
        choice_seed: decides which images are shown.
        augmentation_seed: the seed of the training whose augmentation is shown.

    Returns:
        The files written; none where no image is readable.

    Raises:
        TableError: the annotation table or the landmark table is wrong.
        SettingsError: `train_transforms` are.
    """
    annotations = _read_annotations(annotation_table, uid_column, table, cache)
    landmarks = _read_landmarks(landmark_table, uid_column, table, cache)
    readable = np.flatnonzero([entry.reason is None for entry in cache.entries])
    is_annotated = np.array(
        [uid in annotations or uid in landmarks for uid in table.uids[readable].tolist()], dtype=np.bool_
    )
    chosen = readable[choose_images(table.labels[readable] == 1, is_annotated, num_images, choice_seed)]
    if not len(chosen):
        return []
    labels = (annotation.label for of_image in annotations.values() for annotation in of_image)
    types = DeviceTypes.of(device_types, table.label_columns, labels)
    shown = []
    for position in chosen.tolist():
        uid = str(table.uids[position])
        drawn = annotations.get(uid, []), preprocessing, types, landmarks.get(uid, {})
        shown.append(prepare_image(table, cache, position, *drawn))
    # Slow to import, and nothing else in preparing a data set needs what it does.
    from catheters.data.augmentation import Augmentation
    from catheters.viz.augmented_sheet import augmented_sheet

    height, width = preprocessing.image_shape
    title, size = f"{name}: {{}} of {counted(len(table), 'image')}", f"{width} x {height} px"
    augmented = shown[:NUM_AUGMENTED]
    return [
        _save(
            _image_sheet(f"{title.format(len(shown))}, {size}", table, shown, types, learns_lines=learns_lines),
            cache.file.path,
            "images",
        ),
        _save(
            augmented_sheet(
                f"{title.format(len(augmented))}, {size}, augmented",
                table,
                cache,
                augmented,
                types,
                Augmentation(transforms, preprocessing.image_shape),
                augmentation_seed,
            ),
            cache.file.path,
            "augmented",
        ),
    ]


def _read_annotations(
    file: Path | None, uid_column: str, table: LabelTable, cache: ImageCache
) -> dict[str, list[Annotation]]:
    if file is None:
        return {}
    if not file.exists():
        warn(f"annotation_table={file}: no such file, so no catheters are drawn")
        return {}
    annotations = read_annotations(file, uid_column)
    shapes = {entry.uid: entry.full_shape for entry in cache.entries}
    # RANZCR's labels have their colours whether they are predicted or not.
    labels = (*table.label_columns, *sorted(DEVICE_TYPE_OF_LABEL.keys() - set(table.label_columns)))
    for text in check_annotations(annotations, labels, {}, table.uids.tolist(), shapes, f"annotation_table={file}"):
        warn(text)
    return annotations


def _read_landmarks(file: Path | None, uid_column: str, table: LabelTable, cache: ImageCache) -> Landmarks:
    if file is None:
        return {}
    if not file.exists():
        warn(f"landmark_table={file}: no such file, so no landmarks are drawn")
        return {}
    landmarks = read_landmarks(file, uid_column)
    shapes = {entry.uid: entry.full_shape for entry in cache.entries}
    for text in check_landmarks(landmarks, (), table.uids.tolist(), shapes, f"landmark_table={file}"):
        warn(text)
    return landmarks


def _image_sheet(
    title: str, table: LabelTable, shown: list[SheetImage], device_types: DeviceTypes, *, learns_lines: bool
) -> Image.Image:
    cells = []
    for image in shown:
        tiles = [grey_tile(image.pixels)]
        if image.is_marked:
            tiles.append(drawn_tile(image.pixels, image.lines, image.landmarks))
        cells.append(Cell([tiles], [], image.text))
    subtitle = describe_images(
        table,
        len(shown),
        with_catheters=any(image.lines for image in shown),
        with_landmarks=any(image.landmarks for image in shown),
        learns_lines=learns_lines,
    )
    return make_sheet(Heading(title, subtitle, legend_of(shown, device_types)), cells)


def describe_images(
    table: LabelTable, num_shown: int, *, with_catheters: bool, with_landmarks: bool, learns_lines: bool
) -> str:
    """What the sheet of images shows, and what may not be concluded from it.

    Args:
        table: the label table.
        num_shown: how many of its images are shown.
        with_catheters: whether some have their catheters drawn.
        with_landmarks: likewise.
        learns_lines: whether a model learns from what is drawn.
    """
    parts = [AS_CACHED]
    if table.label_columns and num_shown < len(table):
        parts.append(CHOSEN)
    drawn = [what for what, is_drawn in ((CATHETERS, with_catheters), (LANDMARKS, with_landmarks)) if is_drawn]
    if drawn:
        parts += [BESIDE.format(" and ".join(drawn)), *([] if learns_lines else [NOT_LEARNT])]
    return " ".join(parts)


def _save(sheet: Image.Image, cache_file: Path, name: str) -> Path:
    file = cache_file.with_name(f"{cache_file.stem}_{name}.png")
    write_whole(file, lambda part: sheet.save(part, format="PNG"))
    return file
