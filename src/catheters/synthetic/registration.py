"""Where the chest lies on a real radiograph: the atlas, fitted to it.

The drawn chest of an average build is moved, scaled and turned until it is most like the radiograph, both with their
local mean and contrast taken out. That is enough to put a catheter into the right vessel; it measures no patient.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from catheters.synthetic.anatomy import CENTRE_MM, IMAGE_MM, Patient, View
from catheters.synthetic.canvas import Canvas, Layer
from catheters.synthetic.chest import chest_attenuation

Steps = NDArray[np.float64]
"""Parameters as standard deviations from the average, (7,)."""

FIT_SIZE = 96
"""Longer side, in pixels, of the images that are compared."""
WINDOW_MM = 75.0
"""Width (sigma) of the window whose mean and contrast are taken out."""
NUM_TEMPLATES = 8
TEMPLATE_MARGIN = 1.5
"""How much more of the atlas the template shows than an image of zoom 1."""
PARAMETERS = ("zoom", "width", "upper_height", "lower_height", "rotation_rad", "shift_x_mm", "shift_y_mm")
AVERAGE = np.array([1.0, 1.0, 1.0, 0.95, 0.0, 0.0, 0.0])
SPREAD = np.array([0.16, 0.06, 0.06, 0.09, 0.05, 25.0, 35.0])
"""How far radiographs and builds are apart from the average, as standard deviations; also the steps of the search."""
PRIOR_WEIGHT = 0.004
"""What one squared standard deviation costs, in correlation."""
STARTS = tuple((zoom, 0, 0, 0, 0, 0, shift) for zoom, shift in ((0, 0), (0, 1), (0, -1), (1, 0), (-1, 0), (1, 1)))
"""Where the search begins, in standard deviations from the average: several zooms and vertical shifts."""
FIRST_TRIALS, LAST_TRIALS = 150, 600
"""Parameters tried from each start, and then from the best of what they found."""


@dataclass(frozen=True)
class AtlasFit:
    """The atlas on one radiograph."""

    patient: Patient
    view: View
    correlation: float
    """Of the radiograph with the fitted chest, -1 to 1, both with their local mean and contrast taken out."""


def fit_atlas(image: NDArray[np.uint8]) -> AtlasFit:
    """Fit the atlas to a frontal chest radiograph (H, W), uint8, bone white."""
    height, width = image.shape
    scale = FIT_SIZE / max(height, width)
    shape = (max(round(height * scale), 8), max(round(width * scale), 8))
    small = np.asarray(cv2.resize(image, shape[::-1], interpolation=cv2.INTER_AREA), np.float32)
    is_exposed = exposed(small)
    wanted = standardised(small, is_exposed, WINDOW_MM * FIT_SIZE / IMAGE_MM)

    def cost(steps: Steps) -> float:
        return PRIOR_WEIGHT * float(steps @ steps) - correlation(wanted, is_exposed, AVERAGE + steps * SPREAD)

    first = [search(cost, np.array(start), FIRST_TRIALS) for start in STARTS]
    _, best = min(first, key=lambda found: found[0])
    _, best = search(cost, best, LAST_TRIALS)
    values = AVERAGE + best * SPREAD
    named = dict(zip(PARAMETERS, (float(value) for value in values), strict=True))
    patient = Patient(
        width=named["width"],
        upper_height=named["upper_height"],
        lower_height=named["lower_height"],
        bend_mm=0.0,
        heart_size=1.0,
        tissue=1.0,
        texture_seed=0,
    )
    view = View(
        height_px=height,
        width_px=width,
        zoom=named["zoom"],
        rotation_rad=named["rotation_rad"],
        shift_mm=(named["shift_x_mm"], named["shift_y_mm"]),
    )
    return AtlasFit(patient, view, correlation(wanted, is_exposed, values))


def search(cost: Callable[[Steps], float], start: Steps, num_trials: int) -> tuple[float, Steps]:
    """The lowest cost that a simplex search finds from one start, and where."""
    simplex = np.concatenate([start[None], start + 0.6 * np.eye(len(start))])
    found = minimize(cost, start, method="Nelder-Mead", options={"initial_simplex": simplex, "maxfev": num_trials})
    return float(found.fun), np.asarray(found.x, np.float64)


def exposed(image: NDArray[np.generic]) -> NDArray[np.bool_]:
    """Which pixels (H, W) the beam has reached: all but the black that touches the image's border."""
    dark = (image <= image.min() + 0.04 * np.ptp(image)).astype(np.uint8)
    _, regions = cv2.connectedComponents(dark, connectivity=4)
    border = np.concatenate([regions[0], regions[-1], regions[:, 0], regions[:, -1]])
    return ~np.isin(regions, np.setdiff1d(border, [0]))


