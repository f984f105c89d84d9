"""Label tables as they are published: paths for ids, patients within them, blanks and -1 for labels."""

import dataclasses
from pathlib import Path

import pytest

from catheters.config.settings import Settings
from catheters.data.tables.label_table import LabelTable, read_label_table
from catheters.io.csv_files import TableError
from catheters.runs.build import build_table_source

# CheXpert's layout: 5 X-rays of 3 patients, one of them lateral; blank: not mentioned, -1.0: uncertain.
CHEXPERT = """\
Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Edema,Support Devices
CheXpert-v1.0-small/train/patient00001/study1/view1_frontal.jpg,Female,68,Frontal,AP,1.0,,1.0
CheXpert-v1.0-small/train/patient00002/study2/view1_frontal.jpg,Female,87,Frontal,AP,,-1.0,-1.0
CheXpert-v1.0-small/train/patient00002/study1/view1_frontal.jpg,Female,83,Frontal,AP,,0.0,
CheXpert-v1.0-small/train/patient00002/study1/view2_lateral.jpg,Female,83,Lateral,,,1.0,
CheXpert-v1.0-small/train/patient00003/study1/view1_frontal.jpg,Male,41,Frontal,AP,,1.0,0.0
"""


@pytest.fixture
def chexpert(tmp_path: Path) -> Settings:
    """Settings of the table above, which lies in `tmp_path` as the archive unpacks."""
    (tmp_path / "CheXpert-v1.0-small").mkdir()
    (tmp_path / "CheXpert-v1.0-small" / "train.csv").write_text(CHEXPERT)
    return Settings(
        dataset_folder=str(tmp_path),
        label_table="CheXpert-v1.0-small/train.csv",
        uid_column="Path",
        patient_column="Path",
        patient_pattern=r"/patient(\d+)/",
        path_pattern="{Path}",
        label_columns=("Support Devices", "Edema"),
        label_values={"": 0, "-1.0": 1},
        keep_rows={"Frontal/Lateral": "Frontal"},
    )


def read_changed(settings: Settings, **changes: object) -> LabelTable:
    return read_label_table(build_table_source(dataclasses.replace(settings, **changes)))  # type: ignore[arg-type]


