"""What resizing leaves of thin lines: their contrast and the gradients beside full decoding and INTER_AREA.

    python benchmarks/resizing.py                        # synthetic radiographs of RANZCR's usual sizes
    python benchmarks/resizing.py FILE [FILE ...]        # radiographs of one's own, at sizes that halve them at least

Antialiased lines of 2 to 6 px at all angles are drawn on an image of smooth shapes and grain, which becomes a JPEG of
quality 90. Contrast is what the lines add to the preprocessed image along their middle: with them less without them.
The gradient is the variance of the differences of horizontal neighbours. Both are ratios to the reference, full
decoding and OpenCV's INTER_AREA; a round of contrast is one width in one image, of the others one image. Besides
what the cache does ("area", "quick"), ways are measured that it could do.
"""

import argparse
import functools
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import cv2
import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image
from rows import Row, compare_seconds, compare_sizes, create_parser, finish

from catheters.data.decoding.radiograph import read_radiograph
from catheters.data.preprocessing import Preprocessing, Resampling, preprocess

SIZES = ((2048, 2500), (2500, 2048), (2544, 3056))
"""(height, width) that RANZCR CLiP has most, and the first one upright."""
TARGETS = (256, 512, 640, 1024)
WIDTHS = (2, 3, 4, 5, 6)
LINES_PER_ROW, ROWS_OF_LINES = 6, 5
LINE_GREYS = 40
GRAIN = 3.0
JPEG_QUALITY = 90
KEPT = 0.98
"""Share of the reference's contrast and gradient that has to be kept."""
REFERENCE = "full decoding, INTER_AREA"

Floats = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]
Way = Callable[[bytes, int], Pixels]
"""From a JPEG and the size of a square to its pixels."""


@dataclass(frozen=True)
class Line:
    """A line of `width` px through (x, y), `reach` px long to either side, `angle` radians from the horizontal."""

    x: float
    y: float
    angle: float
    width: int
    reach: float

    def points(self) -> tuple[Floats, Floats]:
        """x and y of 200 points on its middle, away from the ends."""
        along = np.linspace(-0.8 * self.reach, 0.8 * self.reach, 200, dtype=np.float32)
        return self.x + along * np.float32(np.cos(self.angle)), self.y + along * np.float32(np.sin(self.angle))


@dataclass(frozen=True)
class Drawn:
    """An image as JPEG, with and without `lines`; (height, width) is its shape."""

    with_lines: bytes
    without: bytes
    lines: tuple[Line, ...]
    shape: tuple[int, int]


def main() -> int:
    """Measure and print."""
    parser = create_parser(__doc__)
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE", help="radiographs to draw the lines on")
    parser.add_argument("--targets", type=int, nargs="+", default=list(TARGETS), metavar="PX")
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS), metavar="WAY", help="these alone")
    parser.add_argument("--repeats", type=int, default=3, help="times that each way is timed; the best counts")
    options = parser.parse_args()
    if options.files:
        backgrounds = [read_radiograph(file).image.astype(np.float32) for file in options.files]
    else:
        backgrounds = [synthetic_radiograph(shape, np.random.default_rng(0)) for shape in SIZES]
    drawn = [draw_lines(background, np.random.default_rng(1)) for background in backgrounds]
    rows = [row for target in options.targets for row in rows_of_target(drawn, target, options)]
    return finish(rows, options)


def rows_of_target(drawn: Sequence[Drawn], target: int, options: argparse.Namespace) -> list[Row]:
    """Contrast, gradient and time of each way beside the reference, where the images are large enough."""
    large = [image for image in drawn if min(image.shape) >= 2 * target]
    if not large:
        return []
    expected = [Measured.of(area_of_fraction, image, target, options.repeats) for image in large]
    rows = []
    for name in options.ways:
        found = [Measured.of(WAYS[name], image, target, options.repeats) for image in large]
        what = f"{target} px, {name}"
        contrasts = [[value for measured in side for value in measured.contrasts] for side in (found, expected)]
        gradients = [[measured.gradient for measured in side] for side in (found, expected)]
        seconds = [[measured.seconds for measured in side] for side in (found, expected)]
        bound = KEPT if name == "area" else None
        rows += [
            _compare_kept(f"contrast, {what}", contrasts, "greys", bound),
            _compare_kept(f"gradient, {what}", gradients, "greys^2", bound),
            compare_seconds("resizing", f"time, {what}", seconds[0], REFERENCE, seconds[1]),
        ]
    return rows


def _compare_kept(what: str, values: Sequence[Sequence[float]], unit: str, bound: float | None) -> Row:
    """What a way leaves, the first of `values`, beside what the reference does, the second."""
    return compare_sizes("resizing", what, values[0], REFERENCE, values[1], unit=unit, at_least=bound)


@dataclass(frozen=True)
class Measured:
    """What a way leaves of an image.

    Attributes:
        contrasts: of the lines of each of `WIDTHS`, in greys.
        gradient: variance of the differences of horizontal neighbours, in greys squared.
        seconds: that it takes.
    """

    contrasts: tuple[float, ...]
    gradient: float
    seconds: float

    @classmethod
    def of(cls, way: Way, drawn: Drawn, target: int, repeats: int) -> "Measured":
        """Measure a way."""
        seconds = []
        for _ in range(repeats):
            started = time.perf_counter()
            pixels = way(drawn.with_lines, target)
            seconds.append(time.perf_counter() - started)
        added = pixels.astype(np.float32) - way(drawn.without, target)
        scale_y, scale_x = target / drawn.shape[0], target / drawn.shape[1]
        of_width: dict[int, list[float]] = {width: [] for width in WIDTHS}
        for line in drawn.lines:
            x, y = line.points()
            at = ((x + 0.5) * scale_x - 0.5)[None], ((y + 0.5) * scale_y - 0.5)[None]
            of_width[line.width].append(float(cv2.remap(added, *at, cv2.INTER_LINEAR).mean()))
        contrasts = tuple(float(np.mean(values)) for values in of_width.values())
        return cls(contrasts, float(np.diff(pixels.astype(np.float64), axis=1).var()), min(seconds))


