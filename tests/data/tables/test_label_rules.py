"""Cells and names as people write them: blanks, several writings of one number, lists of findings, missing labels."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from catheters.config.loading import settings_from_json, settings_to_json
from catheters.config.settings import Settings
from catheters.data.tables.label_rules import choose_rows_of_other_table
from catheters.data.tables.label_table import LabelTable, read_label_table
from catheters.errors import SettingsError
from catheters.io.csv_files import TableError, read_csv
from catheters.labels import NIH_LABELS
from catheters.runs.build import build_table_source

Read = Callable[..., LabelTable]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Reads a table whose columns are given; ids are i0, i1, ... and patients p0, p1, ... where none are given."""

    def read_columns(columns: dict[str, list[str]], **changes: object) -> LabelTable:
        num_rows = len(next(iter(columns.values())))
        frame = pd.DataFrame(
            {"id": [f"i{n}" for n in range(num_rows)], "who": [f"p{n}" for n in range(num_rows)], **columns}
        )
        frame.to_csv(tmp_path / "t.csv", index=False)
        values = {
            "dataset_folder": str(tmp_path),
            "label_table": "t.csv",
            "uid_column": "id",
            "patient_column": "who",
            "path_pattern": "{uid}.jpg",
            "label_columns": ("a",),
            **changes,
        }
        return read_label_table(build_table_source(Settings(**values)))  # type: ignore[arg-type]

    return read_columns


def test_blanks_around_a_value_of_derived_labels(read: Read, capsys: pytest.CaptureFixture[str]) -> None:
    intubated = ["Y", "Y ", "N", "N", "Y", "y", " Y", "N"]
    table = read({"intubated": intubated}, label_columns=("ETT",), derived_labels={"ETT": ("intubated", "Y")})
    assert table.labels.ravel().tolist() == [1, 1, 0, 0, 1, 0, 1, 0]
    assert "column 'intubated': 'y' (1 rows) only looks like 'Y' (4 rows)" in capsys.readouterr().err


def test_blanks_around_findings(read: Read, capsys: pytest.CaptureFixture[str]) -> None:
    found = ["Nodule | Effusion", "Effusion | Nodule", "Nodule", "Effusion", "Nodule | Mass"]
    table = read({"found": found}, label_columns=("Nodule",), findings_column="found")
    assert table.labels.ravel().tolist() == [1, 1, 1, 0, 1]
    assert capsys.readouterr().err == ""
    read({"found": [*found, "nodule"]}, label_columns=("Nodule",), findings_column="found")
    assert "'nodule' (1 rows) only looks like 'Nodule' (4 rows)" in capsys.readouterr().err


def test_blanks_around_what_keep_rows_asks_for(read: Read, capsys: pytest.CaptureFixture[str]) -> None:
    columns = {"view": ["AP", "AP ", "PA", "ap", "LL"], "a": list("01011")}
    assert read(columns, keep_rows={"view": "AP"}).uids.tolist() == ["i0", "i1"]
    assert "column 'view': 'ap' (1 rows) only looks like 'AP' (2 rows)" in capsys.readouterr().err
    assert read(columns, keep_rows={" view": ["AP", " PA"]}).uids.tolist() == ["i0", "i1", "i2"]
    read(columns, keep_rows={"view": ["AP", "XX"]})
    assert "warning: " in (err := capsys.readouterr().err) and "keep_rows: 'XX' is not a value of column" in err


def test_one_number_in_two_writings(read: Read, capsys: pytest.CaptureFixture[str]) -> None:
    columns = {"v": ["1.0", "1", "0"], "b": ["0", "1", "0"], "who": ["12", "12.0", "13"]}
    table = read(columns, derived_labels={"a": ("v", "1")})
    assert table.labels.ravel().tolist() == [1, 1, 0]
    assert table.patient_ids.tolist() == ["12", "12", "13"]
    assert "column 'who': 1 patients are written in two ways, 12 and 12.0 for one" in capsys.readouterr().err
    assert read(columns, label_columns=("b",), keep_rows={"v": "1"}).uids.tolist() == ["i0", "i1"]


def test_leading_zeros_make_another_patient(read: Read, capsys: pytest.CaptureFixture[str]) -> None:
    table = read({"a": list("0101"), "who": ["0012", "12", "0012", "x"]})
    assert table.patient_ids.tolist() == ["0012", "12", "0012", "x"]
    assert "'0012' (2 rows) and '12' (1 rows) for one" in capsys.readouterr().err


