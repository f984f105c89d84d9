"""The two sheets beside a cache: its images with their catheters, and what augmentation makes of some of them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from catheters.data.annotations import Annotation, check_annotations, read_annotations
from catheters.data.cache.cache import ImageCache
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
WITH_CATHETERS = (
    "Beside them the annotated catheters, a ring at the tip; a model learns them only with the setting `lines`."
)
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
    uid_column: str,
    device_types: Mapping[str, tuple[str, ...]],
    transforms: tuple[tuple[str, dict[str, Any]], ...],
    choice_seed: int,
    augmentation_seed: int,
) -> list[Path]:
    """Show cached images as the model gets them, beside the cache: `<cache>_images.png` and `<cache>_augmented.png`.

    The first has `num_images` readable images with their labels and quality flags. Where the annotation table has
    catheters of an image, it is shown again with these drawn. The second has up to eight of them as training draws them
    in its first five epochs. `choice_seed` alone decides which images are shown: every label where there is room,
    annotated images first. An annotation table that is not there, or does not fit the label table, is warned of.

    Args:
        table: N images.
        cache: opened with this table.
        num_images: images to show; more than there are means all.
        name: of the data set, for the titles.
        preprocessing: that of the cache.
        annotation_table: has the catheters; None: there is none.
        uid_column: its id column.
        device_types: name -> its labels, whose catheters share a colour.
        transforms: of the augmentation.
        choice_seed: decides which images are shown.
        augmentation_seed: the seed of the training whose augmentation is shown.

    Returns:
        The files written; none where no image is readable.

    Raises:
        TableError: the annotation table is wrong.
        SettingsError: `train_transforms` are.
    """
    annotations = _read_annotations(annotation_table, uid_column, table, cache)
    readable = np.flatnonzero([entry.reason is None for entry in cache.entries])
    is_annotated = np.array([uid in annotations for uid in table.uids[readable].tolist()], dtype=np.bool_)
    chosen = readable[choose_images(table.labels[readable], is_annotated, num_images, choice_seed)]
    if not len(chosen):
        return []
    labels = (annotation.label for of_image in annotations.values() for annotation in of_image)
    types = DeviceTypes.of(device_types, table.label_columns, labels)
    shown = [
        prepare_image(table, cache, position, annotations.get(str(table.uids[position]), []), preprocessing, types)
        for position in chosen.tolist()
    ]
    # Slow to import, and nothing else in preparing a data set needs what it does.
    from catheters.data.augmentation import Augmentation
    from catheters.viz.augmented_sheet import augmented_sheet

    height, width = preprocessing.image_shape
    title, size = f"{name}: {{}} of {counted(len(table), 'image')}", f"{width} x {height} px"
    augmented = shown[:NUM_AUGMENTED]
    return [
        _save(_image_sheet(f"{title.format(len(shown))}, {size}", table, shown, types), cache.file.path, "images"),
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


def _image_sheet(title: str, table: LabelTable, shown: list[SheetImage], device_types: DeviceTypes) -> Image.Image:
    cells = []
    for image in shown:
        tiles = [grey_tile(image.pixels)]
        if image.lines:
            tiles.append(drawn_tile(image.pixels, image.lines))
        cells.append(Cell([tiles], [], image.text))
    legend = legend_of(shown, device_types)
    return make_sheet(Heading(title, describe_images(table, len(shown), are_drawn=bool(legend)), legend), cells)


def describe_images(table: LabelTable, num_shown: int, *, are_drawn: bool) -> str:
    """What the sheet of images shows, and what may not be concluded from it; `are_drawn`: some have their catheters."""
    are_chosen = bool(table.label_columns) and num_shown < len(table)
    return " ".join([AS_CACHED, *([CHOSEN] if are_chosen else []), *([WITH_CATHETERS] if are_drawn else [])])


def _save(sheet: Image.Image, cache_file: Path, name: str) -> Path:
    file = cache_file.with_name(f"{cache_file.stem}_{name}.png")
    write_whole(file, lambda part: sheet.save(part, format="PNG"))
    return file
