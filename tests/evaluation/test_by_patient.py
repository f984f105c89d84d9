"""One vote per patient: by hand, and against scikit-learn on a pandas table."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from catheters.evaluation.by_patient import join_images, score_patients
from catheters.evaluation.operating_points import parse_rule
from catheters.evaluation.prediction_set import device_type_presence
from tests.evaluation.conftest import correlated, make_predictions

NAN = float("nan")


def test_patients_by_hand() -> None:
    """Two labels; patient b has one that is unknown in an image and there in another one."""
    joined = join_images(
        make_predictions(
            [[0, 0], [1, 0], [NAN, NAN], [1, 0], [0, NAN]],
            [[0.1, 0.2], [0.3, 0.9], [0.8, 0.1], [0.4, 0.5], [0.6, 0.7]],
            patients=["a", "a", "b", "b", "c"],
            folds=[1, 1, 0, 0, 2],
        )
    )
    assert joined.patient_ids.tolist() == joined.uids.tolist() == ["a", "b", "c"]
    assert joined.targets == pytest.approx(np.array([[1, 0], [1, NAN], [0, NAN]]), nan_ok=True)
    assert joined.probabilities.tolist() == [[0.3, 0.9], [0.8, 0.5], [0.6, 0.7]]
    assert joined.folds is not None and joined.folds.tolist() == [1, 0, 2]


def test_a_patient_in_two_folds_is_of_none() -> None:
    joined = join_images(make_predictions([[0], [1]], [[0.1], [0.3]], patients=["a", "a"], folds=[0, 1]))
    assert joined.folds is None


def test_scores_are_those_of_the_highest_image(rng: np.random.Generator) -> None:
    targets, scores, patients = correlated(rng, 120, 3, 1.0)
    probabilities = 1 / (1 + np.exp(-scores))
    evaluated = make_predictions(targets[:, None], probabilities[:, None], patients.tolist(), labels=["x"])
    results = score_patients(evaluated, device_type_presence(evaluated, {}), parse_rule("sensitivity=0.9"))
    of_patients = pd.DataFrame({"t": targets, "p": probabilities, "who": patients}).groupby("who").max()
    area = results.scores.estimate("roc_auc", "x")
    assert area.value == pytest.approx(roc_auc_score(of_patients["t"], of_patients["p"]))
    assert area.low < area.value < area.high
    assert (results.scores.num_images, results.scores.num_positives) == (120, [int(of_patients["t"].sum())])
    point = results.points[0]
    assert sum(point.confusion) == 120  # each patient once
    assert point.sensitivity.value == pytest.approx(0.9, abs=0.1)
    on_all = (of_patients["p"] >= point.threshold)[of_patients["t"] == 1].mean()
    assert on_all >= 0.9  # chosen on all patients


def test_patients_of_one_image_are_their_images(rng: np.random.Generator) -> None:
    targets = rng.integers(0, 2, (60, 2))
    evaluated = make_predictions(targets, rng.random((60, 2)), patients=[f"{number:02}" for number in range(60)])
    joined = join_images(evaluated)
    assert (joined.targets == evaluated.targets).all()
    assert (joined.probabilities == evaluated.probabilities).all()
