"""What a synthetic hospital has that another one has not: how often which catheters, how its X-rays look.

A model that was trained on the first one can be validated on the second, whose truth is known as well.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

States = Mapping[tuple[str, ...], float]
"""Positions of all catheters of a device type in an image -> share of the images."""


@dataclass(frozen=True, kw_only=True)
class Hospital:
    """Where images are taken.

    Attributes:
        states: device type -> how often an image has which of its catheters.
        gamma: of the tone curve, least and most.
        noise: standard deviation of the grain, of a grey scale of 0..1, least and most.
        first_patient: number of its first patient, so that hospitals share nobody.
    """

    states: Mapping[str, States]
    gamma: tuple[float, float]
    noise: tuple[float, float]
    first_patient: int


FIRST = Hospital(
    # RANZCR's order of frequency, but no label so rare that a fold of a small sample could miss it.
    states={
        "ETT": {(): 0.53, ("Abnormal",): 0.08, ("Borderline",): 0.11, ("Normal",): 0.28},
        "NGT": {
            (): 0.50,
            ("Abnormal",): 0.075,
            ("Borderline",): 0.075,
            ("Incompletely Imaged",): 0.14,
            ("Normal",): 0.19,
            ("Normal", "Abnormal"): 0.01,
            ("Normal", "Incompletely Imaged"): 0.01,
        },
        "CVC": {
            (): 0.13,
            ("Normal",): 0.45,
            ("Borderline",): 0.16,
            ("Abnormal",): 0.09,
            ("Normal", "Borderline"): 0.07,
            ("Normal", "Abnormal"): 0.04,
            ("Borderline", "Abnormal"): 0.02,
            ("Normal", "Normal"): 0.03,
            ("Normal", "Borderline", "Abnormal"): 0.01,
        },
        "Swan": {(): 0.91, ("Present",): 0.09},
    },
    gamma=(0.85, 1.25),
    noise=(0.006, 0.018),
    first_patient=0,
)
SECOND = Hospital(
    # A ward with fewer ventilated patients and more feeding tubes, whose lines lie better.
    states={
        "ETT": {(): 0.72, ("Abnormal",): 0.04, ("Borderline",): 0.09, ("Normal",): 0.15},
        "NGT": {
            (): 0.28,
            ("Abnormal",): 0.10,
            ("Borderline",): 0.14,
            ("Incompletely Imaged",): 0.10,
            ("Normal",): 0.36,
            ("Normal", "Abnormal"): 0.02,
        },
        "CVC": {
            (): 0.34,
            ("Normal",): 0.46,
            ("Borderline",): 0.11,
            ("Abnormal",): 0.05,
            ("Normal", "Borderline"): 0.04,
        },
        "Swan": {(): 0.80, ("Present",): 0.20},
    },
    gamma=(1.35, 1.75),
    noise=(0.020, 0.045),
    first_patient=250_000,
)
HOSPITALS: Mapping[str, Hospital] = MappingProxyType({"first": FIRST, "second": SECOND})
"""Name -> hospital."""