def test_chexpert(chexpert: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    table = read_label_table(build_table_source(chexpert))
    folder = Path(chexpert.dataset_folder) / "CheXpert-v1.0-small" / "train"
    assert table.paths == (
        folder / "patient00001/study1/view1_frontal.jpg",
        folder / "patient00002/study2/view1_frontal.jpg",
        folder / "patient00002/study1/view1_frontal.jpg",
        folder / "patient00003/study1/view1_frontal.jpg",
    )
    assert table.uids[2] == "CheXpert-v1.0-small/train/patient00002/study1/view1_frontal.jpg"
    assert table.patient_ids.tolist() == ["00001", "00002", "00002", "00003"]
    assert table.labels.tolist() == [[1, 0], [1, 1], [0, 0], [0, 1]]
    assert "4 of 5 rows of" in capsys.readouterr().out


def test_uncertain_may_be_negative(chexpert: Settings) -> None:
    assert read_changed(chexpert, label_values={"": 0, "-1": 0}).labels.tolist() == [[1, 0], [0, 0], [0, 0], [0, 1]]


def test_all_rows_without_keep_rows(chexpert: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    table = read_changed(chexpert, keep_rows={})
    assert table.labels.tolist() == [[1, 0], [1, 1], [0, 0], [0, 1], [0, 1]]
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("label_values", "message"),
    [
        (
            {},
            "line 4, column 'Support Devices': '' is not 0 or 1; say with label_values that '', '-1.0' are",
        ),
        (
            {"": 0},
            "line 3, column 'Support Devices': '-1.0' is not 0 or 1; say with label_values that it is unknown, or 0, "
            "or 1: label_values={'': 0, '-1.0': 'unknown'}",
        ),
        ({"-1": 0}, "line 4, column 'Support Devices': '' is not 0 or 1"),
    ],
)
def test_other_label_values_are_named(chexpert: Settings, label_values: dict[str, int], message: str) -> None:
    text = CHEXPERT.replace("-1.0,-1.0", "-1.0,1.0") if not label_values else CHEXPERT
    (Path(chexpert.dataset_folder) / chexpert.label_table).write_text(text)
    with pytest.raises(TableError) as error:
        read_changed(chexpert, label_values=label_values)
    assert message in str(error.value)


def test_words_as_labels(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("id,who,tube\n1,a,yes\n2,b,no \n3,c,1\n4,d,0.0\n5,e, -1 \n")
    settings = Settings(
        dataset_folder=str(tmp_path),
        label_table="labels.csv",
        uid_column="id",
        patient_column="who",
        label_columns=("tube",),
        label_values={"yes": 1, "no": 0, "-1.00": 1},
    )
    assert read_label_table(build_table_source(settings)).labels.tolist() == [[1], [0], [1], [0], [1]]
    with pytest.raises(TableError, match="line 2, column 'tube': 'yes' is not 0 or 1"):
        read_changed(settings, label_values={"Yes": 1, "no": 0, "-1": 1})


def test_lines_are_those_of_the_whole_file(chexpert: Settings) -> None:
    """The lateral X-ray of line 5 is left out; what is wrong below it keeps its line, 6."""
    file = Path(chexpert.dataset_folder) / chexpert.label_table
    for wrong, message in (
        (CHEXPERT.replace(",Male,41,Frontal,AP,,1.0,0.0", ",Male,41,Frontal,AP,,1.0,7"), "line 6, column 'Support D"),
        (CHEXPERT.replace("patient00003", "somebody"), "line 6, column 'Path': patient_pattern="),
        (
            CHEXPERT.replace("patient00003/study1", "patient00001/study1"),
            "the first is CheXpert-v1.0-small/train/patient00001/study1/view1_frontal.jpg in line 6",
        ),
        (
            CHEXPERT.replace("CheXpert-v1.0-small/train/patient00003/study1/view1_frontal.jpg", ""),
            "column 'Path' is empty in line 6",
        ),
    ):
        file.write_text(wrong)
        with pytest.raises(TableError) as error:
            read_label_table(build_table_source(chexpert))
        assert message in str(error.value)
        assert "\n" not in str(error.value)


def test_rows_without_a_patient_are_named(chexpert: Settings) -> None:
    with pytest.raises(
        TableError,
        match=r"line 2, column 'Path': patient_pattern='person\(.*\)' finds no patient in 'CheXpert-v1.0-small/train",
    ):
        read_changed(chexpert, patient_pattern=r"person(\d+)")
    with pytest.raises(TableError, match=r"line 2, .* finds no patient in"):  # a group that takes no part, or is empty
        read_changed(chexpert, patient_pattern=r"train/(\d+)?")
    assert read_changed(chexpert, patient_column="Age", patient_pattern=r"^(\d)").patient_ids.tolist() == list("6884")


def test_wrong_keep_rows(chexpert: Settings) -> None:
    with pytest.raises(
        TableError,
        match=r"keep_rows: 'frontal' is not a value of column 'Frontal/Lateral'; did you mean 'Frontal'\?",
    ):
        read_changed(chexpert, keep_rows={"Frontal/Lateral": "frontal"})
    with pytest.raises(TableError, match="keep_rows: 'x' is not a value of column 'Sex'; there are: Female, Male"):
        read_changed(chexpert, keep_rows={"Sex": "x"})
    with pytest.raises(TableError, match="'Frontal' is not a column; did you mean 'Frontal/Lateral'"):
        read_changed(chexpert, keep_rows={"Frontal": "Frontal"})
    with pytest.raises(TableError, match=r"keep_rows=.*: no row holds all of these values"):
        read_changed(chexpert, keep_rows={"Frontal/Lateral": "Lateral", "Sex": "Male"})


def test_several_kept_columns(chexpert: Settings) -> None:
    table = read_changed(chexpert, keep_rows={"Frontal/Lateral": "Frontal", "Sex": "Female"})
    assert table.patient_ids.tolist() == ["00001", "00002", "00002"]


def test_labels_are_derived_from_the_kept_rows(chexpert: Settings) -> None:
    changes = {"label_columns": ("PA",), "label_values": {}}
    table = read_changed(chexpert, **changes, derived_labels={"PA": ("Sex", "Male")})
    assert table.labels.tolist() == [[0], [0], [0], [1]]
    with pytest.raises(TableError, match="column 'Frontal/Lateral' never holds 'Lateral'"):
        read_changed(chexpert, **changes, derived_labels={"PA": ("Frontal/Lateral", "Lateral")})