def standardised(image: Layer, weight: NDArray[np.bool_] | Layer, sigma: float) -> Layer:
    """An image (H, W) with local mean and contrast taken out, clipped to 2 standard deviations; 0 without weight."""
    weight = weight.astype(np.float32)
    inside = np.maximum(cv2.GaussianBlur(weight, (0, 0), sigma), 1e-3)
    mean = cv2.GaussianBlur(image * weight, (0, 0), sigma) / inside
    deviation = (image - mean) * weight
    contrast = np.sqrt(cv2.GaussianBlur(deviation**2, (0, 0), sigma) / inside)
    floor = 0.1 * float(contrast.max()) + 1e-6
    return np.asarray(np.clip(deviation / np.maximum(contrast, floor), -2, 2), np.float32)


@cache
def template() -> tuple[Layer, View]:
    """The average drawn chest (S, S), standardised, and the view that it was drawn with."""
    size = round(FIT_SIZE * TEMPLATE_MARGIN)
    view = View(height_px=size, width_px=size, zoom=1 / TEMPLATE_MARGIN, rotation_rad=0.0, shift_mm=(0.0, 0.0))
    chests = []
    for seed in range(NUM_TEMPLATES):
        patient = Patient(
            width=1.0, upper_height=1.0, lower_height=1.0, bend_mm=0.0, heart_size=1.0, tissue=1.0, texture_seed=seed
        )
        large = View(height_px=4 * size, width_px=4 * size, zoom=view.zoom, rotation_rad=0.0, shift_mm=(0.0, 0.0))
        chest = chest_attenuation(Canvas(patient, large, 1.0))
        chests.append(cv2.resize(chest, (size, size), interpolation=cv2.INTER_AREA))
    mean = np.mean(chests, axis=0).astype(np.float32)
    return standardised(mean, np.ones_like(mean), WINDOW_MM * view.px_per_mm), view


def correlation(wanted: Layer, is_exposed: NDArray[np.bool_], values: NDArray[np.float64]) -> float:
    """Of a standardised radiograph (H, W) with the template as the parameters show it, over the exposed pixels."""
    chest, view = template()
    atlas = atlas_points(wanted.shape, values)
    x, y = view.to_pixels(atlas.reshape(-1, 2)).T.reshape(2, *wanted.shape).astype(np.float32)
    moved = np.asarray(cv2.remap(chest, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT), np.float32)
    a, b = wanted[is_exposed], moved[is_exposed]
    a, b = a - a.mean(), b - b.mean()
    return float(a @ b / (np.sqrt(float(a @ a) * float(b @ b)) + 1e-9))


def atlas_points(shape: tuple[int, ...], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The point of the atlas (H, W, 2), in mm, that each pixel shows: `View.to_pixels` after `deform`, turned back."""
    height, width = shape
    zoom, wide, upper, lower, rotation, *shift = values
    y, x = np.mgrid[:height, :width].astype(np.float64)
    pixels = np.stack([x, y], axis=-1) - np.array([width, height]) / 2 + 0.5
    cos, sin = np.cos(rotation), np.sin(rotation)
    turned = pixels / (zoom * max(height, width) / IMAGE_MM) @ np.array([[cos, -sin], [sin, cos]])
    points = turned + np.asarray(CENTRE_MM) + np.asarray(shift)
    return np.stack([points[..., 0] / wide, points[..., 1] / np.where(points[..., 1] < 0, upper, lower)], axis=-1)
