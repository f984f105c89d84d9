"""The worst errors first; labels that were exchanged are found."""

from pathlib import Path

import numpy as np
import pandas as pd

from catheters.evaluation.hard_cases import Case, SharedCases, hardest_cases, labels_to_read_again, write_cases
from catheters.evaluation.operating_points import judge, parse_rule
from catheters.evaluation.patients import Patients
from catheters.evaluation.prediction_set import PredictionSet, fitting_folds
from catheters.evaluation.report.tables import read_again_table
from tests.evaluation.conftest import make_predictions


def errors_of(evaluated: PredictionSet) -> list[Case]:
    folds = fitting_folds(evaluated)
    points = judge(evaluated, folds, parse_rule("youden"), Patients(evaluated.patient_ids), {})
    return hardest_cases(evaluated, folds, points)


def test_hardest_by_hand() -> None:
    """Fold 0 is judged by fold 1's threshold, .6, and fold 1 by fold 0's, .5: what is on the right side is no error."""
    evaluated = make_predictions(
        [[1], [0], [1], [0], [1], [0], [0], [1]],
        [[0.5], [0.4], [0.7], [0.3], [0.6], [0.55], [0.2], [0.9]],
        folds=[0, 0, 0, 0, 1, 1, 1, 1],
        labels=["tube"],
    )
    assert [(case.row, case.error, case.probability) for case in errors_of(evaluated)] == [
        (0, "missed", 0.5),
        (5, "false alarm", 0.55),
    ]


def test_at_most_five_of_each_the_worst_first(rng: np.random.Generator) -> None:
    targets = (rng.random((300, 1)) < 0.5).astype(np.uint8)
    cases = errors_of(make_predictions(targets, rng.random((300, 1))))
    missed, alarms = (
        [case.probability for case in cases if case.error == error] for error in ("missed", "false alarm")
    )
    assert len(missed) == len(alarms) == 5
    assert missed == sorted(missed) and missed[0] < 0.1
    assert alarms == sorted(alarms, reverse=True) and alarms[0] > 0.9


def test_exchanged_labels_are_found(rng: np.random.Generator) -> None:
    """Of 2,000 images with a good model, 20 labels are exchanged: most are found, few others are."""
    right = (rng.random((2000, 2)) < 0.3).astype(np.uint8)
    probabilities = 1 / (1 + np.exp(-(8.0 * right - 4 + rng.normal(size=right.shape))))
    targets = right.copy()
    exchanged = rng.choice(2000, 20, replace=False)
    targets[exchanged, 0] = 1 - targets[exchanged, 0]
    found = labels_to_read_again(make_predictions(targets, probabilities))
    rows = {case.row for case in found if case.label == "label 0"}
    assert len(rows & set(exchanged.tolist())) >= 16
    assert len(found) <= 24
    confidences = [case.confidence for case in found]
    assert confidences == sorted(confidences)
    assert confidences[-1] < 0.05


def test_nothing_to_find() -> None:
    assert labels_to_read_again(make_predictions([[0], [0]], [[0.2], [0.7]])) == []


def test_a_model_that_knows_nothing_finds_nothing(rng: np.random.Generator) -> None:
    """Its .97 for every image would call the images without the label wrong."""
    targets = (rng.random((400, 2)) < 0.5).astype(np.uint8)
    sure = np.where(targets == 1, 0.99, 0.01)
    sure[:3, 1] = 1 - sure[:3, 1]
    sure[:, 0] = 0.97
    assert {case.label for case in labels_to_read_again(make_predictions(targets, sure))} == {"label 1"}


def test_few_images_are_no_reason_to_warn() -> None:
    """Warnings are errors in these tests."""
    assert labels_to_read_again(make_predictions([[1], [0], [0]], [[0.9], [0.1], [0.2]])) == []


def test_the_list_is_a_csv(tmp_path: Path) -> None:
    evaluated = make_predictions([[1], [0]], [[0.2], [0.9]], patients=["p", "q"], labels=["tube"])
    cases = [Case(row=row, label="tube", target=1 - row, probability=(0.2, 0.9)[row]) for row in (0, 1)]
    write_cases(tmp_path / "cases.csv", evaluated, cases, "id")
    frame = pd.read_csv(tmp_path / "cases.csv")
    assert frame.to_dict("list") == {
        "id": [0, 1],
        "patient": ["p", "q"],
        "label": ["tube", "tube"],
        "in_table": [1, 0],
        "probability": [0.2, 0.9],
        "error": ["missed", "false alarm"],
    }
    write_cases(tmp_path / "cases.csv", evaluated, [], "id")
    assert (tmp_path / "cases.csv").read_text() == "id,patient,label,in_table,probability,error\n"


def test_what_several_models_name(tmp_path: Path) -> None:
    """By hand: the first names 3, the second 2, and both one of these."""

    def case(row: int, label: str) -> Case:
        return Case(row=row, label=label, target=1, probability=0.01)

    first, second = (case(0, "a"), case(1, "a"), case(1, "b")), (case(1, "a"), case(2, "b"))
    shared = SharedCases(names=("one", "two"), labels=("a", "b"), lists=(first, second))
    assert shared.count("a") == ([2, 1], 1, 2)
    assert shared.count("b") == ([1, 1], 0, 2)
    assert shared.count() == ([3, 2], 1, 4)
    lines = [line.split() for line in read_again_table(shared).splitlines()]
    assert lines[1:] == [["a", "2", "1", "1", "2"], ["b", "1", "1", "0", "2"], ["all", "labels", "3", "2", "1", "4"]]
    evaluated = make_predictions([[1, 1]] * 3, [[0.01, 0.01]] * 3, labels=["a", "b"])
    write_cases(tmp_path / "cases.csv", evaluated, list(second), "id", shared)
    assert pd.read_csv(tmp_path / "cases.csv")["named_by_models"].tolist() == [2, 1]
