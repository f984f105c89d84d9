"""Files of predictions: written, read back, refused where they are wrong; matched to labels by id."""

import json
from pathlib import Path

import numpy as np
import pytest

from catheters.csv_files import TableError
from catheters.evaluation.metrics import score_labels
from catheters.evaluation.predictions import read_predictions, write_predictions
from catheters.evaluation.summary import Targets, match_targets, write_metrics


def test_written_and_read_back(tmp_path: Path) -> None:
    file = tmp_path / "predictions.csv"
    probabilities = np.array([[0.1, 1.0], [1e-9, 0.123456789]], dtype=np.float32)
    write_predictions(
        file,
        "id",
        np.array(["007", "b"]),
        np.array(["p", "q"]),
        np.array([1, 0], dtype=np.int8),
        probabilities,
        ("x", "y"),
    )
    assert file.read_text().splitlines()[0] == "id,patient,fold,x,y"
    uid_column, frame, labels = read_predictions(file)
    assert (uid_column, labels) == ("id", ("x", "y"))
    assert frame["id"].tolist() == ["007", "b"]
    assert (frame[["x", "y"]].to_numpy(dtype=np.float32) == probabilities).all()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty; a CSV with a header line is expected"),
        ("id,x\n", "no rows"),
        ("id,patient,fold\n1,p,0\n", "no column of probabilities"),
        ("id,x\n1,0.5\n1,0.5\n", "duplicate ids"),
        ("id,x\n1,0.5\n2,1.5\n", "2, column 'x': '1.5' is not a probability in 0..1"),
        ("id,x\n1,nan\n", "1, column 'x': 'nan' is not a probability"),
        ("id,x\n1,\n", "is not a probability"),
        ("id,x\n1,high\n", "'high' is not a probability"),
    ],
)
def test_wrong_predictions(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "p.csv").write_text(text)
    with pytest.raises(TableError, match=r"p\.csv") as error:
        read_predictions(tmp_path / "p.csv")
    assert message in str(error.value)


def test_other_id_column(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("x,uid\n0.5,1\n")
    assert read_predictions(tmp_path / "p.csv", "uid")[2] == ("x",)
    with pytest.raises(TableError, match="'uidd' is not a column; did you mean 'uid'"):
        read_predictions(tmp_path / "p.csv", "uidd")


TARGETS = Targets(source="labels.csv", uids=np.array(["a", "b", "c"]), labels=np.array([[1], [0], [1]], dtype=np.uint8))


def test_rows_are_matched_by_id() -> None:
    assert match_targets(TARGETS, ["c", "b"], Path("p.csv")).tolist() == [[1], [0]]
    with pytest.raises(TableError, match=r"p\.csv: 1 of 2 ids have no row in labels\.csv, z for one"):
        match_targets(TARGETS, ["a", "z"], Path("p.csv"))


def test_metrics_json(tmp_path: Path) -> None:
    metrics = score_labels(np.array([[1, 0], [0, 0]], dtype=np.uint8), np.array([[0.9, 0.1], [0.2, 0.1]]), ["x", "y"])
    write_metrics(tmp_path / "metrics.json", metrics, Path("p.csv"), TARGETS)
    content = json.loads((tmp_path / "metrics.json").read_text())
    assert content["macro_roc_auc"] == 1.0
    assert content["num_images"] == 2
    assert content["num_images_in_label_table"] == 3
    assert content["per_label"][1] == {
        "label": "y", "num_positives": 0, "num_images": 2, "roc_auc": None, "average_precision": None,
    }  # fmt: skip
