"""Rules: which label a measured length stands for, such as 30 to 70 mm above the carina for a normal position."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from catheters.measurements import Measurement

Band = tuple[float | None, float | None, str]
"""From a length on, up to below another, and the label; None: no end."""

UNITS: dict[str, Callable[[Measurement], float | None]] = {
    "mm": lambda measurement: measurement.mm,
    "share of height": lambda measurement: measurement.share_of_height,
}
"""What the numbers of a rule are in, and how a measurement has them. A share is of the image's height, in 0..1."""


@dataclass(frozen=True)
class Rule:
    """Which label which length of one measurement stands for. ValueError, whose message begins with what is wrong, for
    bands that leave lengths out or hold one twice.

    Attributes:
        unit: a key of `UNITS`.
        bands: in order, each beginning where the one before it ends. A length that is equal to an edge belongs to the
            band that begins there.
    """

    unit: str
    bands: tuple[Band, ...]

    def __post_init__(self) -> None:
        assert self.unit in UNITS and self.bands
        for low, high, label in self.bands:
            if _low(low) >= _high(high):
                raise ValueError(f"the band {_shown((low, high, label))} ends before it begins")
        for one, other in pairwise(self.bands):
            end, begin = _high(one[1]), _low(other[0])
            if begin > end:
                raise ValueError(f"no band holds {end:g} to {begin:g}, between {_shown(one)} and {_shown(other)}")
            if _high(other[1]) <= _low(one[0]):
                raise ValueError(f"the bands {_shown(one)} and {_shown(other)} stand out of order")
            if begin < end:
                overlap = f"{max(begin, _low(one[0])):g} to {min(end, _high(other[1])):g}"
                raise ValueError(f"{overlap} is in two bands, {_shown(one)} and {_shown(other)}")

    @property
    def begin(self) -> float:
        """The least length that it has a label for; minus infinity where there is no least."""
        return _low(self.bands[0][0])

    @property
    def end(self) -> float:
        """The length from which on it has none; infinity where it has one for all."""
        return _high(self.bands[-1][1])

    def judge(self, measurement: Measurement) -> tuple[str | None, str]:
        """The label of a measurement, and why it has none; the latter is empty where it has one."""
        length = UNITS[self.unit](measurement)
        if length is None:
            return None, f"the rule is in {self.unit}, so it gives no label"
        for _, high, label in self.bands:
            if length < _high(high):
                return label, ""
        raise AssertionError("settings check that the bands hold every length")


def _low(edge: float | None) -> float:
    return -math.inf if edge is None else edge


def _high(edge: float | None) -> float:
    return math.inf if edge is None else edge


def _shown(band: Band) -> str:
    """As in a file."""
    return f"[{_low(band[0]):g}, {_high(band[1]):g}, {band[2]!r}]"
