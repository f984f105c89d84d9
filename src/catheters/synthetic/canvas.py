"""Drawing in atlas millimetres on float32 layers."""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from catheters.synthetic.anatomy import Patient, Points, View

Layer = NDArray[np.float32]
SUBPIXEL_BITS = 4


class Canvas:
    """Draws a patient's shapes as a view shows them, at `scale` times the image's resolution."""

    def __init__(self, patient: Patient, view: View, scale: float) -> None:
        self.patient = patient
        self.view = view
        self.scale = scale
        self.shape = (round(view.height_px * scale), round(view.width_px * scale))
        self.px_per_mm = view.px_per_mm * scale

    def blank(self) -> NDArray[np.uint8]:
        """An empty layer (H, W) to draw on; 255 is full."""
        return np.zeros(self.shape, np.uint8)

    def place(self, points: object) -> Points:
        """Atlas points (N, 2) in mm -> pixels of this canvas (N, 2)."""
        return self.from_image_pixels(self.view.to_pixels(self.patient.deform(points)))

    def from_image_pixels(self, pixels: Points) -> Points:
        """Pixels of the image (N, 2) -> pixels of this canvas (N, 2)."""
        return (pixels + 0.5) * self.scale - 0.5

    def fill(self, layer: NDArray[np.uint8], points: object, level: int = 255) -> None:
        """Fill the polygon of atlas points (N, 2)."""
        cv2.fillPoly(layer, [fixed_point(self.place(points))], level, cv2.LINE_AA, SUBPIXEL_BITS)

    def stroke(self, layer: NDArray[np.uint8], points: object, width_mm: float, level: int = 255) -> None:
        """Draw a line through atlas points (N, 2)."""
        self.stroke_pixels(layer, self.place(points), width_mm, level)

    def strokes(self, layer: NDArray[np.uint8], lines: Points, width_mm: float, level: int = 255) -> None:
        """Draw lines through atlas points (K, N, 2), all in the same way."""
        pixels = self.place(lines.reshape(-1, 2)).reshape(lines.shape)
        thickness = max(1, round(width_mm * self.px_per_mm))
        cv2.polylines(layer, list(fixed_point(pixels)), False, level, thickness, cv2.LINE_AA, SUBPIXEL_BITS)

    def stroke_pixels(self, layer: NDArray[np.uint8], pixels: Points, width_mm: float, level: int = 255) -> None:
        """Draw a line through pixels of this canvas (N, 2)."""
        thickness = max(1, round(width_mm * self.px_per_mm))
        cv2.polylines(layer, [fixed_point(pixels)], False, level, thickness, cv2.LINE_AA, SUBPIXEL_BITS)

    def soften(self, layer: NDArray[np.uint8], sigma_mm: float) -> Layer:
        """Gaussian blur of a drawn layer, scaled to [0, 1]."""
        # OpenCV blurs float32 faster than uint8, for which it insists on bit-exact fixed-point sums
        values = layer.astype(np.float32) / np.float32(255)
        return np.asarray(cv2.GaussianBlur(values, (0, 0), max(sigma_mm * self.px_per_mm, 0.3)), np.float32)

    def clouds(self, rng: np.random.Generator, size_mm: float) -> Layer:
        """Smooth noise (H, W) of mean 0 and standard deviation about 1 whose blotches measure `size_mm`."""
        cell = max(size_mm * self.px_per_mm, 1.0)
        grid = (int(self.shape[0] / cell) + 4, int(self.shape[1] / cell) + 4)
        coarse = rng.standard_normal(grid, dtype=np.float32)
        return resize(coarse, self.shape) * np.float32(1.4)


def fixed_point(pixels: Points) -> NDArray[np.int32]:
    """Pixels (N, 2) -> OpenCV's fixed-point coordinates."""
    return np.round(pixels * (1 << SUBPIXEL_BITS)).astype(np.int32)


def resize(layer: Layer, shape: Sequence[int]) -> Layer:
    """Cubic up-scaling to (H, W)."""
    return np.asarray(cv2.resize(layer, (shape[1], shape[0]), interpolation=cv2.INTER_CUBIC), np.float32)


def shrink(layer: NDArray[np.uint8], shape: Sequence[int]) -> Layer:
    """Down-scaling of a drawn layer to (H, W) in [0, 1], each pixel the mean of what it covers."""
    small = cv2.resize(layer, (shape[1], shape[0]), interpolation=cv2.INTER_AREA)
    return small.astype(np.float32) / np.float32(255)
