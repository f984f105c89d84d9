"""From the plan of an image to its pixels."""

import cv2
import numpy as np
from numpy.typing import NDArray

from catheters.polylines import lengths_along
from catheters.synthetic.anatomy import Points, smooth_curve
from catheters.synthetic.canvas import Canvas, Layer, shrink
from catheters.synthetic.chest import chest_attenuation
from catheters.synthetic.hospitals import Hospital
from catheters.synthetic.lines_and_tubes import Catheter, cut
from catheters.synthetic.plan import ImagePlan

SUPERSAMPLING = 2
MARKER_TEXT = "SYNTHETIC"
MARKER_TEXT_ON_REAL = "SEMI-SYNTHETIC"
CHEST_CONTRAST = 0.7
"""Absorption between the 2nd and the 98th percentile of a drawn chest."""


def render_image(plan: ImagePlan) -> NDArray[np.uint8]:
    """The radiograph of a plan: (H, W), uint8, bone white."""
    if plan.background is not None:
        return draw_on_radiograph(plan, plan.background.image())
    rng = np.random.default_rng(plan.drawing_seed)
    canvas = Canvas(plan.patient, plan.view, 1.0)
    attenuation = chest_attenuation(canvas)
    fine = Canvas(plan.patient, plan.view, SUPERSAMPLING)
    for catheter in plan.catheters:
        attenuation += catheter_layer(fine, catheter, canvas.shape)
    if rng.random() < 0.6:
        attenuation += lead_layer(fine, rng, canvas.shape)
    image = expose(attenuation, rng, plan.hospital)
    if rng.random() < 0.5:
        image *= collimation(canvas, rng)
    pixels = np.clip(np.round(image), 0, 255).astype(np.uint8)
    stamp_side(pixels, "L" if rng.random() < 0.7 else "R", rng)
    stamp(pixels, MARKER_TEXT)
    return pixels


