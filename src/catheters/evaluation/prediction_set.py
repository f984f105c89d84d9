"""Predictions beside the truth: what everything in this package is computed from."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import GroupKFold

from catheters.evaluation.caveats import Caveat
from catheters.labels import SELDOM_TOGETHER

Floats = npt.NDArray[np.float64]

NUM_FOLDS = 5
"""Folds of patients that are made where the predictions name none."""


@dataclass(frozen=True, kw_only=True)
class LabelPredictions:
    """Predictions of one label, of the m images of which it is known.

    Attributes:
        rows: (m,) these images.
        targets: (m,) uint8, 0 or 1.
        probabilities: (m,).
    """

    rows: npt.NDArray[np.intp]
    targets: npt.NDArray[np.uint8]
    probabilities: Floats

    @property
    def has_both(self) -> bool:
        """Whether there are positives and negatives."""
        return bool(0 < self.targets.sum() < len(self.targets))


@dataclass(frozen=True, kw_only=True)
class PredictionSet:
    """Predictions of n images and their true labels.

    Attributes:
        name: what predicted, for tables.
        labels: (K,) names.
        uids: (n,) image ids.
        patient_ids: (n,) patients.
        folds: (n,) the fold whose model, which had not seen the image, predicted it; None where that is not known.
        targets: (n, K) 0, 1 or NaN where it is unknown.
        probabilities: (n, K) in 0..1.
        exclusive: groups of labels that the model has a softmax over, so that their probabilities sum to 1 at most.
        caveats: what has to be known of them before a score is believed.
    """

    name: str
    labels: tuple[str, ...]
    uids: npt.NDArray[np.str_]
    patient_ids: npt.NDArray[np.str_]
    folds: npt.NDArray[np.int64] | None
    targets: Floats
    probabilities: Floats
    exclusive: tuple[tuple[str, ...], ...] = ()
    caveats: tuple[Caveat, ...] = ()

    def __post_init__(self) -> None:
        shape = (len(self.uids), len(self.labels))
        assert self.targets.shape == self.probabilities.shape == shape, "one row per image, one column per label"
        assert len(self.patient_ids) == len(self.uids)

    def __len__(self) -> int:
        return len(self.uids)

    def take(self, rows: npt.NDArray[np.generic]) -> "PredictionSet":
        """Some of the images, by position or by a mask."""
        return dataclasses.replace(
            self,
            uids=self.uids[rows],
            patient_ids=self.patient_ids[rows],
            folds=None if self.folds is None else self.folds[rows],
            targets=self.targets[rows],
            probabilities=self.probabilities[rows],
        )

    @property
    def is_known(self) -> npt.NDArray[np.bool_]:
        """(n, K) which labels are known of which images."""
        return ~np.isnan(self.targets)

    def of_label(self, k: int) -> LabelPredictions:
        """Those of one label, of the images of which it is known."""
        rows = np.flatnonzero(self.is_known[:, k])
        return LabelPredictions(
            rows=rows, targets=self.targets[rows, k].astype(np.uint8), probabilities=self.probabilities[rows, k]
        )

    def with_probabilities(self, probabilities: Floats, name: str | None = None) -> "PredictionSet":
        """The same images with other predictions."""
        return dataclasses.replace(self, probabilities=probabilities, name=name or self.name)


def mean_of_known(values: Floats, is_known: npt.NDArray[np.bool_]) -> Floats:
    """(K,) means of (n, K) numbers of the images of which a label is known; NaN where it is of none."""
    with np.errstate(invalid="ignore"):
        means: Floats = np.where(is_known, values, 0).sum(axis=0) / is_known.sum(axis=0)
    return means


def common_groups(exclusive: Sequence[tuple[tuple[str, ...], ...]]) -> tuple[tuple[str, ...], ...]:
    """The exclusive groups that all of several models have, in the first one's order."""
    return tuple(group for group in exclusive[0] if all(set(group) in map(set, others) for others in exclusive))


def presence_rule(exclusive: Sequence[Sequence[str]]) -> str:
    """How `probability_of_any` combines labels, for files: thresholds by another rule are on another scale."""
    rule = "sum of labels seldom together, else as if independent"
    others = sorted({", ".join(group) for group in exclusive} - {", ".join(group) for group in SELDOM_TOGETHER})
    return f"{rule}; sum of {'; of '.join(others)}" if others else rule


