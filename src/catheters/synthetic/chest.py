"""The chest itself: how much X-ray each part of a patient absorbs, in arbitrary units of optical density."""

import cv2
import numpy as np
from numpy.typing import NDArray

from catheters.synthetic import anatomy
from catheters.synthetic.anatomy import Points, smooth_curve
from catheters.synthetic.canvas import Canvas, Layer, resize

NUM_RIBS = 10
NUM_VESSELS = 14


def chest_attenuation(canvas: Canvas) -> Layer:
    """Absorption (H, W) of a patient without catheters; 0 is air, about 1 the abdomen."""
    rng = np.random.default_rng(canvas.patient.texture_seed)
    soft = Canvas(canvas.patient, canvas.view, canvas.scale / 2)
    tissue, lungs = soft_tissue(soft, rng)
    ribs, bones = bone_layer(canvas, rng)
    vessels = vessel_layer(canvas, soft, rng)
    lungs = resize(lungs, canvas.shape)
    return resize(tissue, canvas.shape) + bones + ribs * (0.3 + 0.7 * lungs) + vessels * lungs - airway_layer(canvas)


def soft_tissue(soft: Canvas, rng: np.random.Generator) -> tuple[Layer, Layer]:
    """Absorption of skin, muscle, heart and abdomen with the lungs taken out; and where lung is, in [0, 1]."""
    patient = soft.patient
    body = soft.blank()
    soft.fill(body, smooth_curve(anatomy.BODY, is_closed=True))
    depth = np.asarray(cv2.distanceTransform(body, cv2.DIST_L2, 3), np.float32) / np.float32(soft.px_per_mm)
    outside = soft.soften(body, 2.0)
    thickness = outside * (0.45 + 0.55 * np.minimum(depth / 90, 1) ** 0.5)

    lung_mask = soft.blank()
    for lung in (anatomy.RIGHT_LUNG, anatomy.LEFT_LUNG):
        soft.fill(lung_mask, smooth_curve(lung, is_closed=True))
    lung_depth = np.asarray(cv2.distanceTransform(lung_mask, cv2.DIST_L2, 3), np.float32) / np.float32(soft.px_per_mm)
    lungs = soft.soften(lung_mask, 1.6)
    aerated = lungs * (0.62 + 0.38 * np.minimum(lung_depth / 45, 1) ** 0.6)

    heart = heart_shadow(soft)
    patches = np.logaddexp(0, soft.clouds(rng, 50) * 1.6 + soft.clouds(rng, 20) * 0.8)
    aerated *= 1 - np.tanh(patches * np.float32(min(rng.gamma(1.5, 0.06), 0.25)))
    clear = np.float32(rng.uniform(0.46, 0.62)) * aerated * (1 - 0.80 * heart)
    build = 1 + 0.12 * (patient.tissue - 1)
    tissue = (0.93 + 0.22 * below_diaphragm(soft)) * thickness * build + 0.15 * heart - clear
    tissue += 0.06 * patient.tissue * breast_shadows(soft, rng) - 0.14 * stomach_gas(soft, rng)
    return tissue.astype(np.float32), lungs * (1 - 0.7 * heart)


def heart_shadow(soft: Canvas) -> Layer:
    """Where heart and great vessels are (H, W), in [0, 1]."""
    centre = np.array([12.0, 75.0])
    outline = np.array(anatomy.MEDIASTINUM, dtype=np.float64)
    is_heart = outline[:, 1] > 20  # the vessels above it keep their width
    outline[is_heart] = centre + (outline[is_heart] - centre) * (soft.patient.heart_size, 1.0)
    mask = soft.blank()
    soft.fill(mask, smooth_curve(outline, is_closed=True))
    return soft.soften(mask, 2.2)


def stomach_gas(soft: Canvas, rng: np.random.Generator) -> Layer:
    """The air bubble under the left dome of the diaphragm (H, W), in [0, 1]."""
    angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    radius = rng.uniform(0.3, 1.0) * (1 + 0.12 * np.sin(2 * angles + rng.uniform(0, 6)))
    x, y = anatomy.STOMACH_GAS
    mask = soft.blank()
    soft.fill(mask, np.stack([x + 26 * radius * np.cos(angles), y + 13 * radius * np.sin(angles)], axis=1))
    return soft.soften(mask, 2.0)


