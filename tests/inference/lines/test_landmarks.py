"""Landmarks: hand-made maps of a stretched image, and what is not found."""

import numpy as np
import pytest

from catheters.data.preprocessing import Preprocessing, place
from catheters.inference.lines.landmarks import FoundLandmark, find_landmarks, places_of
from catheters.inference.lines.maps import Frame, LineMaps, mean_maps
from tests.inference.lines.drawing import add_noise, draw_tip_map

WIDTH = 64
SIZE = np.array([500, 300])
"""Width and height of the original, which is stretched to a square."""


def maps_of(**landmarks: np.ndarray) -> LineMaps:
    frame = Frame(
        placement=place((0.0, 0.0, 300.0, 500.0), Preprocessing(image_shape=(128, 128))),
        image_shape=(128, 128),
        map_shape=(WIDTH, WIDTH),
    )
    empty = np.zeros((1, WIDTH, WIDTH), dtype=np.float32)
    return LineMaps(
        device_types={"ETT": ("ETT - Normal",)}, lines=empty, tips=empty, positions={}, frame=frame, landmarks=landmarks
    )


def test_a_place_to_a_fraction_of_a_pixel(rng: np.random.Generator) -> None:
    """A pixel of the map is 7.8 x 4.7 of the original; the peak is found to 5% of that, with noise to 30%."""
    for place_in_parts in ((0.5, 0.5), (0.413, 0.377), (0.92, 0.06)):
        drawn = draw_tip_map([np.array(place_in_parts)], WIDTH)
        expected = np.array(place_in_parts) * SIZE - 0.5
        for values, tolerance in ((drawn, 0.05), (add_noise(drawn, rng, 0.04), 0.3)):
            found = find_landmarks(maps_of(carina=values))["carina"]
            assert found is not None
            assert abs(found.x - expected[0]) < tolerance * 7.8
            assert abs(found.y - expected[1]) < tolerance * 4.7
            assert 0.6 < found.probability <= 1


def test_the_highest_peak_is_the_landmark() -> None:
    two = np.maximum(
        draw_tip_map([np.array([0.2, 0.2])], WIDTH, height=0.6), draw_tip_map([np.array([0.7, 0.6])], WIDTH, height=0.8)
    )
    found = find_landmarks(maps_of(carina=two))["carina"]
    assert found is not None
    assert (found.x, found.y) == pytest.approx((0.7 * 500 - 0.5, 0.6 * 300 - 0.5), abs=1)
    assert found.probability == pytest.approx(0.8, abs=0.08)


def test_what_is_not_found() -> None:
    """A low peak, an empty map, one without numbers; and a model that knows no landmark."""
    low = draw_tip_map([np.array([0.5, 0.5])], WIDTH, height=0.25)
    empty = np.zeros((WIDTH, WIDTH), dtype=np.float32)
    found = find_landmarks(maps_of(low=low, empty=empty, broken=np.full_like(empty, np.nan)))
    assert found == {"low": None, "empty": None, "broken": None}
    assert find_landmarks(maps_of(low=low), threshold=0.2)["low"] is not None
    assert places_of(found) == {"low": [], "empty": [], "broken": []}
    assert places_of({"carina": FoundLandmark(x=1.0, y=2.0, probability=0.5)}) == {"carina": [(1.0, 2.0)]}
    assert find_landmarks(maps_of()) == {}
    assert not maps_of(broken=np.full_like(empty, np.nan)).are_finite


def test_the_mean_of_several_models() -> None:
    """By name, over those that know it: one that sees nothing halves the peak of another."""
    drawn = draw_tip_map([np.array([0.4, 0.4])], WIDTH, height=0.9)
    one, other, third = maps_of(carina=drawn), maps_of(carina=0 * drawn, dome=drawn), maps_of()
    mean = mean_maps([third, one, other])
    assert list(mean.landmarks) == ["carina", "dome"]
    assert mean.landmarks["carina"] == pytest.approx(drawn / 2)
    assert mean.landmarks["dome"] == pytest.approx(drawn)
