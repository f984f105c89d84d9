"""Landmarks: what is read, what is refused, and what is warned of."""

from pathlib import Path

import pytest

from catheters.data.landmarks import check_landmarks, read_landmarks
from catheters.io.csv_files import TableError


def write_table(file: Path, *rows: str, header: str = "uid,name,x,y") -> Path:
    file.write_text("\n".join([header, *rows]) + "\n")
    return file


def test_landmarks_of_several_images_in_the_order_of_the_file(tmp_path: Path) -> None:
    file = write_table(tmp_path / "l.csv", "b,carina,10.5,20", "a, carina ,-3,1e2", "b,right dome,7,8.25")
    landmarks = read_landmarks(file, "uid")
    assert landmarks == {"b": {"carina": (10.5, 20.0), "right dome": (7.0, 8.25)}, "a": {"carina": (-3.0, 100.0)}}
    assert list(landmarks) == ["b", "a"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a,carina,,2", "column 'x' is empty in line 3"),
        ("a,carina,1, ", "column 'y' is empty in line 3"),
        ("a,,1,2", "column 'name' is empty in line 3"),
        (",carina,1,2", "column 'uid' is empty in line 3"),
        ("a,carina,left,2", "line 3, column 'x': 'left' is not a finite number; pixels of the X-ray are expected"),
        ("a,carina,1,nan", "line 3, column 'y': 'nan' is not a finite number; pixels of the X-ray are expected"),
        ("a,carina,-inf,1", "line 3, column 'x': '-inf' is not a finite number; pixels of the X-ray are expected"),
        ("a,carina,1e999,1", "line 3, column 'x': '1e999' is not a finite number; pixels of the X-ray are expected"),
        ("a,carina,1_0,1", "line 3, column 'x': '1_0' is not a finite number; pixels of the X-ray are expected"),
        ("b,carina,5,6", "line 3: b has 'carina' a second time; give each landmark once"),
    ],
)
def test_what_is_refused(tmp_path: Path, row: str, message: str) -> None:
    file = write_table(tmp_path / "l.csv", "b,carina,1,2", row)
    with pytest.raises(TableError) as error:
        read_landmarks(file, "uid")
    assert str(error.value) == f"{file}: {message}"


def test_long_values_are_quoted_in_part(tmp_path: Path) -> None:
    file = write_table(tmp_path / "l.csv", f"b,carina,{'z' * 5000},2")
    with pytest.raises(TableError) as error:
        read_landmarks(file, "uid")
    assert len(str(error.value)) < 300


@pytest.mark.parametrize("header", ["uid,name,x", "name,x,y", "uid,x,y"])
def test_missing_columns(tmp_path: Path, header: str) -> None:
    file = write_table(tmp_path / "l.csv", "1,2,3", header=header)
    with pytest.raises(TableError, match="is not a column; there are: "):
        read_landmarks(file, "uid")


def test_a_table_without_rows(tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"l\.csv: no rows; .* and one row per landmark is expected$"):
        read_landmarks(write_table(tmp_path / "l.csv"), "uid")


def test_nothing_to_warn_of() -> None:
    # 100 px wide: from -0.5 to 99.5, and 5 px more on each side; the same for 60 px of height, and 3 px
    inside = {"carina": (-5.5, -3.5), "dome": (104.5, 62.5)}
    assert check_landmarks({"a": inside}, ("dome", "carina"), ["a", "b"], {"a": (60, 100)}, "l.csv") == []


@pytest.mark.parametrize("point", [(-5.6, 1), (104.6, 1), (1, -3.6), (1, 62.6)])
def test_points_far_outside(point: tuple[float, float]) -> None:
    landmarks = {"a": {"carina": (5.0, 5.0), "dome": point}, "b": {"carina": (1e9, 1e9)}, "c": {"carina": (1e9, 1e9)}}
    shapes = {"a": (60, 100), "b": (0, 0)}  # b could not be read
    warnings = check_landmarks(landmarks, ("dome", "carina"), ["a", "b", "c"], shapes, "l.csv")
    assert warnings == [
        f"l.csv: 1 point of 1 image more than 5% of a side beyond the edge, the first at x={point[0]:g}, "
        f"y={point[1]:g} of a, which has 100 x 60 pixels; pixels of the original image are expected, not of a copy of "
        "another size"
    ]


def test_every_point_far_outside_is_counted() -> None:
    landmarks = {"a": {"carina": (500.0, 5.0), "dome": (5.0, 500.0)}, "b": {"carina": (-90.0, 1.0)}}
    shapes = {"a": (60, 100), "b": (60, 100)}
    warnings = check_landmarks(landmarks, ("dome", "carina"), ["a", "b"], shapes, "l.csv")
    assert len(warnings) == 1
    assert warnings[0].startswith(
        "l.csv: 3 points of 2 images more than 5% of a side beyond the edge, the first at x=500"
    )