def test_ids_with_blanks(read: Read, tmp_path: Path) -> None:
    columns = {"id": ["i0", "i0 ", "i2"], "a": list("010")}
    with pytest.raises(TableError, match="1 duplicate ids in column id; the first is i0 in line 3"):
        read(columns)
    ids = tmp_path / "ids.txt"
    ids.write_text("i0\n")
    columns["id"][0] = "i1"
    assert read(columns, exclude_ids=str(ids)).uids.tolist() == ["i1", "i2"]


@pytest.mark.parametrize("listed", ["1000.0", "01000", "1000.jpg"])
def test_ids_that_differ_by_form_are_named(
    read: Read, tmp_path: Path, capsys: pytest.CaptureFixture[str], listed: str
) -> None:
    ids = tmp_path / "ids.txt"
    ids.write_text(f"{listed}\n")
    columns = {"id": ["1000", "1001"], "a": list("01")}
    with pytest.raises(TableError, match=f"; {listed} and 1000 differ only in their form"):
        read(columns, exclude_ids=str(ids))
    ids.write_text(f"{listed}\n1001\n")
    assert read(columns, exclude_ids=str(ids)).uids.tolist() == ["1000"]
    assert f"; {listed} and 1000 differ only in their form" in capsys.readouterr().err


def test_column_names_with_blanks(read: Read) -> None:
    columns = {"a ": list("01"), " view": ["x", "y"]}
    table = read(columns, label_columns=("a",), path_pattern="{view}/{uid}.jpg")
    assert [path.parent.name for path in table.paths] == ["x", "y"]
    assert table.labels.ravel().tolist() == [0, 1]


@pytest.mark.parametrize("name", ["Image.Path", "Path[jpg]", "0", "a:b", "x!r"])
def test_any_column_name_in_a_pattern(read: Read, tmp_path: Path, name: str) -> None:
    table = read({name: ["x/1", "y/2"], "a": list("01")}, path_pattern=f"{{{{im}}}}/{{{name}}}.png")
    assert table.paths == (tmp_path / "{im}/x/1.png", tmp_path / "{im}/y/2.png")


def test_padchests_list_in_a_text(read: Read) -> None:
    found = ["['nodule', 'pleural effusion']", "['normal']", "['pleural effusion', ' nodule ']", "[]"]
    changes = {"findings_column": "found", "label_columns": ("nodule", "pleural effusion")}
    assert read({"found": found}, **changes).labels.tolist() == [[1, 1], [0, 0], [1, 1], [0, 0]]
    with pytest.raises(TableError, match=r"line 3, column 'found': '\[nodule' is no list of findings; A\|B\|C or"):
        read({"found": ["['nodule']", "[nodule"]}, **changes)


def test_blank_findings_that_mean_none(read: Read) -> None:
    changes = {"findings_column": "found", "label_columns": ("Mass",)}
    with pytest.raises(TableError, match=r"is empty in line 3; label_values=\{'': 0\} says that a blank means none"):
        read({"found": ["Mass", "", "Mass"]}, **changes)
    assert read({"found": ["Mass", "", "Mass"]}, **changes, label_values={"": 0}).labels.ravel().tolist() == [1, 0, 1]


def test_a_part_of_a_table_may_lack_a_label(read: Read, capsys: pytest.CaptureFixture[str]) -> None:
    """Pneumonia looks like Pneumothorax, and still is no misspelling of it."""
    table = read(
        {"found": ["Pneumothorax|Mass", "No Finding", "Mass"]}, findings_column="found", label_columns=NIH_LABELS
    )
    assert table.labels.sum(axis=0).tolist() == [{"Mass": 2, "Pneumothorax": 1}.get(label, 0) for label in NIH_LABELS]
    assert "column 'found': 'Hernia' is a finding of no image: it has no positive" in capsys.readouterr().err
    read({"v": ["x", "y"]}, label_columns=("a", "b"), derived_labels={"a": ("v", "x"), "b": ("v", "unseen")})
    assert "never holds 'unseen', which derived_labels['b'] asks for: it has no positive" in capsys.readouterr().err
    with pytest.raises(TableError, match=r"never holds 'tubes', which .* asks for; did you mean 'tube'"):
        read({"v": ["x", "tube"]}, label_columns=("a", "b"), derived_labels={"a": ("v", "x"), "b": ("v", "tubes")})


