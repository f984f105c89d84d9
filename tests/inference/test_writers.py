"""What predict.py writes, with more labels than a frame takes one after another without a warning."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from catheters.evaluation.predictions import read_predictions
from catheters.evaluation.predictions import write_predictions as write_out_of_fold
from catheters.inference.batch_prediction import Predictions
from catheters.inference.inputs import Images
from catheters.inference.interpretation import Findings
from catheters.inference.writers import write_predictions, write_submission

NUM_LABELS = 150
LABELS = tuple(f"label {number}" for number in range(NUM_LABELS))
UIDS = ("a", "b", "c")


@pytest.fixture
def probabilities() -> np.ndarray:
    made = np.random.default_rng(0).random((3, NUM_LABELS))
    made[1] = np.nan  # could not be read
    return made


@pytest.fixture
def findings(probabilities: np.ndarray) -> Findings:
    return Findings(
        labels=LABELS,
        heads={},
        rule="chosen by youden",
        probabilities=probabilities,
        uncalibrated=probabilities / 2,
        thresholds=np.full(NUM_LABELS, 0.5),
        is_predicted_positive=probabilities >= 0.5,
        presence={},
        presence_thresholds={},
        is_deferred=np.zeros(probabilities.shape, dtype=np.bool_),
        spread=None,
    )


@pytest.fixture
def images() -> Images:
    return Images(uids=UIDS, paths=tuple(map(Path, UIDS)))


@pytest.fixture
def predictions(probabilities: np.ndarray) -> Predictions:
    return Predictions(
        probabilities=probabilities[np.newaxis].astype(np.float32),
        reasons=("", "damaged PNG", ""),
        quality_flags=((), (), ("blank", "small")),
        distances=np.full((1, 3), np.nan),
        image_hashes=(b"", b"", b""),
    )


def test_predictions_of_many_labels(
    tmp_path: Path, images: Images, predictions: Predictions, findings: Findings, probabilities: np.ndarray
) -> None:
    write_predictions(tmp_path / "p.csv", "id", images, predictions, findings)
    frame = pd.read_csv(tmp_path / "p.csv", keep_default_na=False, na_values=dict.fromkeys(LABELS, ""))
    assert list(frame) == ["id", *LABELS, "quality_flags", "reason"]
    assert frame["id"].tolist() == list(UIDS)
    assert np.array_equal(frame[list(LABELS)].to_numpy(), probabilities, equal_nan=True)
    assert frame["quality_flags"].tolist() == ["", "", "blank; small"]
    assert frame["reason"].tolist() == ["", "damaged PNG", ""]


def test_a_submission_of_many_labels(
    tmp_path: Path, images: Images, predictions: Predictions, findings: Findings, probabilities: np.ndarray
) -> None:
    """Rows and columns are the sample's; what could not be read gets the mean."""
    columns = LABELS[::-1]
    sample = pd.DataFrame([["c", *"0" * NUM_LABELS], ["b", *"0" * NUM_LABELS]], columns=["uid", *columns])
    write_submission(tmp_path / "s.csv", sample, images, findings)
    frame = pd.read_csv(tmp_path / "s.csv")
    assert list(frame) == ["uid", *columns]
    assert frame["uid"].tolist() == ["c", "b"]
    expected = probabilities[:, ::-1] / 2
    assert frame[list(columns)].to_numpy() == pytest.approx(np.array([expected[2], (expected[0] + expected[2]) / 2]))


def test_out_of_fold_predictions_of_many_labels(tmp_path: Path, probabilities: np.ndarray) -> None:
    uids, whole = np.array(["a", "c"]), probabilities[[0, 2]]
    write_out_of_fold(tmp_path / "p.csv", "id", uids, uids, np.array([0, 1], dtype=np.int8), whole, LABELS)
    uid_column, frame, labels = read_predictions(tmp_path / "p.csv")
    assert (uid_column, labels) == ("id", LABELS)
    assert frame[list(LABELS)].to_numpy() == pytest.approx(whole)
    assert frame["fold"].tolist() == ["0", "1"]
