"""How often ordinary radiographs are called inverted, and inverted ones are not: variants of real radiographs.

    python benchmarks/polarity.py FOLDER_OF_FRONTAL_CHEST_RADIOGRAPHS

Each radiograph is shifted, turned, zoomed, cropped, stretched, flipped, gets arms beside the chest, other contrast, a
black frame or letters, as ordinary images are. A variant that is called inverted is a false alarm; the inverse of a
variant that is not called so is a miss. The files are taken for upright.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import cast

import cv2
import numpy as np
import numpy.typing as npt

from catheters.data.decoding.polarity import looks_inverted
from catheters.data.decoding.radiograph import read_radiograph
from catheters.data.tables.image_folder import folder_table
from catheters.runtime.host import available_cores
from catheters.runtime.workers import map_guarded

Pixels = npt.NDArray[np.uint8]

MAX_SIDE = 512
"""Radiographs are shrunk to it first; the polarity is judged by far fewer pixels."""


def variants(image: Pixels) -> Iterator[tuple[str, Pixels]]:
    """(kind, image) of what is done to a radiograph; what comes into view from outside is black air."""
    yield "as it is", image
    for across, down in [(-0.3, 0), (-0.2, 0), (-0.1, 0), (0.1, 0), (0.2, 0), (0.3, 0), (0, -0.2), (0, -0.1), (0, 0.1)]:
        yield "shifted", moved(image, across=across, down=down)
    for across, down in [(0, 0.2), (-0.2, -0.1), (0.2, -0.1), (-0.2, 0.1), (0.2, 0.1)]:
        yield "shifted", moved(image, across=across, down=down)
    for across in (-0.2, 0.2):
        yield "shifted, edge repeated", moved(image, across=across, border=cv2.BORDER_REPLICATE)
    for degrees in (-20, -15, -10, -5, 5, 10, 15, 20):
        yield "turned", moved(image, degrees=degrees)
    for zoom in (0.6, 0.7, 0.8, 1.2, 1.35, 1.5):
        yield "zoomed", moved(image, zoom=zoom)
    for across in (-0.15, 0.15):
        yield "zoomed and shifted", moved(image, zoom=0.7, across=across)
    height, width = image.shape
    for share in (0.1, 0.2):
        rows, columns = int(share * height), int(share * width)
        yield "cropped", image[rows:]
        yield "cropped", image[:-rows]
        yield "cropped", image[:, columns:]
        yield "cropped", image[:, :-columns]
    for side in ("left", "right", "both"):
        for thickness in (0.12, 0.2):
            yield "arms", with_arms(image, side, thickness)
    yield "stretched", cv2_resize(image, (height, round(1.4 * width)))
    yield "stretched", cv2_resize(image, (round(1.4 * height), width))
    yield "flipped", image[:, ::-1]
    for gamma in (0.5, 2.0):
        yield "contrast", (255 * (image / 255) ** gamma).round().astype(np.uint8)
    for low, high in ((40, 180), (0, 150), (100, 255)):
        yield "contrast", np.clip((image.astype(np.float32) - low) * 255 / (high - low), 0, 255).astype(np.uint8)
    framed = np.zeros_like(image)
    rows, columns = int(0.12 * height), int(0.12 * width)
    framed[rows:-rows, columns:-columns] = image[rows:-rows, columns:-columns]
    yield "framed", framed
    lettered = image.copy()
    cv2.putText(lettered, "L  AP ERECT", (width // 20, height // 8), cv2.FONT_HERSHEY_DUPLEX, width / 350, 255, 3)
    yield "letters", lettered


def moved(
    image: Pixels,
    *,
    across: float = 0,
    down: float = 0,
    degrees: float = 0,
    zoom: float = 1,
    border: int = cv2.BORDER_CONSTANT,
) -> Pixels:
    """Turned and zoomed about the middle, then shifted by shares of the width and height."""
    height, width = image.shape
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, zoom)
    matrix[:, 2] += across * width, down * height
    flags = cv2.INTER_AREA if zoom < 1 else cv2.INTER_LINEAR
    return cast(Pixels, cv2.warpAffine(image, matrix, (width, height), flags=flags, borderMode=border))


def with_arms(image: Pixels, side: str, thickness: float) -> Pixels:
    """The image made wider, with an upper arm, soft tissue around a bone, on the black beside the chest."""
    height, width = image.shape
    margin = round(1.3 * thickness * width)
    left, right = (margin if side in (name, "both") else 0 for name in ("left", "right"))
    wide = cv2.copyMakeBorder(image, 0, 0, left, right, cv2.BORDER_CONSTANT, value=0)
    tissue, bone = np.percentile(image, (70, 97)).tolist()
    for centre in ([margin / 2] if left else []) + ([wide.shape[1] - margin / 2] if right else []):
        for greys, share in ((tissue, 0.5), (bone, 0.14)):
            half = share * thickness * width
            outline = np.array([[centre - half, 0.1 * height], [centre + half, 0.1 * height]], dtype=np.float64)
            low = np.array([[centre + 0.8 * half, height], [centre - 0.8 * half, height]])
            cv2.fillPoly(wide, [np.vstack([outline, low]).round().astype(np.int32)], greys)
    return cast(Pixels, cv2.GaussianBlur(wide, (0, 0), 1.5))


def cv2_resize(image: Pixels, shape: tuple[int, int]) -> Pixels:
    """(h, w) to `shape`, bilinearly."""
    return cast(Pixels, cv2.resize(image, shape[::-1], interpolation=cv2.INTER_LINEAR))


def judge(paths: tuple[Path, ...], row: int) -> list[tuple[str, bool, bool]]:
    """(kind, whether it is called inverted, whether its inverse is) of all variants of a file."""
    image = read_radiograph(paths[row]).image
    scale = min(1.0, MAX_SIDE / max(image.shape))
    image = cast(Pixels, cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA))
    return [(kind, looks_inverted(made), looks_inverted(255 - made)) for kind, made in variants(image)]


def main() -> int:
    """Count and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    paths = folder_table(parser.parse_args().folder).paths
    made: Counter[str] = Counter()
    false_alarms: Counter[str] = Counter()
    misses: Counter[str] = Counter()
    for _, judged in map_guarded(partial(judge, paths), range(len(paths)), available_cores()):
        assert isinstance(judged, list), judged
        for kind, is_predicted_positive, inverse_is_called in judged:
            made[kind] += 1
            false_alarms[kind] += is_predicted_positive
            misses[kind] += not inverse_is_called
    print(f"{'':<24}{'variants':>10}{'false alarms':>14}{'misses':>8}")
    for kind, count in made.items():
        print(f"{kind:<24}{count:>10}{false_alarms[kind]:>14}{misses[kind]:>8}")
    print(f"{'all':<24}{made.total():>10}{false_alarms.total():>14}{misses.total():>8}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
