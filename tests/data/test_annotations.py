"""Drawn catheters: what is read, what is refused, and which end is the tip."""

import re
from pathlib import Path

import numpy as np
import pytest

from catheters.config.settings import Settings
from catheters.data.annotations import Annotation, check_annotations, check_drawn_labels, read_annotations
from catheters.data.tables.label_table import read_label_table
from catheters.io.csv_files import TableError
from catheters.labels import RANZCR_HEADS, RANZCR_LABELS
from catheters.runs.build import build_table_source


def write_table(file: Path, *rows: str) -> Path:
    file.write_text("\n".join(["StudyInstanceUID,label,data", *rows]) + "\n")
    return file


def test_catheters_of_an_image_in_the_order_of_the_file(tmp_path: Path) -> None:
    file = write_table(
        tmp_path / "a.csv",
        '1.2,CVC - Normal,"[[10, 20], [30, 40]]"',
        '0.9,ETT - Normal,"[[1, 2]]"',
        '1.2,NGT - Normal,"[[-3, 0.5], [7, -2], [1e2, 3]]"',
    )
    annotations = read_annotations(file, "StudyInstanceUID")
    assert {uid: [annotation.label for annotation in of_image] for uid, of_image in annotations.items()} == {
        "1.2": ["CVC - Normal", "NGT - Normal"],
        "0.9": ["ETT - Normal"],
    }
    points = annotations["1.2"][1].points
    assert points.dtype == np.float64
    assert points.tolist() == [[-3.0, 0.5], [7.0, -2.0], [100.0, 3.0]]


@pytest.mark.parametrize(
    "data",
    [
        "7",
        "{}",
        "[[1, 2], [3]]",
        "[[1, 2, 3]]",
        "[1, 2]",
        "[[1, '2']]",
        '[[1, ""2""]]',
        "[[1, null]]",
        "[[true, 2]]",
        "[[1, NaN]]",
        "[[1, 1e999]]",
        f"[[1, 1{'0' * 400}]]",
        "[[1, 2]",
        "[[1, 2]] + [[3, 4]]",
        "__import__('os').getcwd()",
        "[" * 100_000,
    ],
)
def test_what_is_no_list_of_points(tmp_path: Path, data: str) -> None:
    file = write_table(tmp_path / "a.csv", '1.2,CVC - Normal,"[[10, 20]]"', f'1.3,CVC - Normal,"{data}"')
    with pytest.raises(TableError) as error:
        read_annotations(file, "StudyInstanceUID")
    message = str(error.value)
    assert message.startswith(f"{file}: line 3, column 'data': ")
    assert message.endswith("is not a list of points; [[x, y], [x, y], ...] in pixels of the X-ray is expected")
    assert len(message) < 400
    assert "\n" not in message


def test_an_image_without_a_line_has_no_row(tmp_path: Path) -> None:
    for data in ("[]", ""):
        file = write_table(tmp_path / "a.csv", f"7,ETT - Normal,{data}")
        with pytest.raises(TableError) as error:
            read_annotations(file, "StudyInstanceUID")
        assert str(error.value) == (
            f"{file}: line 2, column 'data': '{data}' is not a list of points; [[x, y], [x, y], ...] in pixels of the "
            "X-ray is expected; an image without a line has no row"
        )
    with pytest.raises(TableError, match=r"a\.csv: no rows; .* and one row per line is expected$"):
        read_annotations(write_table(file), "StudyInstanceUID")


def test_missing_columns_and_values(tmp_path: Path) -> None:
    file = write_table(tmp_path / "a.csv", '1.2,,"[[10, 20]]"')
    with pytest.raises(TableError, match="column 'label' is empty in line 2"):
        read_annotations(file, "StudyInstanceUID")
    with pytest.raises(TableError, match="'StudyUID' is not a column; did you mean 'StudyInstanceUID'"):
        read_annotations(file, "StudyUID")
    with pytest.raises(TableError, match="no such file"):
        read_annotations(tmp_path / "b.csv", "StudyInstanceUID")


@pytest.mark.parametrize(
    ("points", "tip"),
    [
        # The first image of RANZCR's table has one traced from the tip up, one from the neck down; both shortened.
        ([[1487, 1279], [1477, 1168], [1434, 640], [1387, 497]], 0),
        ([[1328, 7], [1347, 101], [1400, 428], [1417, 760]], -1),
        ([[-3, 500], [600, 300], [1200, 900]], -1),  # from an arm
        ([[1200, 900], [600, 300], [-3, 500]], 0),
        ([[1250, 10], [1300, 1900], [1500, 2060]], -1),  # out of the image below: nothing comes in from there
        ([[1500, 2060], [1300, 1900], [1250, 10]], 0),
        ([[1000, 700], [1100, 900], [1000, 700]], -1),
        ([[1000, 700]], -1),
    ],
)
def test_tip(points: list[list[float]], tip: int) -> None:
    annotation = Annotation("CVC - Normal", np.array(points, dtype=np.float64))
    assert annotation.tip((2048, 2500)) == tip
    assert annotation.towards_tip((2048, 2500))[-1].tolist() == [float(value) for value in points[tip]]
    assert annotation.towards_tip((2048, 2500))[0].tolist() == [float(value) for value in points[-1 - tip]]


