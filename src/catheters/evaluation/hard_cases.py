"""Single images that deserve a second look: the most confident errors, and labels that are probably wrong."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from cleanlab.multilabel_classification.filter import find_multilabel_issues_per_class

from catheters.evaluation.operating_points import OperatingPoint
from catheters.evaluation.prediction_set import PredictionSet
from catheters.io.files import write_whole

NUM_HARDEST = 5
NEARLY_WRONG = 0.05
"""A label that its probability gives less of being right is a probable error."""

Error = Literal["missed", "false alarm"]


@dataclass(frozen=True, kw_only=True)
class Case:
    """A label of an image.

    Attributes:
        row: of the image.
        label: the label's name.
        target: 0 or 1, as the label table has it.
        probability: of the label.
    """

    row: int
    label: str
    target: int
    probability: float

    @property
    def confidence(self) -> float:
        """The probability of what the table says."""
        return self.probability if self.target else 1 - self.probability

    @property
    def error(self) -> Error:
        """What it is, if the table is right and the probability wrong."""
        return "missed" if self.target == 1 else "false alarm"


def hardest_cases(
    evaluated: PredictionSet, folds: npt.NDArray[np.int64], points: Sequence[OperatingPoint]
) -> list[Case]:
    """For each label the most confident errors at its operating point: 5 missed and 5 false alarms at most.

    Args:
        evaluated: n images.
        folds: (n,) by which the points' thresholds are chosen.
        points: of the labels.
    """
    cases = []
    for k, point in enumerate(points):
        targets, probabilities = evaluated.targets[:, k], evaluated.probabilities[:, k]
        is_predicted = probabilities >= np.array([point.fold_thresholds[fold] for fold in folds.tolist()])
        for is_wrong, from_worst in (
            ((targets == 1) & ~is_predicted, np.argsort(probabilities)),
            ((targets == 0) & is_predicted, np.argsort(-probabilities)),
        ):
            if not np.isnan(point.threshold):
                cases += [_case(evaluated, int(row), k) for row in from_worst[is_wrong[from_worst]][:NUM_HARDEST]]
    return cases


def is_known(evaluated: PredictionSet) -> npt.NDArray[np.bool_]:
    """(K,) which labels the probabilities tell more about than their prevalence does, by the Brier score."""
    squared_errors = ((evaluated.probabilities - evaluated.targets) ** 2).mean(axis=0)
    known: npt.NDArray[np.bool_] = squared_errors < evaluated.targets.var(axis=0)
    return known


def probable_label_errors(evaluated: PredictionSet) -> list[Case]:
    """Labels that confident learning holds for wrong, the surest first.

    Northcutt, Jiang and Chuang, Confident learning: estimating uncertainty in dataset labels, JAIR 70 (2021), by the
    cleanlab library, each label against all others: what both of its rules of pruning pick, by class and by noise rate,
    and what the probability gives less than 1 in 20 of being right. Labels that are not known (see `is_known`) are left
    out.

    Args:
        evaluated: with calibrated probabilities of models that had not seen the images.
    """
    known = np.flatnonzero(is_known(evaluated))
    if len(known) == 0:
        return []
    with warnings.catch_warnings():
        # It says that a class has too few examples for all of its rules, which is no news to who sees their number.
        warnings.filterwarnings("ignore", category=UserWarning, module="cleanlab")
        picked, _, _ = find_multilabel_issues_per_class(
            [np.flatnonzero(row).tolist() for row in evaluated.targets[:, known]],
            evaluated.probabilities[:, known],
            return_indices_ranked_by="self_confidence",
            filter_by="both",
            n_jobs=1,
        )
    cases = [_case(evaluated, int(row), k) for k, rows in zip(known.tolist(), picked, strict=True) for row in rows]
    cases = [case for case in cases if case.confidence < NEARLY_WRONG]
    return sorted(cases, key=lambda case: case.confidence)


def write_cases(file: Path, evaluated: PredictionSet, cases: list[Case], uid_column: str) -> None:
    """Write one row per image: id, patient, label, what the table says, the probability. The file is whole or
    absent."""
    frame = pd.DataFrame(
        {
            uid_column: [evaluated.uids[case.row] for case in cases],
            "patient": [evaluated.patient_ids[case.row] for case in cases],
            "label": [case.label for case in cases],
            "in_table": [case.target for case in cases],
            "probability": [case.probability for case in cases],
            "error": [case.error for case in cases],
        }
    )
    write_whole(file, lambda part: frame.to_csv(part, index=False))


def _case(evaluated: PredictionSet, row: int, k: int) -> Case:
    return Case(
        row=row,
        label=evaluated.labels[k],
        target=int(evaluated.targets[row, k]),
        probability=float(evaluated.probabilities[row, k]),
    )