def test_several_rows_per_image_are_merged_by_the_line_of_pandas(read: Read) -> None:
    """VinDr's table has a row per box; the error's own line makes it one row per image."""
    columns = {
        "id": ["i0", "i0", "i1", "i0"],
        "who": ["p", "p", "q", "p"],
        "found": ["Nodule", "Mass", "No finding", "Nodule"],
        "x": ["1", "2", "", "4"],
    }
    changes = {"findings_column": "found", "label_columns": ("Nodule", "Mass")}
    with pytest.raises(TableError, match="2 duplicate ids in column id; the first is i0 in line 3; ") as error:
        read(columns, **changes)
    exec(str(error.value).partition("rows differ: ")[2], {"pd": pd})
    file = Path(str(error.value).rpartition("to_csv('")[2].partition("'")[0])
    merged = read_csv(file)
    table = read({name: merged[name].tolist() for name in merged}, **changes)
    assert (table.uids.tolist(), table.patient_ids.tolist()) == (["i0", "i1"], ["p", "q"])
    assert table.labels.tolist() == [[1, 1], [0, 0]]


def test_several_rows_per_image_of_label_columns(read: Read) -> None:
    """The error's line takes the maximum of each column, and strips what this program strips."""
    columns = {"id": ["i0", "i0 ", "i1"], "who": ["p", "p", "q"], " x": ["0", "1 ", "0"]}
    with pytest.raises(TableError, match="with the maximum of each column: ") as error:
        read(columns, label_columns=("x",))
    exec(str(error.value).partition("of each column: ")[2], {"pd": pd})
    merged = read_csv(Path(str(error.value).rpartition("to_csv('")[2].partition("'")[0]))
    table = read({name: merged[name].tolist() for name in merged}, label_columns=("x",))
    assert (table.uids.tolist(), table.labels.tolist()) == (["i0", "i1"], [[1], [0]])


@pytest.mark.parametrize(
    ("cells", "changes", "setting"),
    [
        (["Y", "N"], {"label_columns": ("a",), "derived_labels": {"a": ("v", "Y")}}, "derived_labels"),
        (["['a']", "['a', 'b']"], {"label_columns": ("a", "b"), "findings_column": "v"}, "findings_column"),
    ],
)
def test_rows_that_no_line_can_merge(read: Read, cells: list[str], changes: dict[str, object], setting: str) -> None:
    with pytest.raises(TableError, match=f"take its maximum over an image's rows, and leave {setting} out"):
        read({"id": ["i0", "i0"], "who": ["p", "p"], "v": cells}, **changes)


@pytest.mark.parametrize("cell", ["['Nodule' 'Mass']", "[{[]: 1}]", "[1]", "['a'"])
def test_what_is_no_list_of_findings(read: Read, cell: str) -> None:
    """numpy prints lists without commas, which Python would read as one text."""
    columns = {"found": ["['Nodule', 'Mass']", cell]}
    with pytest.raises(TableError, match=r"line 3, column 'found': .* is no list of findings"):
        read(columns, findings_column="found", label_columns=("Nodule", "Mass"))


def test_numbers_that_are_one_float(read: Read) -> None:
    """2^53 and 2^53 + 1."""
    columns = {"site": ["9007199254740992", "9007199254740993", "9007199254740992.0"], "x": ["1", "0", "0"]}
    table = read(columns, label_columns=("x",), keep_rows={"site": "9007199254740992"})
    assert table.uids.tolist() == ["i0", "i2"]


def test_keep_rows_of_a_table_without_their_column(capsys: pytest.CaptureFixture[str]) -> None:
    frame = pd.DataFrame({"id": ["i0", "i1"], "view": ["AP", "PA"]})
    kept = choose_rows_of_other_table(frame, {"view": "AP", "site": "1"}, Path("t.csv"))
    assert kept["id"].tolist() == ["i0"]
    assert "t.csv: has no column 'site', so keep_rows leaves out no row by it" in capsys.readouterr().err


