"""The label table: RANZCR's format, any named columns, and every way it can be wrong."""

import gzip
from pathlib import Path

import pytest

from catheters.csv_files import TableError, read_csv
from catheters.data.table import LabelTable, read_label_table
from catheters.settings import Settings


def read(tmp_path: Path, text: str, **changes: object) -> LabelTable:
    (tmp_path / "labels.csv").write_text(text, encoding="utf-8")
    values = {
        "dataset_folder": str(tmp_path),
        "label_table": "labels.csv",
        "uid_column": "id",
        "patient_column": "who",
        "path_pattern": "{view}/{uid}.png",
        "label_columns": ("b", "a"),
        **changes,
    }
    return read_label_table(Settings(**values))  # type: ignore[arg-type]


GOOD = "id,who,view,a,b\n001,p1,ap,1,0\n002,p1,pa,0,1.0\n"


def test_named_columns(tmp_path: Path) -> None:
    table = read(tmp_path, GOOD)
    assert table.uids.tolist() == ["001", "002"]
    assert table.patient_ids.tolist() == ["p1", "p1"]
    assert table.labels.tolist() == [[0, 1], [1, 0]]
    assert table.paths == (tmp_path / "ap/001.png", tmp_path / "pa/002.png")


def test_byte_order_mark_is_no_part_of_a_name(tmp_path: Path) -> None:
    assert read(tmp_path, "\ufeff" + GOOD).uids.tolist() == ["001", "002"]


def test_derived_labels(tmp_path: Path) -> None:
    table = read(tmp_path, GOOD, label_columns=("AP",), derived_labels={"AP": ("view", "ap")})
    assert table.labels.tolist() == [[1], [0]]
    with pytest.raises(TableError, match="column 'view' never holds 'xx'"):
        read(tmp_path, GOOD, label_columns=("AP",), derived_labels={"AP": ("view", "xx")})


def test_ranzcr_format(settings: Settings) -> None:
    table = read_label_table(settings)
    assert table.labels.shape == (40, 11)
    assert table.paths[0] == Path(settings.dataset_folder) / "train" / f"{table.uids[0]}.jpg"
    assert all(path.is_file() for path in table.paths)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a readable CSV"),
        ("id,who,view,a,b\n", "no rows"),
        ("id,who,view,a\n1,p,ap,1\n", "'b' is not a column; there are: id"),
        ("iid,who,view,a,b\n1,p,ap,1,0\n", "'id' is not a column; did you mean 'iid'"),
        ("id,who,view,a,b\n1,p,ap,1,0\n1,p,ap,1,0\n", "1 duplicate ids in column id; the first is 1 in line 3"),
        ("id,who,view,a,b\n1,p,ap,1,0\n2,p,ap,1,2\n", "line 3, column 'b': '2' is not 0 or 1"),
        ("id,who,view,a,b\n1,p,ap,1,\n", "line 2, column 'b': '' is not 0 or 1"),
        ("id,who,view,a,b\n1,p,ap,x,0\n", "line 2, column 'a': 'x' is not 0 or 1"),
        ("id,who,view,a,b\n1,,ap,1,0\n", "column 'who' is empty in line 2"),
        ("id,who,view,a,b\n,p,ap,1,0\n", "column 'id' is empty in line 2"),
        ("id,who,a,b\n1,p,1,0\n", "'view' is not a column"),
        ('id,who,view,a,b\n"1,p,ap,1,0\n', "not a readable CSV"),
        ("id,who,view,a,b\n1,p,ap,1,0,\n", "not a readable CSV"),
        ("id,who,view,a,b\n1,p,ap,1\n", "line 2, column 'b': '' is not 0 or 1"),
        ("id,who,view,a,b,a\n1,p,ap,1,0,1\n", "column 'a' stands twice in the header"),
        ("id;who;view;a;b\n1;p;ap;1;0\n", "its columns are not separated by commas: 'id;who;view;a;b'"),
    ],
)
def test_wrong_table_is_one_clear_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(TableError) as error:
        read(tmp_path, text)
    assert message in str(error.value)
    assert "labels.csv" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_stray_blank_makes_no_second_patient(tmp_path: Path) -> None:
    assert read(tmp_path, "id,who,view,a,b\n1,p ,ap,1,0\n2, p,pa,0,1\n").patient_ids.tolist() == ["p", "p"]


def test_files_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes("id\nMüller\n".encode("latin-1"))
    with pytest.raises(TableError, match=r"x\.csv: is not UTF-8 text"):
        read_csv(tmp_path / "x.csv")
    whole = gzip.compress(b"id\n1\n" * 100)
    (tmp_path / "x.csv.gz").write_bytes(whole)
    assert len(read_csv(tmp_path / "x.csv.gz")) == 199
    (tmp_path / "x.csv.gz").write_bytes(whole[:20])
    with pytest.raises(TableError, match=r"x\.csv\.gz: not a readable CSV"):
        read_csv(tmp_path / "x.csv.gz")
    (tmp_path / "x.zip").write_bytes(b"no archive")
    with pytest.raises(TableError, match=r"x\.zip: not a readable CSV"):
        read_csv(tmp_path / "x.zip")


def test_missing_folder_and_file(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="no such folder; put the data set there or set dataset_folder"):
        read_label_table(Settings(dataset_folder=str(tmp_path / "absent")))
    with pytest.raises(TableError, match=r"train\.csv: no such file"):
        read_label_table(Settings(dataset_folder=str(tmp_path)))
