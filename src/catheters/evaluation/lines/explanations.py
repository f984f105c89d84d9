"""Whether heatmaps point at the tips that they are meant to explain, beside chance and beside a randomised model."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from catheters.evaluation.intervals import Estimate, estimate, subtract
from catheters.evaluation.lines.pointing_game import HOTTEST_SHARE
from catheters.evaluation.patients import Patients

Floats = npt.NDArray[np.float64]

OVERALL = "all device types"


@dataclass(frozen=True, kw_only=True)
class Hits:
    """What one kind of heatmap hits in n cases, each 0..1 as of `tip_hit`.

    Attributes:
        trained: (n,) of the model that predicted the image.
        randomised: (n,) of the same architecture with weights that have learnt nothing.
    """

    trained: Floats
    randomised: Floats


@dataclass(frozen=True, kw_only=True)
class PointingScore:
    """How often one kind of heatmap points at the tip of a device type.

    Attributes:
        method: the kind of heatmap, such as Grad-CAM.
        device_type: its name, or `OVERALL`.
        num_cases: images in which the device type is predicted positive and drawn; overall their sum.
        num_patients: whose images they are.
        hits: share of the cases whose tip lies in the hottest part.
        randomised: the same of the randomised model.
        difference: `hits` less `randomised`; the patients are paired.
        chance: the share that a heatmap hits which knows nothing.
    """

    method: str
    device_type: str
    num_cases: int
    num_patients: int
    hits: Estimate
    randomised: Estimate
    difference: Estimate
    chance: float

    @property
    def estimates(self) -> dict[str, Estimate]:
        """By the names that files have for them."""
        return {"hits": self.hits, "randomised": self.randomised, "difference": self.difference}


@dataclass(frozen=True, kw_only=True)
class Explanations:
    """How well heatmaps explain where a model sees a device type.

    Attributes:
        num_images: whose heatmaps were made.
        num_images_with_cases: that have a device type which is predicted positive and drawn.
        scores: of each kind of heatmap: its device types, then overall.
    """

    num_images: int
    num_images_with_cases: int
    scores: tuple[PointingScore, ...]

    def describe(self) -> dict[str, Any]:
        """As plain data, for `metrics.json`; see docs/reference/metrics-json.md."""
        return {
            "hottest_share": HOTTEST_SHARE,
            "num_images": self.num_images,
            "num_images_with_cases": self.num_images_with_cases,
            "scores": [dataclasses.asdict(score) for score in self.scores],
        }


def score_explanations(
    hits: Mapping[str, Hits],
    device_types: Sequence[str],
    type_of: npt.NDArray[np.intp],
    patient_ids: npt.NDArray[np.str_],
) -> tuple[PointingScore, ...]:
    """The shares of n cases that are hit, with intervals over patients.

    The comparison with a model that has learnt nothing is the model parameter randomisation test of Adebayo et al.,
    Sanity checks for saliency maps, NeurIPS 2018, section 3.1: a heatmap which is as good there shows what images have
    in common, such as edges, and not what the model has learnt.

    Args:
        hits: kind of heatmap -> what it hits.
        device_types: (T,) names.
        type_of: (n,) the device type of each case, 0..T - 1.
        patient_ids: (n,) whose image each one is.
    """
    parts = {name: type_of == number for number, name in enumerate(device_types)}
    parts[OVERALL] = np.ones(len(type_of), dtype=np.bool_)
    patients = Patients(patient_ids)
    return tuple(
        _score(method, of_method, name, is_in, patients)
        for method, of_method in hits.items()
        for name, is_in in parts.items()
    )


def _score(
    method: str, hits: Hits, device_type: str, is_in: npt.NDArray[np.bool_], patients: Patients
) -> PointingScore:
    trained, randomised = (
        patients.mean(np.where(is_in, of_model, np.nan)) for of_model in (hits.trained, hits.randomised)
    )
    return PointingScore(
        method=method,
        device_type=device_type,
        num_cases=int(is_in.sum()),
        num_patients=patients.num_patients_with(is_in),
        hits=estimate(trained),
        randomised=estimate(randomised),
        difference=estimate(subtract(randomised, trained)),
        chance=HOTTEST_SHARE,
    )
