"""What can be chosen of an evaluation: names and numbers alone, so that a command's `--help` loads no library."""

from collections.abc import Mapping
from sys import maxsize
from types import MappingProxyType

ERROR_RATE = 0.05
"""Of each class, where the user asks for no other."""
ALL_IMAGES = maxsize
"""Of `--explanations` without a number."""
NO_CALIBRATION = "none"
BEST_CALIBRATION = "best"
CALIBRATION_METHODS = ("temperature", "platt", "isotonic")
ENSEMBLE_METHODS: Mapping[str, str] = MappingProxyType(
    {
        "mean": "the mean of the probabilities",
        "rank": "the mean of the ranks among the images, no probability any more",
        "power": "the square root of the mean of the squared probabilities",
        "weights": "the mean of the probabilities with fitted weights",
    }
)
"""Their meanings, for people."""