def below_diaphragm(soft: Canvas) -> Layer:
    """How much of each pixel's way leads through the abdomen (H, W), in [0, 1]."""
    coarse = Canvas(soft.patient, soft.view, soft.scale / 4)
    abdomen = coarse.blank()
    coarse.fill(abdomen, [(-260, 150), (260, 150), (260, 360), (-260, 360)])
    return resize(coarse.soften(abdomen, 16), soft.shape)


def breast_shadows(soft: Canvas, rng: np.random.Generator) -> Layer:
    """Rounded soft-tissue folds over the lower lungs."""
    mask = soft.blank()
    drop = rng.uniform(90, 130)
    for side in (-1, 1):
        angles = np.linspace(0, 2 * np.pi, 32, endpoint=False)
        fold = np.stack([side * 92 + 62 * np.cos(angles), drop + 58 * np.sin(angles)], axis=1)
        soft.fill(mask, fold)
    return soft.soften(mask, 3.0)


def bone_layer(canvas: Canvas, rng: np.random.Generator) -> tuple[Layer, Layer]:
    """Absorption of the ribs; and of spine, clavicles, shoulder blades and upper arms."""
    back, front = zip(*(rib_courses(number, side, rng) for number in range(NUM_RIBS) for side in (-1, 1)), strict=True)
    back_ribs, front_ribs, clavicles = canvas.blank(), canvas.blank(), canvas.blank()
    draw_long_bones(canvas, back_ribs, np.stack(back), 8.5)
    draw_long_bones(canvas, front_ribs, np.stack(front[:14]), 10)  # below the seventh they are cartilage
    shape = np.array([(16, -66), (40, -72), (72, -86), (108, -100), (150, -104)], dtype=np.float64)
    draw_long_bones(canvas, clavicles, np.stack([smooth_curve(shape * (side, 1)) for side in (-1, 1)]), 11)
    ribs = 0.12 * canvas.soften(back_ribs, 0.8) + 0.055 * canvas.soften(front_ribs, 1.0)
    others = 0.16 * canvas.soften(clavicles, 0.7) + spine_layer(canvas, rng) + shoulder_layer(canvas)
    return ribs, others


def draw_long_bones(canvas: Canvas, layer: NDArray[np.uint8], courses: Points, width_mm: float) -> None:
    """Tubes of bone along `courses` (K, N, 2): the rim (cortex) absorbs more than the inside."""
    canvas.strokes(layer, courses, width_mm)
    canvas.strokes(layer, courses, width_mm - 3.2, 150)


def rib_courses(number: int, side: int, rng: np.random.Generator) -> tuple[Points, Points]:
    """One rib (N, 2): the back part from the spine outwards, and the front part from there down and inwards."""
    top = -94 + 22.5 * number + rng.normal(0, 0.8)
    reach = float(np.interp(number, [0, 2, 4, 9], [82, 122, 138, 152]))
    drop = float(np.interp(number, [0, 3, 9], [24, 42, 66])) + rng.normal(0, 1.5)
    back = [(side * x * reach, top + y) for x, y in ((0.04, 1), (0.2, -7), (0.42, -4), (0.72, 0.3 * drop), (1.0, drop))]
    front = [(side * x * reach, top + drop + y) for x, y in ((1.0, 0), (0.98, 14), (0.84, 34), (0.58, 52), (0.42, 58))]
    return smooth_curve(back), smooth_curve(front)


