"""Corrections of labels: the published ones on the real table, and every way a file of them can be wrong."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from catheters.config.settings import Settings
from catheters.data.tables.corrections import apply_corrections
from catheters.data.tables.label_table import read_label_table
from catheters.io.csv_files import TableError
from catheters.labels import RANZCR_LABELS
from catheters.runs.build import build_table_source
from tests.conftest import SHARED_DATA

UIDS = np.array(["x1", "x2", "x3"])
LABELS = np.array([[1, 0, 0], [0, 1, 1], [0, 0, 0]], dtype=np.uint8)
NAMES = ("tube", "line", "lead")


def apply(tmp_path: Path, text: str) -> list[list[int]]:
    file = tmp_path / "corrections.csv"
    file.write_text(text)
    corrected = apply_corrections(LABELS, UIDS, NAMES, file, "id", "column id of labels.csv")
    assert corrected.dtype == np.uint8
    return corrected.tolist()


def test_positives_move(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "new_label,id,label\nlead,x1,tube\ntube,x2,line\n"
    assert apply(tmp_path, text) == [[0, 0, 1], [1, 0, 1], [0, 0, 0]]
    assert LABELS.tolist() == [[1, 0, 0], [0, 1, 1], [0, 0, 0]]
    captured = capsys.readouterr()
    assert captured.out == (
        f"2 label corrections from {tmp_path / 'corrections.csv'}:\n  x1: tube -> lead\n  x2: line -> tube\n"
    )
    assert captured.err == ""


def test_what_is_correct_already_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert apply(tmp_path, "id,label,new_label\nx1,line,tube\n") == LABELS.tolist()
    assert "  x1: line -> tube (already applied)\n" in capsys.readouterr().out


def test_ids_of_other_images_are_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert apply(tmp_path, "id,label,new_label\ny9,tube,line\nx1,tube,line\ny8,tube,line\n")[0] == [0, 1, 0]
    captured = capsys.readouterr()
    assert captured.out.startswith("1 label corrections from")
    assert "warning: label_corrections=" in captured.err
    assert "2 of its ids are no id in column id of labels.csv, y8 for one" in captured.err


def test_ids_in_another_form_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where they are all that there are, and beside others."""
    hint = "; x2.jpg and x2 differ only in their form"
    with pytest.raises(TableError, match=hint):
        apply(tmp_path, "id,label,new_label\nx2.jpg,line,tube\n")
    assert apply(tmp_path, "id,label,new_label\nx1,tube,line\nx2.jpg,line,tube\n")[:2] == [[0, 1, 0], [0, 1, 1]]
    assert hint in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,label,new_label\nx1,tubes,line\n", "line 2: 'tubes' is not one of label_columns; did you mean 'tube'?"),
        ("id,label,new_label\nx1,tube,line\ny1,tube,wire\n", "line 3: 'wire' is not one of label_columns"),
        ("id,label,new_label\nx1,tube,tube\n", "line 2: label and new_label are both 'tube'"),
        (
            "id,label,new_label\nx3,tube,line\n",
            "line 2: in the label table x3 has 0 for 'tube' and 0 for 'line', where 1 and 0 are expected; the correc",
        ),
        ("id,label,new_label\nx2,line,lead\n", "x2 has 1 for 'line' and 1 for 'lead', where 1 and 0 are expected"),
        ("id,label,new_label\ny,tube,line\nz,tube,line\n", "none of its 2 rows has an id in column id of labels.csv"),
        ("id,label,to\nx1,tube,line\n", "'new_label' is not a column"),
        ("uid,label,new_label\nx1,tube,line\n", "'id' is not a column; did you mean 'uid'?"),
        ("id,label,new_label\n", "no rows"),
    ],
)
def test_wrong_file_is_one_clear_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(TableError) as error:
        apply(tmp_path, text)
    assert message in str(error.value)
    assert "corrections.csv" in str(error.value)
    assert "\n" not in str(error.value)


def test_absent_file(tmp_path: Path) -> None:
    with pytest.raises(
        TableError, match=r"label_corrections=.*none\.csv: no such file; a CSV with the columns id, label, new_label"
    ):
        apply_corrections(LABELS, UIDS, NAMES, tmp_path / "none.csv", "id", "labels.csv")


def test_the_first_thirty_are_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """x1 goes to and fro: 31 moves, the last from tube to line."""
    moves = ["x1,tube,line" if k % 2 == 0 else "x1,line,tube" for k in range(31)]
    assert apply(tmp_path, "\n".join(["id,label,new_label", *moves]))[0] == [0, 1, 0]
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + 30 + 1
    assert lines[-1] == "  ... and 1 more"


@pytest.mark.slow
@pytest.mark.skipif(not (SHARED_DATA / "ranzcr").is_dir(), reason="RANZCR's real label table is not at hand")
def test_published_corrections(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nineteen on 30,083 images: positives per label before and after, counted from the two files with pandas."""
    shutil.copy(SHARED_DATA / "ranzcr" / "train.csv", tmp_path)
    corrections_file = SHARED_DATA / "ranzcr" / "label_corrections.csv"
    before = read_label_table(build_table_source(Settings(dataset_folder=str(tmp_path))))
    settings = Settings(dataset_folder=str(tmp_path), label_corrections=str(corrections_file))
    after = read_label_table(build_table_source(settings))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"19 label corrections from {corrections_file}:"
    assert lines[1].endswith(": CVC - Borderline -> NGT - Borderline")
    assert len(lines) == 1 + 19

    table = pd.read_csv(tmp_path / "train.csv")
    corrections = pd.read_csv(corrections_file)
    gained, lost = corrections["new_label"].value_counts(), corrections["label"].value_counts()
    for k, label in enumerate(RANZCR_LABELS):
        assert before.labels[:, k].sum() == table[label].sum()
        assert after.labels[:, k].sum() == table[label].sum() + gained.get(label, 0) - lost.get(label, 0)
    assert gained.sum() == lost.sum() == 19
    changed = np.flatnonzero((before.labels != after.labels).any(axis=1))
    assert set(before.uids[changed].tolist()) == set(corrections["StudyInstanceUID"])
    assert (before.labels != after.labels).sum() == 2 * 19

    # A table that somebody has corrected already is left as it is.
    corrected = table.assign(**{label: after.labels[:, k] for k, label in enumerate(RANZCR_LABELS)})
    corrected.to_csv(tmp_path / "train.csv", index=False)
    assert (read_label_table(build_table_source(settings)).labels == after.labels).all()
    assert capsys.readouterr().out.count(" (already applied)\n") == 19


def test_images_left_out_are_corrected_without_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "train.csv").write_text("id,who,tube,line\n1,a,1,0\n2,b,0,1\n")
    (tmp_path / "corrections.csv").write_text("id,label,new_label\n1,tube,line\n")
    (tmp_path / "ids.txt").write_text("1\n")
    settings = Settings(
        dataset_folder=str(tmp_path),
        uid_column="id",
        patient_column="who",
        label_columns=("tube", "line"),
        label_corrections=str(tmp_path / "corrections.csv"),
        exclude_ids=str(tmp_path / "ids.txt"),
    )
    table = read_label_table(build_table_source(settings))
    assert table.uids.tolist() == ["2"]
    assert table.labels.tolist() == [[0, 1]]
    assert capsys.readouterr().err == ""
