"""Lines that a teacher sees are learnt where nobody has drawn any, those of the model of the fold alone."""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from catheters.checkpoints.checkpoint import load_checkpoint
from catheters.checkpoints.finished import write_finished
from catheters.config.settings import Settings
from catheters.data.annotations import Annotation
from catheters.data.line_targets import DrawnLines, LineTargets, draw_line
from catheters.data.preprocessing import Placement
from catheters.errors import UserError
from catheters.models.outputs import Outputs
from catheters.polylines import resample
from catheters.runs.datasets import load_data, split_samples
from catheters.runs.earlier_runs.teacher import find_teacher, with_teacher, write_probabilities
from catheters.runs.earlier_runs.teacher_lines import (
    LINE,
    MAX_LINES,
    NO_LINE,
    NOT_TO_BE_USED,
    find_rows,
    with_lines_of_teacher,
)
from catheters.runs.preproc import preproc
from catheters.runs.run import train_run
from tests.conftest import tiny_settings

COLUMNS = ("A 0", "A 1", "B")
TYPES = {"A": ("A 0", "A 1"), "B": ("B",)}
TYPE_COLUMNS = ((0, 1), (2,))
SIDE = 64
UNKNOWN = np.nan


def no_rows(num_images: int) -> np.ndarray:
    rows = np.zeros((num_images, MAX_LINES), dtype=LINE)
    rows["device_type"] = NO_LINE
    return rows


def put(rows: np.ndarray, image: int, place: int, device_type: int, column: int, **sureness: float) -> np.ndarray:
    """A line in the rows; its (32, 2) points."""
    line = rows[image, place]
    line["device_type"], line["column"] = device_type, column
    line["confidence"], line["tip_probability"] = sureness.get("line", 0.95), sureness.get("tip", 0.8)
    line["points"] = np.linspace((5, 5 + image), (40 + place, 50), 32)
    return np.array(line["points"])


def nothing_drawn(labels: np.ndarray, annotations: list[list[Annotation]] | None = None) -> DrawnLines:
    shapes = [(SIDE, SIDE)] * len(labels)
    places = [Placement((1, 1), (0, 0))] * len(labels)
    drawn = annotations or [[] for _ in labels]
    return DrawnLines.of(drawn, places, shapes, labels.astype(np.float32), COLUMNS, TYPES)


def lines_in(lines: DrawnLines, image: int) -> list[tuple[int, int, np.ndarray]]:
    slices, types, columns = lines.lines_of(image)
    points = lines.points_of(image)
    return [(int(t), int(c), points[s]) for s, t, c in zip(slices, types, columns, strict=True)]


def test_what_a_teacher_is_sure_of_becomes_known() -> None:
    labels = np.array(
        [
            [UNKNOWN, UNKNOWN, UNKNOWN],  # 0: both lines of A seen, B nowhere
            [1, 0, UNKNOWN],  # 1: the table says which label, against the teacher's
            [1, 1, UNKNOWN],  # 2: two hold, and the teacher sees a line of one: the other would be taught as absent
            [UNKNOWN, UNKNOWN, UNKNOWN],  # 3: one of two lines is unsure
            [UNKNOWN, UNKNOWN, UNKNOWN],  # 4: a tip without height
            [0, 0, UNKNOWN],  # 5: the table says that there is none
            [UNKNOWN, UNKNOWN, UNKNOWN],  # 6: seen, though the teacher holds it for absent
            [UNKNOWN, UNKNOWN, UNKNOWN],  # 7: too many lines
            [1, 1, UNKNOWN],  # 8: two hold, and both are seen
        ],
        dtype=np.float32,
    )
    probabilities = np.tile(np.float32([0.9, 0.2, 0.05]), (9, 1))
    probabilities[6] = 0.3
    rows = no_rows(9)
    first = put(rows, 0, 0, 0, 0)
    second = put(rows, 0, 1, 0, 1)
    third = put(rows, 1, 0, 0, 1)
    put(rows, 2, 0, 0, 1)
    put(rows, 3, 0, 0, 0)
    put(rows, 3, 1, 0, 0, line=0.85)
    put(rows, 4, 0, 0, 0, tip=0.45)
    put(rows, 5, 0, 0, 0)
    put(rows, 6, 0, 0, 0)
    rows[7]["device_type"] = NOT_TO_BE_USED
    pair = [put(rows, 8, 0, 0, 1), put(rows, 8, 1, 0, 0)]
    learnt = with_lines_of_teacher(nothing_drawn(labels), rows, labels, probabilities, TYPE_COLUMNS)
    expected = {0: [(0, 0, first), (0, 1, second)], 1: [(0, 0, third)], 8: [(0, 1, pair[0]), (0, 0, pair[1])]}
    for image in range(9):
        found = lines_in(learnt, image)
        assert [line[:2] for line in found] == [line[:2] for line in expected.get(image, [])]
        for line, true in zip(found, expected.get(image, []), strict=True):
            np.testing.assert_array_equal(line[2], true[2])
    assert learnt.is_known[:, 0].tolist() == [True, True, False, False, False, True, False, False, True]
    # no line of B, .05 or .3 that it is there
    assert learnt.is_known[:, 1].tolist() == [True, True, True, True, True, True, False, False, True]


