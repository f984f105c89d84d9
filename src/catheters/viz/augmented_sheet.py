"""The sheet of augmented images: what training makes of an image in its first epochs."""

import dataclasses

import numpy as np
from PIL import Image

# Slow to import: this module is imported by whoever augments, when it does.
from catheters.data.augmentation import Augmentation
from catheters.data.cache.cache import ImageCache
from catheters.data.samples import CachedRadiographs
from catheters.data.tables.label_table import LabelTable
from catheters.viz.layout import Cell, Heading, make_sheet
from catheters.viz.lines import DeviceTypes, Line
from catheters.viz.tiles import SheetImage, drawn_tile, grey_tile, legend_of

TO_CHECK = "Look whether each label still holds, as it does not where the tip has left the image."
NUM_EPOCHS = 5
"""Versions of each image that are shown."""
NO_TRANSFORMS = "As training draws them, which is as they are cached: train_transforms is empty."


def augmented_sheet(
    title: str,
    table: LabelTable,
    cache: ImageCache,
    shown: list[SheetImage],
    device_types: DeviceTypes,
    augmentation: Augmentation,
    seed: int,
) -> Image.Image:
    """Each image as cached, then as training draws it in each of its first epochs; below, the same with its catheters.

    Args:
        title: of the sheet.
        table: the label table.
        cache: opened with this table.
        shown: the images.
        device_types: those of their catheters.
        augmentation: that of training.
        seed: of the training.
    """
    positions = np.array([image.position for image in shown])
    samples = CachedRadiographs(
        cache.file, cache.rows[positions], table.uids[positions], table.labels[positions], augmentation, seed
    )
    cells = [_augmented_cell(image, samples, sample, augmentation) for sample, image in enumerate(shown)]
    names = ", ".join(name for name, _ in augmentation.transforms)
    subtitle = f"As training draws them with seed {seed}: {names}. {TO_CHECK}" if names else NO_TRANSFORMS
    legend = legend_of(shown, device_types)
    if legend and augmentation.unfollowed:
        names = ", ".join(augmentation.unfollowed)
        subtitle += f" Catheters are not drawn, since they cannot be carried through {names}."
        legend = {}
    return make_sheet(Heading(title, subtitle, legend), cells)


def _augmented_cell(image: SheetImage, samples: CachedRadiographs, sample: int, augmentation: Augmentation) -> Cell:
    """One image, which `samples` has at the position `sample`."""
    versions = [image.pixels, *(samples[epoch, sample]["images"][0].numpy() for epoch in range(NUM_EPOCHS))]
    tiles = [[grey_tile(pixels) for pixels in versions]]
    if image.lines and not augmentation.unfollowed:
        seeds = [samples.augmentation_seed(epoch, sample) for epoch in range(NUM_EPOCHS)]
        moved = [image.lines, *(_moved(image, augmentation, seed) for seed in seeds)]
        tiles.append([drawn_tile(pixels, lines) for pixels, lines in zip(versions, moved, strict=True)])
    # Counted from 1, as the log counts them.
    captions = ["cached", *(f"epoch {epoch + 1}" for epoch in range(NUM_EPOCHS))]
    return Cell(tiles, captions, image.text)


def _moved(image: SheetImage, augmentation: Augmentation, seed: int) -> list[Line]:
    return [
        dataclasses.replace(line, points=augmentation.with_points(image.pixels, line.points, seed)[1])
        for line in image.lines
    ]