def test_siims_encoded_pixels(read: Read) -> None:
    """A mask, or -1 where there is no pneumothorax."""
    columns = {" EncodedPixels": [" 12 3 40 5", " -1", "-1"]}
    changes = {"label_columns": ("No pneumothorax",), "derived_labels": {"No pneumothorax": ("EncodedPixels", "-1")}}
    assert read(columns, **changes).labels.ravel().tolist() == [0, 1, 1]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('id,who,report,a\ni0,p,"one\ntwo\nthree",1\ni1,q,"x\n\ny",0\ni2,r,z,7\n', 8),
        ("id,who,report,a\n\n\n\ni0,p,x,1\ni1,q,x,7\n", 6),
        ("\nid,who,report,a\r\ni0,p,x,1\r\n  \r\ni1,q,x,7\r\n", 5),
    ],
    ids=["quoted texts", "blank lines", "Windows"],
)
def test_lines_are_lines_of_the_file(tmp_path: Path, text: str, line: int) -> None:
    (tmp_path / "t.csv").write_bytes(text.encode())
    settings = Settings(
        dataset_folder=str(tmp_path), label_table="t.csv", uid_column="id", patient_column="who", label_columns=("a",)
    )
    with pytest.raises(TableError, match=f"line {line}, column 'a': '7' is not 0 or 1"):
        read_label_table(build_table_source(settings))


def test_several_values_survive_a_run_folder() -> None:
    settings = Settings(keep_rows={"view": ["AP", "PA"], "site": "x"})  # type: ignore[arg-type]
    assert settings.keep_rows == {"view": ("AP", "PA"), "site": "x"}
    assert settings_from_json(settings_to_json(settings), "settings.json") == settings


NAN = float("nan")


def test_unknown_cells(read: Read) -> None:
    """Blanks and -1.0 are unknown, however the number is written."""
    table = read({"a": ["1.0", "", "-1", "0"]}, label_values={"": "unknown", "-1.0": "unknown"})
    np.testing.assert_array_equal(table.labels, np.array([[1], [NAN], [NAN], [0]], dtype=np.float32))


def test_unknown_values_of_derived_labels(read: Read) -> None:
    """Of a column of values, and of lists of findings: unknown is each label that they would give."""
    table = read(
        {"position": ["high", "?", "good", ""]},
        label_columns=("high", "good"),
        derived_labels={"high": ("position", "high"), "good": ("position", "good")},
        label_values={"?": "unknown", "": 0},
    )
    expected = [[1, 0], [NAN, NAN], [0, 1], [0, 0]]
    np.testing.assert_array_equal(table.labels, np.array(expected, dtype=np.float32))
    table = read(
        {"found": ["Nodule|Mass", "", "Mass"], "a": ["1", "0", ""]},
        label_columns=("Nodule", "Mass", "a"),
        findings_column="found",
        label_values={"": "unknown"},
    )
    expected = [[1, 1, 1], [NAN, NAN, 0], [0, 1, NAN]]
    np.testing.assert_array_equal(table.labels, np.array(expected, dtype=np.float32))


def test_a_proposal_for_what_is_not_understood(read: Read) -> None:
    """In words that can be pasted, of all label columns."""
    with pytest.raises(TableError) as error:
        read({"a": ["1", "", "0"], "b": ["0", "-1.0", "1"]}, label_columns=("a", "b"))
    assert str(error.value).endswith(
        "line 3, column 'a': '' is not 0 or 1; say with label_values that '', '-1.0' are unknown, or 0, or 1: "
        "label_values={'': 'unknown', '-1.0': 'unknown'}"
    )


def test_blanks_of_derived_labels_need_a_meaning(read: Read) -> None:
    with pytest.raises(
        TableError, match=r"label_values=\{'': 0\} says that a blank means none, \{'': 'unknown'\} that"
    ):
        read({"position": ["high", ""]}, label_columns=("high",), derived_labels={"high": ("position", "high")})


@pytest.mark.parametrize("values", [{"": 0, " ": "unknown"}, {"-1": "unknown", "-1.0": 1}, {"1": "unknown"}])
def test_values_with_two_meanings(values: dict[str, object]) -> None:
    with pytest.raises(SettingsError, match=r"means (0|1|unknown) already"):
        settings_from_json(json.dumps({**json.loads(settings_to_json(Settings())), "label_values": values}), "t")


