"""Landmarks such as the carina: the highest peak of each one's map, in pixels of the original image."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from catheters.inference.lines.maps import LineMaps
from catheters.inference.lines.tips import find_tips

LANDMARK_THRESHOLD = 0.3
"""Least height of a landmark's peak. Of the synthetic sample's 600 out-of-fold carinas the lowest has .31."""


@dataclass(frozen=True, kw_only=True)
class FoundLandmark:
    """A landmark that the models see.

    Attributes:
        x: in pixels of the original image as shown, whole numbers being pixel centres.
        y: likewise, downwards.
        probability: height of the peak, in 0..1.
    """

    x: float
    y: float
    probability: float


def find_landmarks(maps: LineMaps, threshold: float = LANDMARK_THRESHOLD) -> dict[str, FoundLandmark | None]:
    """Where each landmark lies in one image.

    There is one of each, so the highest peak of its map is taken and all others are left.

    Args:
        maps: of one model, or the mean of several.
        threshold: a landmark whose peak is lower is not found.

    Returns:
        Name -> the landmark, None where it is not found.
    """
    found: dict[str, FoundLandmark | None] = {}
    for name, of_landmark in maps.landmarks.items():
        peaks = find_tips(of_landmark, threshold)
        found[name] = None
        if peaks:
            ((x, y),) = maps.frame.to_original(np.array([[peaks[0].x, peaks[0].y]])).tolist()
            found[name] = FoundLandmark(x=x, y=y, probability=peaks[0].probability)
    return found


def places_of(landmarks: Mapping[str, FoundLandmark | None]) -> dict[str, list[tuple[float, float]]]:
    """Name -> its place, x and y in pixels of the original image; an empty list where it is not found."""
    return {name: [] if place is None else [(place.x, place.y)] for name, place in landmarks.items()}
