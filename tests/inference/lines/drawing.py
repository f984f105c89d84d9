"""Maps as a network would give them, of lines whose course is known."""

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Map = npt.NDArray[np.float32]

FACTOR = 8
"""Lines are drawn so many times larger, then averaged."""
THICKNESS = 0.02
TIP_SIGMA = 0.0125


def smooth(*control_points: tuple[float, float]) -> Floats:
    """A curve through points, by Catmull and Rom: (n, 2)."""
    points = np.array([control_points[0], *control_points, control_points[-1]], dtype=np.float64)
    t = np.linspace(0, 1, 20, endpoint=False)[:, None]
    parts = []
    for a, b, c, d in zip(points, points[1:], points[2:], points[3:], strict=False):
        parts.append(b + 0.5 * t * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * (b - c) + d - a))))
    return np.concatenate([*parts, points[-1:]])


def draw_line_map(courses: Sequence[Floats], width: int, blur: float = 0.7) -> Map:
    """(width, width) of lines in parts of the width, 2% of it thick; `blur` is a sigma in pixels."""
    size = width * FACTOR
    canvas = np.zeros((size, size), dtype=np.uint8)
    for course in courses:
        points = np.round(course * size - 0.5).astype(np.int32)
        cv2.polylines(canvas, [points], False, 255, max(1, round(THICKNESS * size)))
    small = cv2.resize(canvas, (width, width), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    return cv2.GaussianBlur(small, (0, 0), blur) if blur else small


def draw_tip_map(tips: Sequence[npt.ArrayLike], width: int, height: float = 0.9) -> Map:
    """(width, width) with a bump at each tip, in parts of the width."""
    rows, columns = np.mgrid[:width, :width]
    drawn = np.zeros((width, width))
    for tip in tips:
        x, y = in_pixels(np.asarray(tip, dtype=np.float64), width)
        drawn = np.maximum(
            drawn, height * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * (TIP_SIGMA * width) ** 2))
        )
    return drawn.astype(np.float32)


def add_noise(values: Map, rng: np.random.Generator, strength: float) -> Map:
    """Noise of every pixel and smooth noise, cut off at 0 and 1."""
    coarse = cv2.GaussianBlur(rng.normal(size=values.shape), (0, 0), 2)
    noisy = values + strength * (rng.normal(size=values.shape) + coarse / coarse.std())
    return np.clip(noisy, 0, 1).astype(np.float32)


def in_pixels(points: Floats, width: int) -> Floats:
    """Parts of the width -> pixels of the map, pixel centres whole."""
    return points * width - 0.5


def distances_to(course: Floats, points: Floats) -> Floats:
    """(n,) of points from a course, by brute force over points of the course 0.02 apart."""
    dense = densely(course)
    return np.hypot(*(points[:, None] - dense[None]).transpose(2, 0, 1)).min(axis=1)


def densely(course: Floats) -> Floats:
    along = np.append(0.0, np.cumsum(np.hypot(*np.diff(course, axis=0).T)))
    positions = np.arange(0, along[-1], 0.02)
    return np.stack([np.interp(positions, along, course[:, axis]) for axis in (0, 1)], axis=1)