def test_what_excludes_each_other_is_known_where_one_holds(read: Read) -> None:
    """The softmax of a group needs all of it; without a positive the unknown ones stay so."""
    table = read(
        {"a": ["1", "", "0"], "b": ["", "0", "0"], "c": ["0", "", "1"]},
        label_columns=("a", "b", "c"),
        label_values={"": "unknown"},
        exclusive={"group": ("a", "b")},
    )
    expected = [[1, 0, 0], [NAN, 0, NAN], [0, 0, 1]]
    np.testing.assert_array_equal(table.labels, np.array(expected, dtype=np.float32))


def test_soft_labels(read: Read) -> None:
    """Learnt as they are; scored from a threshold on, or not at all."""
    cells = {"a": ["1", "0.5", "0.25", "0", ""]}
    soft = {"soft_labels": True, "label_values": {"": "unknown"}}
    for threshold, hard in ((None, [1, NAN, NAN, 0, NAN]), (0.5, [1, 1, 0, 0, NAN])):
        table = read(cells, soft_label_threshold=threshold, **soft)
        np.testing.assert_array_equal(table.targets[:, 0], np.array([1, 0.5, 0.25, 0, NAN], dtype=np.float32))
        np.testing.assert_array_equal(table.labels[:, 0], np.array(hard, dtype=np.float32))


def test_soft_labels_that_are_none(read: Read) -> None:
    with pytest.raises(TableError, match=r"line 3, column 'a': '1\.5' is not a share in 0\.\.1; say with label_values"):
        read({"a": ["0.5", "1.5"]}, soft_labels=True)
    with pytest.raises(TableError, match=r"'0\.5' is not 0 or 1; soft_labels=True takes shares$"):
        read({"a": ["0.5", "1"]})


def test_soft_labels_that_exclude_each_other(read: Read) -> None:
    """Sum to 1 at most: what is left is that of none of them."""
    exclusive = {"label_columns": ("a", "b"), "exclusive": {"group": ("a", "b")}, "soft_labels": True}
    assert read({"a": ["0.6", "0"], "b": ["0.4", "1"]}, **exclusive).targets.sum() == pytest.approx(2)
    with pytest.raises(TableError, match=r"1 image has two labels of exclusive\['group'\], i1 has 'a' and 'b'"):
        read({"a": ["0.6", "0.7"], "b": ["0.4", "0.4"]}, **exclusive)


def test_shares_that_nearly_sum_to_one(read: Read) -> None:
    """Are scaled to it: what is left for none of them is never negative."""
    exclusive = {"label_columns": ("a", "b"), "exclusive": {"group": ("a", "b")}, "soft_labels": True}
    targets = read({"a": ["0.6", "0.5"], "b": ["0.4005", "0.5"]}, **exclusive).targets
    assert targets.sum(axis=1) == pytest.approx([1, 1], abs=1e-6)
    assert (targets[0] / targets[0].sum()).tolist() == pytest.approx([0.6 / 1.0005, 0.4005 / 1.0005])


def test_the_first_of_two_shares(read: Read) -> None:
    """As exclusive names them, whichever is larger."""
    first = {"label_columns": ("a", "b"), "exclusive": {"group": ("a", "b")}, "exclusive_conflicts": "first"}
    table = read({"a": ["0.6", "0"], "b": ["0.7", "1"]}, soft_labels=True, **first)
    assert table.targets.tolist() == [[1, 0], [0, 1]]


def test_a_share_that_reaches_the_threshold_tells_the_others(read: Read) -> None:
    """In scores alone: what is learnt of the others stays unknown."""
    exclusive = {"label_columns": ("a", "b"), "exclusive": {"group": ("a", "b")}, "label_values": {"": "unknown"}}
    table = read({"a": ["0.6", "0.4"], "b": ["", ""]}, soft_labels=True, soft_label_threshold=0.55, **exclusive)
    np.testing.assert_array_equal(table.labels, np.array([[1, 0], [0, NAN]], dtype=np.float32))
    np.testing.assert_array_equal(table.targets, np.array([[0.6, NAN], [0.4, NAN]], dtype=np.float32))


def test_a_threshold_that_two_labels_could_reach() -> None:
    with pytest.raises(SettingsError, match=r"soft_label_threshold=0\.5: two labels of a group in exclusive"):
        Settings(label_columns=("a", "b"), exclusive={"group": ("a", "b")}, soft_labels=True, soft_label_threshold=0.5)
