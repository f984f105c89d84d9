"""Files of predictions: written, read back, refused where they are wrong."""

from pathlib import Path

import numpy as np
import pytest

from catheters.evaluation.predictions import read_predictions, write_predictions
from catheters.io.csv_files import TableError


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
        ("id,x\n1,\n", "id 1, column 'x': nothing is not a probability"),
        ("id,x\n1,95\n2,3\n", "are they in per cent? then divide them by 100"),
        (",id,x\n0,1,0.5\n", "column 1 of 3 has no name; if it holds pandas' row numbers"),
        ("id;x\n1;0,5\n", "its columns are not separated by commas: 'id;x'"),
        ("id,x\n1,high\n", "'high' is not a probability"),
    ],
)
def test_wrong_predictions(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "p.csv").write_text(text)
    with pytest.raises(TableError, match=r"p\.csv") as error:
        read_predictions(tmp_path / "p.csv")
    assert message in str(error.value)


@pytest.mark.parametrize("text", ["id,x,y\n1,1.01,3\n2,0.3,50\n", "id,x,age\n1,0.5,63\n"])
def test_scales_are_not_guessed_from_one_column(tmp_path: Path, text: str) -> None:
    (tmp_path / "p.csv").write_text(text)
    with pytest.raises(TableError, match=r"every column but id, patient, fold, quality_flags, reason is a label's$"):
        read_predictions(tmp_path / "p.csv")


def test_other_id_column(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("x,uid\n0.5,1\n")
    assert read_predictions(tmp_path / "p.csv", "uid")[2] == ("x",)
    with pytest.raises(TableError, match="'uidd' is not a column; did you mean 'uid'"):
        read_predictions(tmp_path / "p.csv", "uidd")


def test_logits(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("id,x\n1,0\n2,-1.0986122886681098\n")
    _, frame, _ = read_predictions(tmp_path / "p.csv", are_logits=True)
    assert frame["x"].tolist() == pytest.approx([0.5, 0.25])  # 1 to 3
    with pytest.raises(TableError, match=r"id 2, column 'x': '-1.09\S+ is not a probability.*then say --logits"):
        read_predictions(tmp_path / "p.csv")
    (tmp_path / "p.csv").write_text("id,x\n1,inf\n")
    with pytest.raises(TableError, match="'inf' is not a logit"):
        read_predictions(tmp_path / "p.csv", are_logits=True)


def test_probabilities_taken_for_logits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "p.csv").write_text("id,x,y\n1,0.5,1.1\n")
    read_predictions(tmp_path / "p.csv", are_logits=True)
    assert capsys.readouterr().err == ""
    (tmp_path / "p.csv").write_text("id,x,y\n1,0.5,1\n")
    read_predictions(tmp_path / "p.csv", are_logits=True)
    assert "every value lies in 0..1, as probabilities do" in capsys.readouterr().err


def test_without_folds(tmp_path: Path) -> None:
    file = tmp_path / "p.csv"
    write_predictions(file, "id", np.array(["a"]), np.array(["p"]), None, np.array([[0.5]]), ("x",))
    assert file.read_text() == "id,patient,x\na,p,0.5\n"


@pytest.mark.parametrize("name", ["quality_flags", "doubts"])
def test_flags_of_images_are_no_label(tmp_path: Path, name: str) -> None:
    """Of this version, and of 0.2.0."""
    (tmp_path / "p.csv").write_text(f"id,x,{name},reason\n1,0.5,odd,\n")
    assert read_predictions(tmp_path / "p.csv")[2] == ("x",)
