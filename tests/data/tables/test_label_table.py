"""The label table: RANZCR's format, any named columns, and every way it can be wrong."""

import dataclasses
import gzip
from pathlib import Path

import numpy as np
import pytest

from catheters.config.loading import load_settings
from catheters.config.settings import Settings
from catheters.data.tables.label_table import LabelTable, read_label_table
from catheters.io.csv_files import TableError, read_csv
from catheters.labels import NIH_LABELS
from catheters.runs.build import build_table_source
from tests.conftest import REPOSITORY, SHARED_DATA


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
    return read_label_table(build_table_source(Settings(**values)))  # type: ignore[arg-type]


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
    table = read_label_table(build_table_source(settings))
    assert table.labels.shape == (40, 11)
    assert table.paths[0] == Path(settings.dataset_folder) / "train" / f"{table.uids[0]}.jpg"
    assert all(path.is_file() for path in table.paths)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty; a CSV with a header line is expected"),
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
    """The message says where RANZCR CLiP's files go and how a sample is drawn; of other labels it cannot know."""
    ranzcr = r"; RANZCR CLiP is its train\.csv and train/ .* `python -m catheters\.synthetic dataset/sample`"
    absent = str(tmp_path / "absent")
    folder = r"absent: no such folder; put the data set there or set dataset_folder"
    with pytest.raises(TableError, match=folder + ranzcr):
        read_label_table(build_table_source(Settings(dataset_folder=absent)))
    missing = r"train\.csv: no such file; put it there, or set dataset_folder and label_table"
    with pytest.raises(TableError, match=missing + ranzcr) as error:
        read_label_table(build_table_source(Settings(dataset_folder=str(tmp_path))))
    assert "\n" not in str(error.value)
    with pytest.raises(TableError, match=f"{missing}$"):
        read_label_table(build_table_source(Settings(dataset_folder=str(tmp_path), label_columns=("Mass",))))
    with pytest.raises(TableError, match=f"{folder}$"):
        read_label_table(build_table_source(Settings(dataset_folder=absent, label_columns=("Mass",))))
    (tmp_path / "Train.csv").touch()
    with pytest.raises(TableError, match=r"train\.csv: no such file; \S+/Train\.csv is there: is it meant\?$"):
        read_label_table(build_table_source(Settings(dataset_folder=str(tmp_path))))


def test_findings_in_one_column(tmp_path: Path) -> None:
    """NIH's layout: A|B|C or No Finding."""
    text = "id,who,found\n1.png,p1,Mass|Nodule\n2.png,p1,No Finding\n3.png,p2,Nodule\n4.png,p3,Edema\n"
    changes = {"findings_column": "found", "label_columns": ("Nodule", "Mass"), "path_pattern": "{uid}"}
    table = read(tmp_path, text, **changes)
    assert table.labels.tolist() == [[1, 1], [0, 0], [1, 0], [0, 0]]
    with pytest.raises(
        TableError, match=r"column 'found': 'Noduls' is not a finding of any image; did you mean 'Nodule'"
    ):
        read(tmp_path, text, **{**changes, "label_columns": ("Noduls", "Mass")})
    with pytest.raises(TableError, match=r"column 'found' is empty in line 3"):
        read(tmp_path, text.replace("No Finding", ""), **changes)


@pytest.mark.slow
@pytest.mark.skipif(not (SHARED_DATA / "nih").is_dir(), reason="the real label table of NIH is not at hand")
def test_real_nih_table(tmp_path: Path) -> None:
    """112,120 images of 30,805 patients; counts of the findings from the text itself."""
    settings = load_settings(REPOSITORY / "configs" / "nih_pretraining.py", [f"dataset_folder={tmp_path}"])
    file = next((SHARED_DATA / "nih").glob("Data_Entry_2017*.csv.gz"))
    (tmp_path / "images_001" / "images").mkdir(parents=True)
    (tmp_path / "images_001" / "images" / "00000001_000.png").touch()
    source = build_table_source(settings)
    table = read_label_table(dataclasses.replace(source, label_table=str(file.resolve())))
    assert len(table) == 112_120
    assert len(set(table.patient_ids.tolist())) == 30_805
    assert table.paths[0] == tmp_path / "images_001" / "images" / "00000001_000.png"
    lines = gzip.decompress(file.read_bytes()).decode().splitlines()[1:]
    for k, label in enumerate(NIH_LABELS):
        expected = sum(label in line.split(",")[1].split("|") for line in lines)
        assert table.labels[:, k].sum() == expected > 0