def test_a_label_that_cannot_be_the_lines_leaves_it_unknown() -> None:
    """The teacher's label is known to be wrong, and which other one holds is not known."""
    labels = np.array([[0, UNKNOWN, 0]], dtype=np.float32)
    rows = no_rows(1)
    put(rows, 0, 0, 0, 0)
    probabilities = np.float32([[0.9, 0.9, 0]])
    learnt = with_lines_of_teacher(nothing_drawn(labels), rows, labels, probabilities, TYPE_COLUMNS)
    assert not learnt.is_known[0, 0]
    assert not lines_in(learnt, 0)


def test_what_is_drawn_stays() -> None:
    """An image keeps its own lines; where some of a device type's are missing, the teacher's would be there twice."""
    labels = np.array([[1, 0, 1], [1, 1, 0]], dtype=np.float32)
    drawn = [[Annotation("A 0", np.array([[3.0, 3], [30, 40]]))], [Annotation("A 0", np.array([[3.0, 3], [30, 40]]))]]
    own = nothing_drawn(labels, drawn)
    assert own.is_known.tolist() == [[True, False], [False, True]]
    rows = no_rows(2)
    put(rows, 0, 0, 0, 0)
    of_b = put(rows, 0, 1, 1, 2)
    put(rows, 1, 0, 0, 1)
    learnt = with_lines_of_teacher(own, rows, labels, np.ones((2, 3), np.float32), TYPE_COLUMNS)
    assert learnt.is_known.tolist() == [[True, True], [False, True]]
    (first, second), (third,) = lines_in(learnt, 0), lines_in(learnt, 1)
    np.testing.assert_array_equal(first[2], lines_in(own, 0)[0][2])
    assert second[:2] == (1, 2)
    np.testing.assert_array_equal(second[2], of_b)
    np.testing.assert_array_equal(third[2], lines_in(own, 1)[0][2])


