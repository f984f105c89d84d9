"""Dice's coefficient of predicted and true pixels of lines."""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

THRESHOLD = 0.5


def dice(
    predicted: npt.NDArray[np.floating] | npt.NDArray[np.bool_],
    truth: npt.NDArray[np.bool_],
    is_known: npt.NDArray[np.bool_],
    threshold: float = THRESHOLD,
) -> Floats:
    """Dice's coefficient, 2 TP / (2 TP + FP + FN), of every image and device type (Dice, Ecology 26 (1945), 297).

    It is undefined (NaN) where nothing is known, and where there is no true line: an overlap with nothing would be 0
    for one pixel too many, and hide how well lines are met. Lines where there are none are counted as false lines, see
    `match_tips`.

    Args:
        predicted: (N, G, h, w) probabilities, or booleans.
        truth: (N, G, h, w) whether a pixel belongs to a line of the device type.
        is_known: (N, G) whether lines of the device type were drawn in that image, where there are some.
        threshold: from this probability on a pixel is predicted to belong to a line.

    Returns:
        (N, G) in 0..1.

    Raises:
        ValueError: the shapes do not fit together.
    """
    if predicted.ndim != 4 or predicted.shape != truth.shape or is_known.shape != truth.shape[:2]:
        raise ValueError(
            f"predicted {predicted.shape}, truth {truth.shape}, is_known {is_known.shape}: "
            "(N, G, h, w) twice and (N, G) are expected"
        )
    is_predicted = predicted >= threshold  # True is 1
    both = (is_predicted & truth).sum(axis=(2, 3))
    num_true = truth.sum(axis=(2, 3))
    total = is_predicted.sum(axis=(2, 3)) + num_true
    coefficients: Floats = np.where(is_known & (num_true > 0), 2 * both / np.maximum(total, 1), np.nan)
    return coefficients