def test_left_out_ids(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ids = tmp_path / "ids.txt"
    ids.write_text("001\n\n 003 \n")
    table = read(tmp_path, GOOD, exclude_ids=str(ids))
    assert table.uids.tolist() == ["002"]
    assert table.labels.tolist() == [[1, 0]]
    captured = capsys.readouterr()
    assert f"left out: 1 image of 2 ids in {ids}" in captured.out
    assert "ids.txt: 1 of its lines are no id in column id of" in captured.err
    assert "003 for one" in captured.err
    ids.write_text("1\n")
    with pytest.raises(TableError, match=r"none of its 1 lines is an id in column id of .*an id looks like 001"):
        read(tmp_path, GOOD, exclude_ids=str(ids))
    ids.write_text("001\n002")
    with pytest.raises(TableError, match=r"ids\.txt: leaves out every image"):
        read(tmp_path, GOOD, exclude_ids=str(ids))
    with pytest.raises(TableError, match=r"absent\.txt: no such file"):
        read(tmp_path, GOOD, exclude_ids=str(tmp_path / "absent.txt"))


def test_folds_of_the_table(tmp_path: Path) -> None:
    text = "id,who,view,a,b,part\n1,p1,ap,1,0,0\n2,p2,ap,1,0,2\n3,p2,ap,1,0,2\n4,p3,ap,1,0,1.0\n"
    table = read(tmp_path, text, fold_column="part", num_folds=3)
    assert table.folds is not None
    assert table.folds.tolist() == [0, 2, 2, 1]
    assert table.take(np.array([2, 0])).folds.tolist() == [2, 0]  # type: ignore[union-attr]
    with pytest.raises(TableError, match=r"column 'part' holds '2'; a fold, counted from 0 to 1 \(num_folds=2\)"):
        read(tmp_path, text, fold_column="part", num_folds=2)
    with pytest.raises(TableError, match=r"column 'part' has no image in fold 3; set num_folds to"):
        read(tmp_path, text, fold_column="part", num_folds=4)
    with pytest.raises(TableError, match=r"column 'part' is empty in line 5"):
        read(tmp_path, text.replace("1.0", ""), fold_column="part", num_folds=3)
    with pytest.raises(TableError, match=r"'parts' is not a column; did you mean 'part'"):
        read(tmp_path, text, fold_column="parts", num_folds=3)


@pytest.mark.parametrize("layout", ["images", "images_001/images"])
def test_images_in_several_folders(tmp_path: Path, layout: str) -> None:
    """NIH's archives unpack into images/ or images_001/images, ..."""
    (tmp_path / layout).mkdir(parents=True)
    (tmp_path / layout / "001.png").touch()
    (tmp_path / "images_002" / "images").mkdir(parents=True)
    (tmp_path / "images_002" / "images" / "other.png").touch()
    for stray in (tmp_path / layout, tmp_path / "images_002" / "images"):
        (stray / ".DS_Store").touch()
    table = read(tmp_path, GOOD, path_pattern="images*/**/{uid}.png")
    assert table.paths == (tmp_path / layout / "001.png", tmp_path / "images*/**/002.png")
    (tmp_path / "images_002" / "images" / "001.png").touch()
    with pytest.raises(TableError, match=r"001\.png: also stands in .*; which one is meant is unclear"):
        read(tmp_path, GOOD, path_pattern="images*/**/{uid}.png")
    # A table may be read without its images, for a cache that has come without them.
    assert read(tmp_path, GOOD, path_pattern="scans*/{uid}.png").paths[0] == tmp_path / "scans*/001.png"


def test_numbers_of_the_table(tmp_path: Path) -> None:
    """A weight per image, under its name in a batch."""
    weighted = "id,who,view,a,b,w\n001,p1,ap,1,0,0.5\n002,p1,pa,0,1.0,2e1\n"
    table = read(tmp_path, weighted, weight_column="w")
    assert {name: values.tolist() for name, values in table.numbers.items()} == {"weight": [0.5, 20.0]}
    assert table.take(np.array([1])).numbers["weight"].tolist() == [20.0]
    for wrong, message in (("-1", "line 3, column 'w': '-1' came"), ("x", "'x' came, a number of 0 or"), ("", "'w'")):
        with pytest.raises(TableError, match=message):
            read(tmp_path, weighted.replace("2e1", wrong), weight_column="w")
    with pytest.raises(TableError, match="column 'w' has no number above 0"):
        read(tmp_path, weighted.replace("2e1", "0").replace("0.5", "0"), weight_column="w")