def test_tips_of_the_sample(settings: Settings, sample_folder: Path) -> None:
    """Its catheters are written from the entry to the tip, its coils and its tips in wrong veins too."""
    annotations = read_annotations(sample_folder / "train_annotations.csv", "StudyInstanceUID")
    assert set(annotations) <= set(read_label_table(build_table_source(settings)).uids.tolist())
    for of_image in annotations.values():
        for annotation in of_image:
            assert annotation.tip((64, 64)) == -1


HEADS = {"ETT": ("ETT - Normal", "ETT - Abnormal"), "CVC": ("CVC - Normal",)}
LABELS = ("ETT - Normal", "ETT - Abnormal", "CVC - Normal")


def traced(label: str, *points: tuple[float, float]) -> Annotation:
    return Annotation(label, np.array(points, dtype=np.float64))


def test_sound_annotations_are_not_warned_of() -> None:
    annotations = {
        "a": [traced("ETT - Abnormal", (-5, 0), (104, 62)), traced("CVC - Normal", (1, 2))],
        "b": [traced(label, (1, 2), end) for label, end in (("CVC - Normal", (9, 3)), ("ETT - Normal", (9, 2)))],
    }
    shapes = {"a": (60, 100), "b": (60, 100)}
    assert check_annotations(annotations, LABELS, HEADS, ["a", "b", "c"], shapes, "t.csv") == []


def test_everything_that_is_warned_of() -> None:
    annotations = {
        "a": [traced("ETT - Nomral", (1, 2)), traced("CVC - Normal", (9, 9), (700, 9)), traced("Drain", (1, 1))],
        "z": [traced("ETT - Normal", (1e6, 2)), traced("ETT - Normal", (1e6, 2))],  # of no image
        "b": [traced("Drain", (3, 4), (5, 6))] * 3 + [traced("Drain", (3, 4))],
    }
    assert check_annotations(annotations, LABELS, HEADS, ["a", "b"], {"a": (60, 100), "b": (60, 100)}, "t.csv") == [
        "t.csv: 1 of its 3 ids without a row in the label table, the first is z",
        "t.csv: 6 rows of labels that are not in label_columns, ETT - Nomral, Drain: 'ETT - Nomral' is not one of "
        "them; did you mean 'ETT - Normal'?",
        "t.csv: 1 point of 1 image more than 5% of a side beyond the edge, the first at x=700, y=9 of a, which has "
        "100 x 60 pixels; pixels of the original image are expected, not of a copy of another size",
        "t.csv: 3 rows the same as an earlier one, in 2 images such as z",
        "t.csv: 5 rows with a single point, which is a tip without a line: [[x, y], [x, y], ...] along the catheter is "
        "expected",
        "t.csv: no image of the label table has an annotation of ETT",
    ]


def test_drawings_that_contradict_the_labels() -> None:
    """Rows of a are contradicted, of b known to be right or unknown, of c soft, of d of no image."""
    labels = ("CVC - Normal", "CVC - Abnormal")
    lines = [traced(label, (1, 2), (3, 4)) for label in ("CVC - Abnormal", "CVC - Normal", "Drain", "CVC - Abnormal")]
    annotations = {"d": lines, "b": lines, "a": lines, "c": lines}
    targets = np.array([[1.0, 0.0], [1.0, np.nan], [0.1, 0.5]], dtype=np.float32)
    assert check_drawn_labels(annotations, ["a", "b", "c"], targets, labels, "t.csv") == [
        "t.csv: 2 rows of 1 image with a label that is 0 in the label table, the first is 'CVC - Abnormal' of a; a "
        "drawing or a label is wrong there, and both are learnt"
    ]
    assert check_drawn_labels(annotations, ["b", "c"], targets[1:], labels, "t.csv") == []


@pytest.mark.parametrize(
    ("factor", "message"),
    [
        (1 / 100, "all points lie between -1 and 1, such as x=0.5, y=0; pixels of the original image are expected"),
        (4, "points of 5 of 6 images lie far beyond the edge, such as x=200, y=0 of image 0, which has 100 x 60 pix"),
    ],
)
def test_points_that_are_no_pixels(factor: float, message: str) -> None:
    """Parts of the sides, or pixels of a larger copy, in nearly all images."""
    annotations = {
        f"image {number}": [traced("ETT - Normal", (factor * 50, 0), (factor * 50, factor * 50))] for number in range(5)
    }
    annotations["small"] = [traced("ETT - Normal", (0.5, 0.0), (0.5, 0.5))]
    shapes = dict.fromkeys(annotations, (60, 100))
    with pytest.raises(TableError, match=re.escape(message)):
        check_annotations(annotations, LABELS, HEADS, list(annotations), shapes, "t.csv")


def test_annotations_of_the_sample_are_sound(sample_folder: Path) -> None:
    annotations = read_annotations(sample_folder / "train_annotations.csv", "StudyInstanceUID")
    uids = [file.stem for file in (sample_folder / "train").iterdir()]
    shapes = dict.fromkeys(uids, (64, 64))
    assert check_annotations(annotations, RANZCR_LABELS, RANZCR_HEADS, uids, shapes, "t.csv") == []