@pytest.fixture(scope="module")
def finder(sample_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A finished run that finds lines, whose weights the last tests change."""
    settings = dataclasses.replace(
        tiny_settings(sample_folder, tmp_path_factory.mktemp("finder")),
        run_name="finder",
        annotation_table="train_annotations.csv",
        lines="auxiliary",
        line_stride=2,
        landmark_table="landmarks.csv",
        measurements={"ETT tip above carina": ("ETT tip", "carina", "vertical")},
        cosine_epochs=0,
    )
    preproc(settings)
    train_run(settings, fresh=False)
    return settings


def test_a_line_on_the_maps_becomes_the_same_target(finder: Settings) -> None:
    """From a model's maps to the mask that the student learns: the line that was drawn into them."""
    finder = dataclasses.replace(finder, image_size=128)  # of 16 pixels a map shows no line
    checkpoint = dataclasses.replace(load_checkpoint(finder.run_folder / "fold0/best.pt"), settings=finder)
    types = list(finder.device_types)
    height, width = finder.map_shape
    line = np.array([[width * 0.5, 0.0], [width * 0.45, height * 0.3], [width * 0.55, height * 0.7]])
    mask = np.zeros((height, width), np.uint8)
    draw_line(line, mask)
    y, x = np.mgrid[:height, :width]
    along = resample(line, 0.1)
    distance = np.hypot(x[..., None] - along[:, 0], y[..., None] - along[:, 1]).min(axis=2)
    bump = np.exp(-((x - line[-1, 0]) ** 2 + (y - line[-1, 1]) ** 2) / 8)
    shape = (1, len(types), height, width)
    lines, tips = torch.full(shape, -9.0), torch.full(shape, -9.0)
    lines[0, 2] = torch.from_numpy(np.where(distance < 0.75, 6.0, -9.0))
    tips[0, 2] = torch.logit(torch.from_numpy(bump), eps=1e-4)
    landmarks = torch.zeros(1, 1, height, width)
    outputs = Outputs(logits=torch.zeros(1, 11), line_logits=lines, tip_logits=tips, landmark_logits=landmarks)
    images = torch.zeros(1, 1, *finder.image_shape)
    probabilities = np.full((1, 11), 0.05, np.float32)
    probabilities[0, 8] = 0.9
    rows = find_rows([checkpoint], [outputs], images, probabilities, finder.label_columns)
    of_none = dataclasses.replace(outputs, tip_logits=torch.full(shape, torch.nan))
    blind = find_rows([checkpoint], [of_none], images, probabilities, finder.label_columns)
    assert (blind["device_type"] == NOT_TO_BE_USED).all()
    assert rows["device_type"][0].tolist() == [2] + (MAX_LINES - 1) * [NO_LINE]
    assert finder.label_columns[int(rows["column"][0, 0])] == finder.label_columns[8]
    scale = finder.image_shape[1] / width
    np.testing.assert_allclose(rows["points"][0, 0, -1], (line[-1] + 0.5) * scale - 0.5, atol=scale)

    labels = np.full((1, 11), np.nan, np.float32)
    columns = [[finder.label_columns.index(label) for label in of_type] for of_type in finder.device_types.values()]
    places = [Placement((1, 1), (0, 0))]
    own = DrawnLines.of([[]], places, [finder.image_shape], labels, finder.label_columns, finder.device_types)
    learnt = with_lines_of_teacher(own, rows, labels, probabilities, columns)
    targets = LineTargets(lines=learnt, image_shape=finder.image_shape, map_shape=(height, width), max_lines=1)
    drawn = targets.draw(0, targets.points_of(0))
    overlap = 2 * np.minimum(drawn["line_masks"][2], mask).sum() / (drawn["line_masks"][2].sum() + mask.sum())
    assert overlap > 0.7
    assert drawn["lines_known"].tolist() == [1, 1, 1, 1]
    np.testing.assert_allclose(drawn["tips"][0, :2], line[-1], atol=1)


def test_no_fold_learns_lines_of_a_model_that_saw_its_images(
    finder: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The model of fold 0 is made to see nothing anywhere, that of fold 1 to be unsure: each student learns its own."""
    table = pd.read_csv(Path(finder.dataset_folder) / "train.csv", dtype=str)
    folds = pd.read_csv(finder.run_folder / "predictions.csv", dtype=str).set_index("StudyInstanceUID")["fold"]
    table["fold"] = folds.loc[table["StudyInstanceUID"]].to_numpy()
    table.loc[1::2, list(finder.label_columns)] = ""
    table.to_csv(tmp_path / "gaps.csv", index=False)
    student = dataclasses.replace(
        finder,
        run_name="student",
        teacher=str(finder.run_folder),
        label_table=str(tmp_path / "gaps.csv"),
        label_values={"": "unknown"},
        fold_column="fold",
    )
    for fold, logit in ((0, -4.0), (1, 0.0)):  # .018 and one half, of every label
        plant(finder.run_folder / f"fold{fold}/best.pt", logit)
    data = load_data(student)
    assert data.lines is not None
    teacher = find_teacher(student, data)
    write_probabilities(student, data, teacher, torch.device("cpu"))
    taught = with_teacher(student, data, teacher)
    sees_nothing, is_unsure = taught.learnt_lines(0), taught.learnt_lines(1)
    assert sees_nothing is not None and is_unsure is not None
    is_gap, is_drawn = np.isnan(data.labels).any(axis=1), data.lines.is_drawn
    assert is_gap.sum() == 20
    np.testing.assert_array_equal(sees_nothing.is_known, data.lines.is_known | (is_gap[:, None] & ~is_drawn))
    np.testing.assert_array_equal(is_unsure.is_known, data.lines.is_known)
    num_open = int((is_gap & ~is_drawn[:, 0] & (data.folds != 0)).sum())
    said = capsys.readouterr().out
    assert f"lines of ETT, by the teacher of fold 0: seen in 0 images more, absent in {num_open} more, still" in said
    for fold, learnt in ((0, sees_nothing), (1, is_unsure)):
        train, valid = split_samples(student, taught, fold)
        known = np.array([train[0, position]["lines_known"].numpy() for position in range(len(train))])
        np.testing.assert_array_equal(known, learnt.is_known[data.folds != fold])
        assert "lines_known" not in valid[0, 0]


def plant(file: Path, logit: float) -> None:
    """Let a model see no line anywhere, and answer every image with this logit of every label."""
    content = torch.load(file, weights_only=True)
    for name in ("lines", "tips"):
        content["model"][f"decoder.{name}.weight"].zero_()
        content["model"][f"decoder.{name}.bias"].fill_(-1e4)
    content["model"]["head.linear.weight"].zero_()
    content["model"]["head.linear.bias"].fill_(logit)
    torch.save(content, file)
    write_finished(file.parent)


def test_a_teacher_of_other_device_types_is_refused(finder: Settings) -> None:
    labels = finder.label_columns
    heads = {"tubes": labels[:7], "lines": labels[7:]}
    student = dataclasses.replace(
        finder, run_name="student", teacher=str(finder.run_folder), heads=heads, landmark_table=None, measurements={}
    )
    with pytest.raises(UserError, match=r"its device types \(ETT, NGT, CVC, Swan Ganz\) or their labels are others"):
        find_teacher(student, load_data(student))