def test_ids_without_image() -> None:
    landmarks = {uid: {"carina": (1.0, 1.0)} for uid in ("z", "a", "y")}
    message = "l.csv: none of its ids, such as z, is in the label table"
    assert check_landmarks(landmarks, ("carina",), ["a", "b"], {}, "l.csv") == [
        "l.csv: 2 of its 3 ids without a row in the label table, the first is z"
    ]
    assert check_landmarks(landmarks, (), ["q"], {}, "l.csv") == [message]  # shown, and not learnt
    with pytest.raises(TableError) as error:
        check_landmarks(landmarks, ("carina",), ["q"], {}, "l.csv")
    assert str(error.value) == message
    with pytest.raises(TableError) as error:
        check_landmarks({"7.dcm": {"carina": (1.0, 1.0)}}, ("carina",), ["7"], {}, "l.csv")
    assert str(error.value).endswith(
        "7.dcm and 7 differ only in their form, and ids are compared as text: use one form"
    )


def test_a_landmark_that_no_image_of_the_label_table_has() -> None:
    """Other landmarks have rows of its images, this one has not."""
    landmarks = {"a": {"dome": (1.0, 1.0)}, "y": {"carina": (1.0, 1.0)}, "z": {"carina": (1.0, 1.0)}}
    with pytest.raises(TableError) as error:
        check_landmarks(landmarks, ("dome", "carina"), ["a"], {}, "l.csv")
    assert str(error.value) == (
        "l.csv: the 2 rows of 'carina' are of images that are not in the label table, so nobody could learn it; look "
        "at the ids"
    )
    assert len(check_landmarks(landmarks, ("dome",), ["a"], {}, "l.csv")) == 1  # of the ids y and z alone


@pytest.mark.parametrize(
    ("name", "learnt"),
    [
        ("Carina", "carina"),
        ("carnia", "carina"),
        ("Right_Diaphragm-dome", "right diaphragm dome"),
        ("right diafragm dome", "right diaphragm dome"),
    ],
)
def test_names_that_look_like_a_learnt_one(name: str, learnt: str) -> None:
    point = (1.0, 1.0)
    landmarks = {uid: {name: point} for uid in ("a", "b", "c")} | {"d": {learnt: point}}
    (warning,) = check_landmarks(landmarks, (learnt,), list("abcd"), {}, "l.csv")
    assert warning == f"l.csv: 3 rows have '{name}', but '{learnt}' is learnt; did you mean '{learnt}'?"
    (warning,) = check_landmarks({"a": {name: point}, "d": {learnt: point}}, (learnt,), list("ad"), {}, "l.csv")
    assert warning.startswith(f"l.csv: 1 row has '{name}', but ")


@pytest.mark.parametrize("name", ["left diaphragm dome", "diaphragm", "carina", "dome right diaphragm"])
def test_other_names_are_no_fault(name: str) -> None:
    landmarks = {"a": {name: (1.0, 1.0)}, "b": {"right diaphragm dome": (1.0, 1.0)}}
    assert check_landmarks(landmarks, ("right diaphragm dome",), ["a", "b"], {}, "l.csv") == []


def test_names_of_one_image_are_two_landmarks() -> None:
    landmarks = {"a": {"rib10": (1.0, 1.0), "rib11": (2.0, 2.0)}, "b": {"rib11": (1.0, 1.0)}}
    assert check_landmarks(landmarks, ("rib10",), ["a", "b"], {}, "l.csv") == []


def test_names_that_no_row_has() -> None:
    landmarks = {"a": {"carina": (1.0, 1.0), "left dome": (2.0, 2.0)}}
    assert check_landmarks(landmarks, ("carina",), ["a"], {}, "l.csv") == []
    with pytest.raises(TableError) as error:
        check_landmarks(landmarks, ("carnia",), ["a"], {}, "l.csv")
    assert str(error.value) == "l.csv: 'carnia' is not a landmark in it; did you mean 'carina'?"
    with pytest.raises(TableError) as error:
        check_landmarks(landmarks, ("carina", "tub tip"), ["a"], {}, "l.csv", ["tube tip", "line tip"])
    assert str(error.value) == (
        "l.csv: 'tub tip' is not a tip (tube tip, line tip), nor a landmark in it; did you mean 'tube tip'?"
    )


def test_landmarks_of_the_sample(sample_folder: Path) -> None:
    landmarks = read_landmarks(sample_folder / "landmarks.csv", "StudyInstanceUID")
    uids = [file.stem for file in (sample_folder / "train").iterdir()]
    names = ("carina", "right diaphragm dome", "left diaphragm dome", "gastro-oesophageal junction")
    assert check_landmarks(landmarks, names, uids, dict.fromkeys(uids, (64, 64)), "landmarks.csv") == []
    for of_image in landmarks.values():
        assert of_image["right diaphragm dome"][0] < of_image["carina"][0] < of_image["left diaphragm dome"][0]
        assert of_image["carina"][1] < of_image["gastro-oesophageal junction"][1]