def spine_layer(canvas: Canvas, rng: np.random.Generator) -> Layer:
    """Vertebral bodies with darker discs between them, and spinous processes."""
    vertebrae, processes = canvas.blank(), canvas.blank()
    for y in np.arange(-215, 300, 22.0) + rng.uniform(-5, 5):
        half = float(np.interp(y, [-150, -60, 240], [13, 15, 20]))
        box = np.array([(-half, y + 2), (-half + 2, y), (half - 2, y), (half, y + 2)])
        lower = np.array([(half, y + 17), (half - 2, y + 19), (-half + 2, y + 19), (-half, y + 17)])
        canvas.fill(vertebrae, np.concatenate([box, lower]))
        canvas.stroke(processes, [(0, y + 10), (0, y + 20)], 4.5)
        for side in (-1, 1):
            canvas.stroke(processes, [(side * half * 0.6, y + 6), (side * half * 0.6, y + 9)], 4, 160)
    column = canvas.blank()
    canvas.stroke(column, [(0, -230), (0, 320)], 36)
    return np.asarray(
        0.07 * canvas.soften(column, 2.5) + 0.05 * canvas.soften(vertebrae, 1.0) + 0.05 * canvas.soften(processes, 1.2),
        np.float32,
    )


def shoulder_layer(canvas: Canvas) -> Layer:
    """Shoulder blades and the heads of the upper arms."""
    blades, heads = canvas.blank(), canvas.blank()
    blade = np.array([(112, -70), (150, -84), (166, -70), (150, -10), (136, 44), (124, 0)], dtype=np.float64)
    arm = np.array([(178, -72), (190, -55), (200, 10), (206, 120)], dtype=np.float64)
    for side in (-1, 1):
        canvas.fill(blades, smooth_curve(blade * (side, 1), is_closed=True))
        canvas.stroke(heads, [(side * 176, -74), (side * 178, -72)], 36, 200)
        draw_long_bones(canvas, heads, smooth_curve(arm * (side, 1))[None], 22)
    return np.asarray(0.07 * canvas.soften(blades, 1.2) + 0.15 * canvas.soften(heads, 1.2), np.float32)


def vessel_layer(canvas: Canvas, soft: Canvas, rng: np.random.Generator) -> Layer:
    """Lung vessels that branch out from the hila and thin out towards the rim."""
    layer, hila = canvas.blank(), soft.blank()
    sides = np.repeat([-1.0, 1.0], NUM_VESSELS)
    hilum = np.where(sides[:, None] < 0, (-38.0, 28.0), (42.0, 20.0))
    angles = np.tile(np.linspace(-1.35, 1.35, NUM_VESSELS), 2) + rng.normal(0, 0.12, len(sides))
    start = hilum + rng.normal(0, 4, hilum.shape) * (0.6, 2.0)
    for width in (3.6, 3.0, 2.4, 1.8, 1.3, 1.0, 0.8):
        angles = angles + rng.normal(0, 0.22, len(sides))
        end = start + rng.uniform(9, 18, (len(sides), 1)) * heading(angles, sides)
        canvas.strokes(layer, np.stack([start, end], axis=1), width, round(50 + 45 * width))
        forks = angles + rng.choice([-1, 1], len(sides)) * rng.uniform(0.4, 0.9, len(sides))
        twigs = end + rng.uniform(8, 22, (len(sides), 1)) * heading(forks, sides)
        canvas.strokes(layer, np.stack([end, twigs], axis=1), width * 0.6, round(35 + 30 * width))
        soft.strokes(hila, np.stack([start, end], axis=1), width * 1.5, round(50 + 30 * width))
        start = end
    glow = resize(soft.soften(hila, 3.0), canvas.shape)
    return np.asarray(0.15 * canvas.soften(layer, 0.7) + 0.14 * glow, np.float32)


def heading(angles: NDArray[np.float64], sides: NDArray[np.float64]) -> Points:
    """Unit vectors (N, 2) that point outwards from the midline, `angles` below the horizontal."""
    return np.stack([sides * np.cos(angles), np.sin(angles)], axis=1)


def airway_layer(canvas: Canvas) -> Layer:
    """What the air in trachea and main bronchi takes off the absorption."""
    airway = canvas.blank()
    canvas.stroke(airway, smooth_curve(anatomy.TRACHEA), 17)
    canvas.stroke(airway, smooth_curve(anatomy.RIGHT_BRONCHUS[:4]), 12, 170)
    canvas.stroke(airway, smooth_curve(anatomy.LEFT_BRONCHUS), 11, 170)
    return np.asarray(0.15 * canvas.soften(airway, 1.5), np.float32)
