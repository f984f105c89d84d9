"""Single images that deserve a second look: the most confident errors, and labels that are to be read again."""

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from cleanlab.multilabel_classification.filter import find_multilabel_issues_per_class

from catheters.evaluation.operating_points import OperatingPoint
from catheters.evaluation.prediction_set import PredictionSet, mean_of_known
from catheters.io.files import write_whole

NUM_HARDEST = 5
NEARLY_WRONG = 0.05
"""A label that its probability gives less of being right is to be read again."""
READ_AGAIN_FILE = "read_again.csv"

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
        if np.isnan(point.threshold):
            continue
        of_label = evaluated.of_label(k)
        targets, probabilities = of_label.targets, of_label.probabilities
        thresholds = [point.fold_thresholds[fold] for fold in folds[of_label.rows].tolist()]
        is_predicted = probabilities >= np.array(thresholds)
        for is_wrong, from_worst in (
            ((targets == 1) & ~is_predicted, np.argsort(probabilities)),
            ((targets == 0) & is_predicted, np.argsort(-probabilities)),
        ):
            worst = of_label.rows[from_worst[is_wrong[from_worst]][:NUM_HARDEST]]
            cases += [_case(evaluated, row, k) for row in worst.tolist()]
    return cases


def is_informative(evaluated: PredictionSet) -> npt.NDArray[np.bool_]:
    """(K,) of which labels the probabilities tell more than their prevalence does, by the Brier score."""
    targets, is_known = evaluated.targets, evaluated.is_known
    squared_errors = mean_of_known((evaluated.probabilities - targets) ** 2, is_known)
    variances = mean_of_known((targets - mean_of_known(targets, is_known)) ** 2, is_known)
    informative: npt.NDArray[np.bool_] = squared_errors < variances  # NaN is not
    return informative


def labels_to_read_again(evaluated: PredictionSet) -> list[Case]:
    """Labels that confident learning holds for wrong, the surest first: for a person to read again.

    Two good models name many different ones (of 513 and 726 on the same images 175 were in common): what is named is
    where a model contradicts the table, not where the table is wrong. `SharedCases` counts what several models name.

    Northcutt, Jiang and Chuang, Confident learning: estimating uncertainty in dataset labels, JAIR 70 (2021), by the
    cleanlab library, each label against all others: what both of its rules of pruning pick, by class and by noise rate,
    and what the probability gives less than 1 in 20 of being right. Labels of which the probabilities tell
    nothing (see `is_informative`) are left out.

    Args:
        evaluated: with calibrated probabilities of models that had not seen the images.
    """
    cases: list[Case] = []
    with warnings.catch_warnings():
        # It says that a class has too few examples for all of its rules, which is no news to who sees their number.
        warnings.filterwarnings("ignore", category=UserWarning, module="cleanlab")
        for k in np.flatnonzero(is_informative(evaluated)).tolist():
            of_label = evaluated.of_label(k)
            picked, _, _ = find_multilabel_issues_per_class(
                [[0] if target else [] for target in of_label.targets.tolist()],
                of_label.probabilities[:, None],
                return_indices_ranked_by="self_confidence",
                filter_by="both",
                n_jobs=1,
            )
            cases += [_case(evaluated, int(of_label.rows[row]), k) for row in picked[0]]
    cases = [case for case in cases if case.confidence < NEARLY_WRONG]
    return sorted(cases, key=lambda case: case.confidence)


@dataclass(frozen=True, kw_only=True)
class SharedCases:
    """How many of several models of the same images name the same labels.

    Attributes:
        names: (M,) the models.
        labels: (K,) of all of them.
        lists: (M,) what each of them names.
    """

    names: tuple[str, ...]
    labels: tuple[str, ...]
    lists: tuple[tuple[Case, ...], ...]

    def num_models(self) -> Mapping[tuple[int, str], int]:
        """Row and label -> how many models name them."""
        return Counter((case.row, case.label) for cases in self.lists for case in cases)

    def count(self, label: str | None = None) -> tuple[list[int], int, int]:
        """How many each model names, how many all do, and how many any does; None: of all labels together."""
        numbers = {key: number for key, number in self.num_models().items() if label in (None, key[1])}
        of_models = [sum(label in (None, case.label) for case in cases) for cases in self.lists]
        return of_models, sum(number == len(self.lists) for number in numbers.values()), len(numbers)


def write_cases(
    file: Path, evaluated: PredictionSet, cases: list[Case], uid_column: str, shared: SharedCases | None = None
) -> None:
    """Write one row per image: id, patient, label, what the table says, the probability. The file is whole or
    absent.

    Args:
        file: the CSV.
        evaluated: the predictions that they are of.
        cases: to write.
        uid_column: name of the id column.
        shared: several models' cases; a column says how many of these models name each one.
    """
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
    if shared is not None:
        num_models = shared.num_models()
        frame["named_by_models"] = [num_models[case.row, case.label] for case in cases]
    write_whole(file, lambda part: frame.to_csv(part, index=False))


def _case(evaluated: PredictionSet, row: int, k: int) -> Case:
    return Case(
        row=row,
        label=evaluated.labels[k],
        target=int(evaluated.targets[row, k]),
        probability=float(evaluated.probabilities[row, k]),
    )
