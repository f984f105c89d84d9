"""Lines and tubes: the course each takes through the atlas, where its tip lies, and the label that follows."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

from catheters.polylines import lengths_along
from catheters.synthetic import anatomy, rules
from catheters.synthetic.anatomy import Patient, Points, View

TRACHEA_TO_BRONCHUS = {
    "right": (*anatomy.TRACHEA[:-1], (-2, -4), *anatomy.RIGHT_BRONCHUS[1:]),
    "left": (*anatomy.TRACHEA[:-1], (1, -4), *anatomy.LEFT_BRONCHUS[1:]),
}
OESOPHAGUS = (
    *((3, -230), (4, -150), (6, -90), (5, -30), (7, 30), (9, 80), (12, 115)),
    anatomy.GASTRO_OESOPHAGEAL_JUNCTION,
)
IN_STOMACH = ((34, 154), (58, 166), (78, 178), (80, 192), (64, 201), (38, 200), (14, 193))
DOWN_AND_OUT = ((34, 156), (50, 182), (54, 215), (48, 260), (40, 340))
COIL = ((3, -230), (4, -150), (6, -90), (4, -40), (8, 12), (20, 24), (24, 6), (12, -18), (2, -46), (-3, -72))
ENTRIES = {
    "right jugular": ((-58, -235), (-52, -170), (-44, -120), (-37, -75)),
    "left jugular": ((58, -235), (52, -170), (45, -120), (36, -76)),
    "right subclavian": ((-172, 20), (-150, -30), (-118, -54), (-96, -66), (-68, -79), (-46, -76)),
    "left subclavian": ((172, 20), (150, -30), (118, -54), (96, -66), (68, -80), (46, -78)),
    "right arm": ((-212, 70), (-196, 5), (-160, -48), (-118, -70), (-74, -82), (-46, -76)),
    "left arm": ((212, 70), (196, 5), (160, -48), (118, -70), (74, -83), (46, -78)),
}
CONFLUENCE = {"right": ((-31, -52), (-26, -28)), "left": ((16, -60), (-10, -44), (-24, -24))}
CAVA_TO_VENTRICLE = ((-26, 0), (-30, 30), (-33, 60), (-26, 90), (2, 108), (36, 116), (62, 122))
UP_THE_NECK = {
    "right": ((-38, -84), (-42, -110), (-50, -150), (-56, -200)),
    "left": ((38, -86), (43, -110), (50, -150), (56, -200)),
}
ACROSS = {
    "right": ((-29, -52), (-10, -46), (14, -58), (40, -74), (72, -79), (106, -66)),
    "left": ((12, -58), (-12, -48), (-30, -56), (-46, -74), (-74, -79), (-106, -66)),
}
PULMONARY_LOOP = {
    "right": ((-26, 0), (-31, 30), (-33, 66), (-16, 98), (16, 106), (36, 82), (32, 48), (14, 22), (-14, 18), (-44, 30)),
    "left": ((-26, 0), (-31, 30), (-33, 66), (-16, 98), (16, 106), (36, 84), (34, 54), (38, 30), (56, 26)),
}


Placement = tuple[Points, Callable[[bool], str]]
"""A course (N, 2) in the atlas, and the label of what lies there, given whether the image shows the tip."""


@dataclass(frozen=True)
class Route:
    """A smooth way through the atlas with a mark on it from which lengths count."""

    points: Points
    mark_mm: float
    """Length along `points` at which the mark lies."""

    def up_to(self, position_mm: float) -> Points:
        """The way from its start to `position_mm` beyond the mark (before it, if negative)."""
        return cut(self.points, self.mark_mm + position_mm)


@dataclass(frozen=True)
class Catheter:
    """One tube or line as it lies in one image."""

    device_type: str
    """"ETT", "NGT", "CVC" or "Swan"."""
    label: str
    course_px: Points
    """(N, 2) pixels, x then y, from the entry to the tip; it may begin or end outside of the image."""


def cut(points: Points, length: float) -> Points:
    """The first `length` of a polyline (N, 2), its last point interpolated."""
    along = lengths_along(points)
    length = float(np.clip(length, 1e-6, along[-1]))
    end = np.array([[np.interp(length, along, points[:, axis]) for axis in (0, 1)]])
    return np.concatenate([points[along < length], end])


@cache
def route(control_points: tuple[tuple[float, float], ...], mark: tuple[float, float] | None = None) -> Route:
    """A route through control points; the mark is the point of it nearest to `mark`, else its start."""
    points = anatomy.smooth_curve(control_points)
    if mark is None:
        return Route(points, 0.0)
    nearest = int(np.argmin(np.hypot(*(points - np.asarray(mark)).T)))
    return Route(points, float(lengths_along(points)[nearest]))


def sway(points: Points, rng: np.random.Generator, spread_mm: float) -> Points:
    """A polyline bent sideways a little, the tip held still, so that no two lines coincide."""
    along = lengths_along(points)
    from_tip = along[-1] - along
    phase, period = rng.uniform(0, 2 * np.pi), rng.uniform(90, 160)
    offset = rng.normal(0, spread_mm) * (np.sin(from_tip / period * 2 * np.pi + phase) - np.sin(phase))
    tangent = np.gradient(points, axis=0)
    normal = np.stack([-tangent[:, 1], tangent[:, 0]], axis=1) / (np.hypot(*tangent.T)[:, None] + 1e-9)
    return np.asarray(points + offset[:, None] * normal)


def place_ett(state: str, habit: np.random.Generator, rng: np.random.Generator) -> Placement:
    """An endotracheal tube."""
    bands = {
        "Normal": [(42, 65)],
        "Borderline": [(16, 23)] * 4 + [(78, 88)],
        "Abnormal": [(-46, -16)] * 5 + [(98, 112)],
    }
    low, high = bands[state][habit.integers(len(bands[state]))]
    height = rng.uniform(low, high)
    side = "right" if habit.random() < 0.85 else "left"
    course = route(TRACHEA_TO_BRONCHUS[side], mark=anatomy.CARINA).up_to(-height)
    return sway(course, rng, 0.8), lambda _: rules.ett_label(height)


def place_ngt(state: str, habit: np.random.Generator, rng: np.random.Generator) -> Placement:
    """A nasogastric tube."""
    malposition = habit.choice(["airway", "coil", "short"], p=[0.3, 0.3, 0.4])
    if state == "Abnormal" and malposition == "airway":
        depth = rng.uniform(20, 75)
        airway = route(TRACHEA_TO_BRONCHUS["right"], mark=anatomy.CARINA).up_to(depth)
        return sway(airway, rng, 1.0), lambda seen: rules.ngt_label(0, tip_in_image=seen, in_airway=True)
    if state == "Abnormal" and malposition == "coil":
        coil = route(COIL).points
        return sway(coil, rng, 1.5), lambda seen: rules.ngt_label(0, tip_in_image=seen, is_coiled=True)
    low, high = {"Abnormal": (-160, -50), "Borderline": (12, 38), "Normal": (78, 125)}.get(state, (205, 206))
    depth = rng.uniform(low, high)
    below = DOWN_AND_OUT if state == "Incompletely Imaged" else IN_STOMACH
    course = route((*OESOPHAGUS, *below), mark=anatomy.GASTRO_OESOPHAGEAL_JUNCTION).up_to(depth)
    return sway(course, rng, 2.0), lambda seen: rules.ngt_label(depth, tip_in_image=seen)


def place_cvc(state: str, entry: str, habit: np.random.Generator, rng: np.random.Generator) -> Placement:
    """A central venous catheter that enters at `entry`."""
    side, way_in = entry.split()[0], ENTRIES[entry]
    central = route((*way_in, *CONFLUENCE[side], *CAVA_TO_VENTRICLE), mark=(-26, 0))
    if state == "Abnormal" and habit.random() < 0.65:
        goes_up = "jugular" not in entry and habit.random() < 0.5
        turn = UP_THE_NECK[side] if goes_up else ACROSS[side]
        wrong = route((*way_in, *turn), mark=way_in[-1]).up_to(rng.uniform(28, 52) if goes_up else rng.uniform(80, 140))
        return sway(wrong, rng, 1.5), lambda _: rules.cvc_label(0, in_wrong_vein=True)
    bands = {
        "Normal": [(4, 38)],
        "Borderline": [(-52, -22)] * 4 + [(56, 68)],
        "Abnormal": [(88, 135)] * 2 + [(-105, -78)],
    }
    low, high = bands[state][habit.integers(len(bands[state]))]
    depth = rng.uniform(low, high)
    return sway(central.up_to(depth), rng, 1.5), lambda _: rules.cvc_label(depth)


def place_swan(entry: str, habit: np.random.Generator, rng: np.random.Generator) -> Placement:
    """A Swan-Ganz catheter that enters at `entry`: through the right heart into a pulmonary artery."""
    side = entry.split()[0]
    into = "right" if habit.random() < 0.7 else "left"
    full = route((*ENTRIES[entry], *CONFLUENCE[side], *PULMONARY_LOOP[into])).points
    course = cut(full, float(lengths_along(full)[-1]) - rng.uniform(0, 18))
    return sway(course, rng, 1.5), lambda _: rules.SWAN_LABEL


def place_catheter(
    device_type: str,
    state: str,
    entry: str,
    *,
    patient: Patient,
    view: View,
    habit: np.random.Generator,
    rng: np.random.Generator,
) -> Catheter:
    """Put one catheter into a patient as the view shows it.

    `state` is the position aimed at ("Normal", "Borderline", ...; ignored for Swan), `entry` the vein of a CVC or Swan
    (a key of `ENTRIES`; ignored for tubes). `habit` decides what stays from one image of the patient to the next, such
    as the wrong turn taken; `rng` what changes. The label comes from the rules alone.
    """
    if device_type == "ETT":
        course, label = place_ett(state, habit, rng)
    elif device_type == "NGT":
        course, label = place_ngt(state, habit, rng)
    elif device_type == "CVC":
        course, label = place_cvc(state, entry, habit, rng)
    else:
        course, label = place_swan(entry, habit, rng)
    course_px = view.to_pixels(patient.deform(course))
    return Catheter(device_type, label(view.contains(course_px[-1])), course_px)
