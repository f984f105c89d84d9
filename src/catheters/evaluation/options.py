"""What can be chosen of an evaluation: names and numbers alone, so that a command's `--help` loads no library."""

from collections.abc import Mapping
from sys import maxsize
from types import MappingProxyType

ERROR_RATE = 0.05
"""Of each class, where the user asks for no other."""
AT_SPECIFICITY = 0.9
"""At which the sensitivity of every label is given besides."""
READER_COLUMNS = "{label} [{reader}]"
"""Names of the columns of a label table that hold what single readers said."""
CHECKLIST_KEYS = ("claim2024", "tripod-ai", "stard-ai")
"""Reporting checklists that a run answers."""
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
INTERVAL_WIDTHS: Mapping[str, float] = MappingProxyType(
    {
        "roc_auc": 0.1,
        "observed_to_expected": 0.4,
        "slope": 0.4,
        "sensitivity": 0.1,
        "specificity": 0.1,
        "ppv": 0.1,
    }
)
"""Number of an external validation -> width of its 95% interval that a sample size is given for."""
