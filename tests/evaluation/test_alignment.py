"""Models on the same images: put in one order, refused where they are not alike."""

import numpy as np
import pytest

from catheters.errors import UserError
from catheters.evaluation.alignment import align_predictions
from catheters.evaluation.prediction_set import PredictionSet
from tests.evaluation.conftest import make_predictions


def test_rows_and_columns_are_matched() -> None:
    first = make_predictions([[1, 0], [0, 1]], [[0.1, 0.2], [0.3, 0.4]], labels=["x", "y"], name="first")
    second = PredictionSet(
        name="second",
        labels=("y", "x"),
        uids=np.array(["1", "0"]),
        patient_ids=np.array(["1", "0"]),
        folds=None,
        targets=np.array([[1, 0], [0, 1]], dtype=np.uint8),
        probabilities=np.array([[0.8, 0.7], [0.6, 0.5]]),
    )
    _, matched = align_predictions([first, second])
    assert (matched.name, matched.labels) == ("second", ("x", "y"))
    assert matched.probabilities.tolist() == [[0.5, 0.6], [0.7, 0.8]]


def test_what_is_not_alike_is_refused() -> None:
    first = make_predictions([[1], [0]], [[0.1], [0.2]], labels=["x"], name="first")
    cases = {
        "second predicts other labels than first: only one of them has x, z": make_predictions(
            [[1], [0]], [[0.1], [0.2]], labels=["z"], name="second"
        ),
        "second predicts other images than first: 0 are missing and 1 are extra, 2 for one": make_predictions(
            [[1], [0], [0]], [[0.1], [0.2], [0.3]], labels=["x"], name="second"
        ),
        "second has other true labels than first, of 1 for one": make_predictions(
            [[1], [1]], [[0.1], [0.2]], labels=["x"], name="second"
        ),
    }
    for message, second in cases.items():
        with pytest.raises(UserError, match=message):
            align_predictions([first, second])


def test_patients_are_shared() -> None:
    """By whatever name; unless a source knows none."""

    def member(name: str, patients: list[str] | None) -> PredictionSet:
        return make_predictions([[1], [0], [1]], [[0.1], [0.2], [0.3]], patients=patients, name=name)

    unknown, one, same = member("first", None), member("second", ["p", "q", "p"]), member("third", ["1", "2", "1"])
    assert {tuple(alike.patient_ids) for alike in align_predictions([unknown, one, same])} == {("p", "q", "p")}
    assert align_predictions([unknown, unknown])[1].patient_ids.tolist() == ["0", "1", "2"]
    with pytest.raises(UserError, match="other has other patients than second: 0 and 2 are of one"):
        align_predictions([unknown, one, member("other", ["1", "1", "2"])])


def test_members_keep_their_folds() -> None:
    first = make_predictions([[1], [0]], [[0.1], [0.2]], folds=[0, 1])
    second = make_predictions([[1], [0]], [[0.1], [0.2]], folds=[1, 0])
    assert [member.folds.tolist() for member in align_predictions([first, second]) if member.folds is not None] == [
        [0, 1],
        [1, 0],
    ]
