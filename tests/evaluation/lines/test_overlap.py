"""Dice's coefficient by hand and from sets of pixels."""

import math

import numpy as np
import pytest

from catheters.evaluation.lines.overlap import dice


def test_by_hand() -> None:
    """3 true pixels, 4 predicted, 2 in both: 4 / 7. A probability at the threshold is predicted."""
    truth = np.zeros((1, 1, 2, 4), dtype=np.bool_)
    truth[0, 0, 0, :3] = True
    predicted = np.array([[[[0.5, 0.9, 0.49, 0.0], [0.6, 0.7, 0.1, 0.0]]]], dtype=np.float32)
    is_known = np.ones((1, 1), dtype=np.bool_)
    assert dice(predicted, truth, is_known) == pytest.approx(4 / 7)
    assert dice(predicted, truth, is_known, threshold=0.3) == pytest.approx(6 / 8)
    assert dice(truth, truth, is_known) == 1
    assert dice(~truth, truth, is_known) == 0


def test_equals_sets_of_pixels(rng: np.random.Generator) -> None:
    truth, predicted = rng.random((5, 3, 8, 8)) < 0.3, rng.random((5, 3, 8, 8))
    found = dice(predicted, truth, np.ones((5, 3), dtype=np.bool_))
    for image in range(5):
        for device_type in range(3):
            one = set(zip(*np.nonzero(truth[image, device_type]), strict=True))
            two = set(zip(*np.nonzero(predicted[image, device_type] >= 0.5), strict=True))
            assert found[image, device_type] == pytest.approx(2 * len(one & two) / (len(one) + len(two)))


def test_undefined() -> None:
    """Where nothing is known, and where there is no true line, whatever is predicted."""
    truth = np.zeros((2, 2, 4, 4), dtype=np.bool_)
    truth[0, :, 1] = True
    predicted = np.full((2, 2, 4, 4), 0.9)
    found = dice(predicted, truth, np.array([[True, False], [True, True]]))
    assert found[0, 0] == pytest.approx(2 * 4 / (4 + 16))
    assert math.isnan(found[0, 1])
    assert np.isnan(found[1]).all()


def test_wrong_shapes() -> None:
    truth = np.zeros((2, 3, 4, 4), dtype=np.bool_)
    with pytest.raises(ValueError, match=r"predicted \(2, 3, 4, 4\), truth \(2, 3, 4, 4\), is_known \(3, 2\): "):
        dice(truth, truth, np.ones((3, 2), dtype=np.bool_))
