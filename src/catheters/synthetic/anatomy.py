"""The atlas of the chest, and a patient as a smooth deformation of it.

Atlas coordinates are millimetres on an adult's frontal radiograph: the origin is the carina, x grows to the image's
right (the patient's left), y grows downwards. Everything is drawn and labelled in the atlas; `Patient.deform` and
`View.to_pixels` carry it to the image.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]

IMAGE_MM = 400.0
"""Nominal length of the image's longer side."""
CENTRE_MM = (0.0, 40.0)
"""Atlas point in the middle of the image."""

CARINA = (0, 0)
RIGHT_DOME = (-80, 119)
LEFT_DOME = (85, 131)
"""Highest points of the lungs' lower borders, in their middle."""
GASTRO_OESOPHAGEAL_JUNCTION = (20, 136)
LANDMARKS = {
    "carina": CARINA,
    "right diaphragm dome": RIGHT_DOME,
    "left diaphragm dome": LEFT_DOME,
    "gastro-oesophageal junction": GASTRO_OESOPHAGEAL_JUNCTION,
}
"""Name -> point of the atlas. Right and left are the patient's."""

RIGHT_LUNG = (
    *((-60, -92), (-92, -74), (-118, -30), (-135, 35), (-143, 95), (-147, 152)),
    *((-118, 130), RIGHT_DOME, (-42, 130), (-24, 138), (-24, 80), (-22, 20), (-22, -40), (-32, -80)),
)
LEFT_LUNG = (
    *((60, -92), (92, -74), (118, -30), (136, 35), (145, 95), (150, 162)),
    *((122, 142), LEFT_DOME, (45, 140), (24, 146), (22, 80), (22, 20), (22, -40), (32, -80)),
)
MEDIASTINUM = (
    *((-9, -150), (-19, -105), (-26, -60), (-30, -20), (-32, 12), (-47, 45), (-53, 85), (-45, 128), (0, 150)),
    *((60, 148), (90, 128), (87, 105), (66, 65), (47, 35), (42, 14), (38, 0), (46, -18), (44, -34), (30, -48)),
    *((26, -70), (19, -105), (9, -150)),
)
BODY = (
    *((-62, -230), (-60, -150), (-80, -122), (-140, -108), (-190, -84), (-216, -30), (-222, 60), (-204, 110)),
    *((-186, 160), (-178, 300), (178, 300), (186, 160), (204, 110), (222, 60), (216, -30), (190, -84)),
    *((140, -108), (80, -122), (60, -150), (62, -230)),
)
STOMACH_GAS = (72.0, 156.0)
TRACHEA = ((-1, -230), (-1, -150), (0, -90), (-1, -40), CARINA)
RIGHT_BRONCHUS = (CARINA, (-12, 14), (-26, 36), (-36, 60), (-42, 84))
LEFT_BRONCHUS = (CARINA, (16, 12), (36, 26), (56, 44))


def smooth_curve(control_points: object, *, is_closed: bool = False, steps: int = 10) -> Points:
    """Catmull-Rom spline through control points (N, 2), `steps` points for each stretch between two of them."""
    points = np.asarray(control_points, dtype=np.float64)
    if is_closed:
        padded = np.concatenate([points[-1:], points, points[:2]])
    else:
        padded = np.concatenate([2 * points[:1] - points[1:2], points, 2 * points[-1:] - points[-2:-1]])
    p0, p1, p2, p3 = (padded[i : len(padded) - 3 + i, None] for i in range(4))
    t = (np.arange(steps) / steps)[None, :, None]
    curve = 0.5 * (2 * p1 + (p2 - p0) * t + (2 * p0 - 5 * p1 + 4 * p2 - p3) * t**2 + (3 * p1 - p0 - 3 * p2 + p3) * t**3)
    curve = curve.reshape(-1, 2)
    return curve if is_closed else np.concatenate([curve, points[-1:]])


@dataclass(frozen=True, kw_only=True)
class Patient:
    """The build of one patient: factors of 1 and offsets of 0 give the atlas itself."""

    width: float
    """Lateral scale of the chest."""
    upper_height: float
    """Vertical scale above the carina."""
    lower_height: float
    """Vertical scale below the carina."""
    bend_mm: float
    """Sideways bow of the midline (scoliosis, a patient who lies askew)."""
    heart_size: float
    """Scale of the heart's shadow."""
    tissue: float
    """Thickness of the soft tissue around the chest."""
    texture_seed: int
    """Seed of what is the patient's own but moves no landmark: vessels, ribs' tilt, gas."""

    def deform(self, points: object) -> Points:
        """Atlas points (N, 2) -> the patient's points (N, 2), both in mm."""
        atlas = np.asarray(points, dtype=np.float64)
        x, y = atlas[:, 0], atlas[:, 1]
        bow = self.bend_mm * np.cos(np.clip(y, -180, 260) / 140.0) - self.bend_mm
        return np.stack([x * self.width + bow, y * np.where(y < 0, self.upper_height, self.lower_height)], axis=1)


@dataclass(frozen=True, kw_only=True)
class View:
    """How one exposure of a patient falls on the image."""

    height_px: int
    width_px: int
    zoom: float
    rotation_rad: float
    shift_mm: tuple[float, float]

    @property
    def px_per_mm(self) -> float:
        """Scale of the image."""
        return self.zoom * max(self.height_px, self.width_px) / IMAGE_MM

    def to_pixels(self, points: Points) -> Points:
        """The patient's points (N, 2) in mm -> pixels (N, 2), x then y, (0, 0) the centre of the first pixel."""
        cos, sin = np.cos(self.rotation_rad), np.sin(self.rotation_rad)
        centred = points - np.asarray(CENTRE_MM) - np.asarray(self.shift_mm)
        rotated = centred @ np.array([[cos, sin], [-sin, cos]])
        return np.asarray(rotated * self.px_per_mm + np.array([self.width_px, self.height_px]) / 2 - 0.5)

    def contains(self, pixel: NDArray[np.float64]) -> bool:
        """Whether a point (2,), x and y in pixels, lies in the image."""
        return bool(0 <= pixel[0] <= self.width_px - 1 and 0 <= pixel[1] <= self.height_px - 1)


def draw_patient(rng: np.random.Generator) -> Patient:
    """A patient drawn at random."""
    return Patient(
        width=rng.uniform(0.91, 1.07),
        upper_height=rng.uniform(0.93, 1.07),
        lower_height=rng.uniform(0.88, 1.03),
        bend_mm=rng.normal(0, 2.5),
        heart_size=rng.uniform(0.85, 1.25),
        tissue=rng.uniform(0.7, 1.3),
        texture_seed=int(rng.integers(2**32)),
    )


def draw_view(rng: np.random.Generator, image_size: int) -> View:
    """An exposure drawn at random; `image_size` is the image's longer side in pixels."""
    aspect = rng.choice([1.0, 1.04, 1.08, 0.94], p=[0.45, 0.2, 0.15, 0.2])  # width / height
    return View(
        height_px=round(image_size / max(aspect, 1.0)),
        width_px=round(image_size * min(aspect, 1.0)),
        zoom=rng.uniform(0.96, 1.04),
        rotation_rad=rng.normal(0, 0.02),
        shift_mm=(float(np.clip(rng.normal(0, 4), -9, 9)), float(np.clip(rng.normal(0, 4), -9, 9))),
    )