def draw_on_radiograph(plan: ImagePlan, radiograph: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The plan's catheters on a real radiograph (H, W): fainter than on a drawn chest, as real ones mostly are."""
    rng = np.random.default_rng(plan.drawing_seed)
    fine = Canvas(plan.patient, plan.view, SUPERSAMPLING)
    absorption: Layer = np.zeros(radiograph.shape, np.float32)
    for catheter in plan.catheters:
        absorption += np.float32(rng.uniform(0.4, 1.0)) * catheter_layer(fine, catheter, radiograph.shape)
    absorption = np.asarray(cv2.GaussianBlur(absorption, (0, 0), 0.6), np.float32)
    black, white = np.percentile(radiograph, [2, 98])
    greys_per_absorption = max(float(white - black), 32.0) / CHEST_CONTRAST
    room = (255 - radiograph.astype(np.float32)) / 255  # a bright pixel has less left to gain
    added = absorption * greys_per_absorption * np.minimum(1, 2 * room)
    pixels = np.clip(np.round(radiograph + added), 0, 255).astype(np.uint8)
    stamp(pixels, MARKER_TEXT_ON_REAL)
    return pixels


def catheter_layer(fine: Canvas, catheter: Catheter, shape: tuple[int, int]) -> Layer:
    """What one catheter adds to the absorption (H, W)."""
    course = fine.from_image_pixels(catheter.course_px)
    if catheter.device_type == "ETT":
        return tube_layer(fine, course, shape)
    if catheter.device_type == "NGT":
        return feeding_tube_layer(fine, course, shape)
    width = 2.3 if catheter.device_type == "CVC" else 2.6
    line = fine.blank()
    fine.stroke_pixels(line, course, width)
    layer = 0.32 * shrink(line, shape)
    tip = fine.blank()
    fine.stroke_pixels(tip, last(course, 5 * fine.px_per_mm), width + 0.6)
    return np.asarray(layer + 0.12 * shrink(tip, shape), np.float32)


def tube_layer(fine: Canvas, course: Points, shape: tuple[int, int]) -> Layer:
    """An endotracheal tube: two walls, air between them, an opaque stripe along one side."""
    walls, stripe = fine.blank(), fine.blank()
    fine.stroke_pixels(walls, course, 10.5)
    fine.stroke_pixels(walls, course, 7.0, 90)
    fine.stroke_pixels(stripe, aside(course, 2.2 * fine.px_per_mm), 1.8)
    return np.asarray(0.25 * shrink(walls, shape) + 0.36 * shrink(stripe, shape), np.float32)


def feeding_tube_layer(fine: Canvas, course: Points, shape: tuple[int, int]) -> Layer:
    """A nasogastric tube: an opaque line in a fainter wall, broken at the side hole, and a weighted tip."""
    wall, line, tip = fine.blank(), fine.blank(), fine.blank()
    fine.stroke_pixels(wall, course, 5.0)
    fine.stroke_pixels(line, course, 2.0)
    hole = cut(course, float(lengths_along(course)[-1]) - 22 * fine.px_per_mm)
    fine.stroke_pixels(line, last(hole, 4 * fine.px_per_mm), 3.0, 0)
    fine.stroke_pixels(tip, last(course, 9 * fine.px_per_mm), 5.0)
    return np.asarray(0.11 * shrink(wall, shape) + 0.24 * shrink(line, shape) + 0.18 * shrink(tip, shape), np.float32)


def last(course: Points, length: float) -> Points:
    """The final stretch of a polyline, in its own units."""
    return cut(course[::-1], length)


def aside(course: Points, offset: float) -> Points:
    """A polyline moved sideways by `offset`, in its own units."""
    tangent = np.gradient(course, axis=0)
    normal = np.stack([-tangent[:, 1], tangent[:, 0]], axis=1) / (np.hypot(*tangent.T)[:, None] + 1e-9)
    return np.asarray(course + offset * normal)


def lead_layer(fine: Canvas, rng: np.random.Generator, shape: tuple[int, int]) -> Layer:
    """ECG electrodes and their wires, which lie on the skin and mean nothing."""
    wires, pads = fine.blank(), fine.blank()
    exit_x, exit_y = rng.choice([-1, 1]) * 215.0, rng.uniform(60, 220)
    for _ in range(rng.integers(2, 5)):
        side = rng.choice([-1, 1])
        pad = np.array([side * rng.uniform(70, 135), rng.choice([rng.uniform(-70, -20), rng.uniform(110, 190)])])
        bow = pad + np.array([side * rng.uniform(15, 50), rng.uniform(10, 60)])
        wire = smooth_curve([pad, bow, (0.5 * (bow[0] + exit_x), bow[1] + rng.uniform(10, 50)), (exit_x, exit_y)])
        fine.stroke(wires, wire, 1.5)
        fine.stroke(pads, [pad, pad + 0.1], 12, 70)
        fine.stroke(pads, [pad, pad + 0.1], 5)
    return np.asarray(0.20 * shrink(wires, shape) + 0.26 * shrink(pads, shape), np.float32)


def expose(attenuation: Layer, rng: np.random.Generator, hospital: Hospital) -> Layer:
    """Absorption (H, W) -> grey values (H, W) in [0, 255]: scatter, the hospital's tone curve and grain."""
    height, width = attenuation.shape
    sigma = max(height, width) / 16
    small = cv2.resize(attenuation, (max(width // 8, 1), max(height // 8, 1)), interpolation=cv2.INTER_AREA)
    scatter = cv2.resize(cv2.GaussianBlur(small, (0, 0), sigma / 8), (width, height), interpolation=cv2.INTER_LINEAR)
    signal = attenuation - np.float32(rng.uniform(0.10, 0.35)) * scatter
    black, white = np.percentile(small, [2, 98])
    # without the scatter all is about a fifth less; white is not the brightest, which is left to catheters and bone
    tone = (signal - np.float32(0.74 * black)) / np.float32(0.82 * (white - black) + 1e-6)
    tone = np.maximum(tone * np.float32(rng.uniform(0.68, 0.82)), 0)
    tone = np.asarray(cv2.pow(tone, rng.uniform(*hospital.gamma)), np.float32)
    # a soft shoulder, so that opaque lines keep their contrast over the white abdomen
    excess = np.maximum(tone - np.float32(0.7), 0)
    tone += excess / (1 + 2 * excess) - excess
    grain = rng.standard_normal(attenuation.shape, dtype=np.float32)
    blurred = cv2.GaussianBlur(grain, (0, 0), 0.8)
    noise = np.float32(rng.uniform(*hospital.noise)) * (grain * 0.6 + blurred * 1.4)
    return np.asarray(255 * np.clip(tone + noise * (1.2 - 0.6 * tone), 0, 1), np.float32)


def collimation(canvas: Canvas, rng: np.random.Generator) -> Layer:
    """The field of the beam (H, W): 1 inside, near 0 beyond a slightly askew edge on some sides."""
    height, width = canvas.shape
    field = np.zeros(canvas.shape, np.uint8)
    left, right, top, bottom = rng.choice([0.0, 0.008, 0.018], size=4) * (width, width, height, height)
    skew = rng.normal(0, 0.004) * width
    upper = [(left + skew, top), (width - right + skew, top)]
    corners = [*upper, (width - right, height - bottom), (left, height - bottom)]
    cv2.fillPoly(field, [np.round(np.array(corners)).astype(np.int32)], 255, cv2.LINE_AA)
    return np.asarray(0.04 + 0.96 * canvas.soften(field, 0.6), np.float32)


def stamp_side(image: NDArray[np.uint8], side: str, rng: np.random.Generator) -> None:
    """Burn the side marker into an image, in place."""
    height, width = image.shape
    size = max(height, width) / 512
    x = width * (0.90 if side == "L" else 0.05)
    position = (round(x), round(height * rng.uniform(0.12, 0.3)))
    cv2.putText(image, side, position, cv2.FONT_HERSHEY_SIMPLEX, 0.9 * size, 235, max(1, round(2 * size)), cv2.LINE_AA)


def stamp(image: NDArray[np.uint8], text: str) -> None:
    """Burn into the four corners of an image, in place, what it is."""
    height, width = image.shape
    size = max(height, width) / 512
    font, scale = cv2.FONT_HERSHEY_SIMPLEX, 0.32 * size
    (text_width, text_height), _ = cv2.getTextSize(text, font, scale, 1)
    margin = round(4 * size)
    for x in (margin, width - text_width - margin):
        for y in (margin + text_height, height - margin):
            cv2.rectangle(image, (int(x), int(y) - text_height), (int(x) + text_width, int(y)), 20, cv2.FILLED)
            cv2.putText(image, text, (int(x), int(y)), font, scale, 200, 1, cv2.LINE_AA)