def synthetic_radiograph(shape: tuple[int, int], rng: np.random.Generator) -> Floats:
    """Smooth shapes, finer structure and grain, (height, width) in greys."""
    height, width = shape
    whole = (width, height)
    shapes = cv2.resize(rng.normal(0, 25, (12, 10)).astype(np.float32), whole, interpolation=cv2.INTER_CUBIC)
    coarse = rng.normal(0, 4, (height // 8, width // 8)).astype(np.float32)
    structure = cv2.resize(coarse, whole, interpolation=cv2.INTER_CUBIC)
    grain = cv2.GaussianBlur(rng.normal(0, 1, shape).astype(np.float32), (0, 0), 0.8)
    return cast(Floats, 110 + shapes + structure + GRAIN / grain.std() * grain)


def draw_lines(background: Floats, rng: np.random.Generator) -> Drawn:
    """Lines of all `WIDTHS` at angles all around, one per cell of a grid; the background's (h, w) in greys."""
    height, width = background.shape
    cell_height, cell_width = height / ROWS_OF_LINES, width / LINES_PER_ROW
    cover = np.zeros_like(background)
    lines = []
    for number in range(ROWS_OF_LINES * LINES_PER_ROW):
        row, column = divmod(number, LINES_PER_ROW)
        line = Line(
            x=(column + 0.5 + rng.uniform(-0.05, 0.05)) * cell_width,
            y=(row + 0.5 + rng.uniform(-0.05, 0.05)) * cell_height,
            angle=np.pi * number / (ROWS_OF_LINES * LINES_PER_ROW) + rng.uniform(0, 0.1),
            width=WIDTHS[number % len(WIDTHS)],
            reach=0.4 * min(cell_height, cell_width),
        )
        _cover(cover, line)
        lines.append(line)
    return Drawn(_jpeg(background + LINE_GREYS * cover), _jpeg(background), tuple(lines), (height, width))


def _cover(cover: Floats, line: Line) -> None:
    """How much of each pixel near a line it covers, by the distance of the pixel's centre."""
    reach = int(line.reach) + 10
    top, left = max(int(line.y) - reach, 0), max(int(line.x) - reach, 0)
    patch = cover[top : int(line.y) + reach, left : int(line.x) + reach]
    rows, columns = np.mgrid[top : top + patch.shape[0], left : left + patch.shape[1]]
    cosine, sine = np.cos(line.angle), np.sin(line.angle)
    along = np.abs((columns - line.x) * cosine + (rows - line.y) * sine)
    across = np.abs((rows - line.y) * cosine - (columns - line.x) * sine)
    inside = np.clip(line.width / 2 + 0.5 - across, 0, 1) * np.clip(line.reach + 0.5 - along, 0, 1)
    np.maximum(patch, inside, out=patch)


def _jpeg(image: Floats) -> bytes:
    greys = np.clip(image, 0, 255).round().astype(np.uint8)
    return cv2.imencode(".jpg", greys, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes()


def as_the_cache(data: bytes, target: int, resampling: Resampling) -> Pixels:
    """What preproc_npy.py and predict.py do."""
    return preprocess(data, Preprocessing(image_shape=(target, target), resampling=resampling)).pixels


def decode_fraction(data: bytes, target: int, margin: float) -> Pixels:
    """By libjpeg to the smallest of 1/8, 1/4, 1/2 that is at least `margin` times the target; else in full."""
    height, width, *_ = simplejpeg.decode_jpeg_header(data)
    factor = next((factor for factor in (8, 4, 2) if min(height, width) // factor >= margin * target), 1)
    image = simplejpeg.decode_jpeg(data, "GRAY", min_height=-(-height // factor), min_width=-(-width // factor))
    return cast(Pixels, image[..., 0])


def area_of_fraction(data: bytes, target: int, margin: float = np.inf) -> Pixels:
    """INTER_AREA after decoding to a fraction; the reference with a `margin` that none has."""
    image = decode_fraction(data, target, margin)
    return cast(Pixels, cv2.resize(image, (target, target), interpolation=cv2.INTER_AREA))


def filtered(data: bytes, target: int, margin: float, kernel: Image.Resampling) -> Pixels:
    """Pillow's filters, whose kernels grow with the image, so that nothing is aliased."""
    return np.asarray(Image.fromarray(decode_fraction(data, target, margin)).resize((target, target), kernel))


WAYS: dict[str, Way] = {
    "area": functools.partial(as_the_cache, resampling="area"),
    "quick": functools.partial(as_the_cache, resampling="quick"),
    "fraction of 2 x, area": functools.partial(area_of_fraction, margin=2),
    "fraction of 4 x, area": functools.partial(area_of_fraction, margin=4),
    "full, Hamming": functools.partial(filtered, margin=np.inf, kernel=Image.Resampling.HAMMING),
    "full, bicubic": functools.partial(filtered, margin=np.inf, kernel=Image.Resampling.BICUBIC),
    "full, Lanczos": functools.partial(filtered, margin=np.inf, kernel=Image.Resampling.LANCZOS),
    "fraction of 2 x, Lanczos": functools.partial(filtered, margin=2, kernel=Image.Resampling.LANCZOS),
}
"""How it is called -> what it does; "area" and "quick" are the settings' own."""


if __name__ == "__main__":
    sys.exit(main())