def probability_of_any(labels: Sequence[str], probabilities: Floats, exclusive: Sequence[Sequence[str]] = ()) -> Floats:
    """The probability that an image has one label at least.

    Labels that exclude each other (`exclusive`, `SELDOM_TOGETHER`) add up, to 1 at most: 0.5 and 0.4 are 0.9. All
    others, and these groups, count as independent: 1 - (1 - p1)(1 - p2)...

    Args:
        labels: (G,) names.
        probabilities: (n, G) in 0..1, or NaN.
        exclusive: groups of names, of which an image has one label at most.

    Returns:
        (n,).
    """
    groups: list[list[int]] = []
    grouped: set[int] = set()
    for together in (*exclusive, *SELDOM_TOGETHER, *([label] for label in labels)):
        group = [g for g, label in enumerate(labels) if label in together and g not in grouped]
        groups += [group] if group else []
        grouped.update(group)
    absent = [1 - np.minimum(probabilities[:, group].sum(axis=1), 1) for group in groups]
    return np.asarray(1 - np.prod(absent, axis=0))


def is_any(targets: Floats) -> Floats:
    """(n, G) labels -> (n,): 1 where one label is 1, else NaN where one is unknown, else 0."""
    found: Floats = np.where((targets == 1).any(axis=1), 1.0, np.where(np.isnan(targets).any(axis=1), np.nan, 0.0))
    return found


def device_type_presence(evaluated: PredictionSet, heads: Mapping[str, tuple[str, ...]]) -> PredictionSet:
    """Whether each device type is there at all: any label of its group.

    Its target is 1 where one label's is, 0 where all are known to be 0, else unknown. Its probability is that of one
    label at least, see `probability_of_any`. Devices that have a single label are left out: they are in the labels.

    Args:
        evaluated: the labels.
        heads: device type -> its labels; those that `evaluated` lacks are passed over.
    """
    column_of = {label: k for k, label in enumerate(evaluated.labels)}
    columns = {
        device: found
        for device, labels in heads.items()
        if len(found := [column_of[label] for label in labels if label in column_of]) > 1
    }
    num_images = len(evaluated)
    targets = [is_any(evaluated.targets[:, ks]) for ks in columns.values()]
    probabilities = [
        probability_of_any([evaluated.labels[k] for k in ks], evaluated.probabilities[:, ks], evaluated.exclusive)
        for ks in columns.values()
    ]
    return dataclasses.replace(
        evaluated,
        labels=tuple(columns),
        exclusive=(),
        targets=np.stack(targets, axis=1) if columns else np.empty((num_images, 0)),
        probabilities=np.stack(probabilities, axis=1) if columns else np.empty((num_images, 0)),
    )


def find_torn_patient(one: npt.NDArray[np.str_], other: npt.NDArray[np.str_]) -> tuple[int, int] | None:
    """The rows of two images that are one patient's by one of two sources and two patients' by the other.

    Args:
        one: (n,) patients.
        other: (n,) patients; other names for the same patients are no matter.
    """
    for together, apart in ((one, other), (other, one)):
        _, firsts, numbers = np.unique(together, return_index=True, return_inverse=True)
        differing = np.flatnonzero(apart != apart[firsts[numbers]])
        if len(differing):
            return int(firsts[numbers[differing[0]]]), int(differing[0])
    return None


def names_several_folds(evaluated: PredictionSet) -> bool:
    """Whether the predictions' own folds can be fitted on and judged by; else the patients are split."""
    return evaluated.folds is not None and len(np.unique(evaluated.folds)) > 1


def fitting_folds(evaluated: PredictionSet) -> npt.NDArray[np.int64]:
    """(n,) folds for what is fitted on all others and applied to one: thresholds, calibration, weights.

    They are the predictions' own where there are several, so that what is fitted on the other folds knows nothing of
    the model that predicted this one; else patients are split into 5, the same ones each time.
    """
    if evaluated.folds is not None and names_several_folds(evaluated):
        return evaluated.folds
    _, patients = np.unique(evaluated.patient_ids, return_inverse=True)
    num_patients = int(patients.max()) + 1
    folds = np.zeros(len(evaluated), dtype=np.int64)
    if num_patients == 1:
        return folds
    splits = GroupKFold(min(NUM_FOLDS, num_patients), shuffle=True, random_state=0).split(patients, groups=patients)
    for fold, (_, held_out) in enumerate(splits):
        folds[held_out] = fold
    return folds
