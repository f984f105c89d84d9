"""The worst errors first; labels that were exchanged are found."""

from pathlib import Path

import numpy as np
import pandas as pd

from catheters.evaluation.cases import hardest_cases, probable_label_errors, write_cases
from tests.evaluation.conftest import make_evaluated


def test_hardest_by_hand() -> None:
    evaluated = make_evaluated([[1], [0], [1], [0], [0]], [[0.2], [0.9], [0.1], [0.3], [0.5]], labels=["tube"])
    cases = hardest_cases(evaluated)
    assert [(case.row, case.error, case.probability) for case in cases] == [
        (2, "missed", 0.1),
        (0, "missed", 0.2),
        (1, "false alarm", 0.9),
        (4, "false alarm", 0.5),
        (3, "false alarm", 0.3),
    ]


def test_exchanged_labels_are_found(rng: np.random.Generator) -> None:
    """Of 2,000 images with a good model, 20 labels are exchanged: most are found, few others are."""
    right = (rng.random((2000, 2)) < 0.3).astype(np.uint8)
    probabilities = 1 / (1 + np.exp(-(8.0 * right - 4 + rng.normal(size=right.shape))))
    targets = right.copy()
    exchanged = rng.choice(2000, 20, replace=False)
    targets[exchanged, 0] = 1 - targets[exchanged, 0]
    found = probable_label_errors(make_evaluated(targets, probabilities))
    rows = {case.row for case in found if case.label == "label 0"}
    assert len(rows & set(exchanged.tolist())) >= 16
    assert len(found) <= 24
    confidences = [case.confidence for case in found]
    assert confidences == sorted(confidences)
    assert confidences[-1] < 0.05


def test_nothing_to_find() -> None:
    assert probable_label_errors(make_evaluated([[0], [0]], [[0.2], [0.7]])) == []


def test_the_list_is_a_csv(tmp_path: Path) -> None:
    evaluated = make_evaluated([[1], [0]], [[0.2], [0.9]], patients=["p", "q"], labels=["tube"])
    write_cases(tmp_path / "cases.csv", evaluated, hardest_cases(evaluated), "id")
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
