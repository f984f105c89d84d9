"""`evaluate.py` of a run that found lines, made by hand so that its numbers can be worked out."""

import base64
import dataclasses
import io
import json
import math
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import catheters
from catheters.commands.evaluation_options import main
from catheters.commands.predict import main as predict
from catheters.config.loading import read_run_settings, settings_to_json
from catheters.config.settings import Settings
from catheters.errors import UserError
from catheters.evaluation.evaluation import Choices
from catheters.io.csv_files import TableError
from catheters.labels import RANZCR_HEADS
from catheters.measurements import PixelSpacing
from catheters.runs.evaluation.inputs import read_run
from catheters.runs.evaluation.line_inputs import build_line_set
from catheters.runs.evaluation.measurement_inputs import build_length_sets
from tests.browser import SCREEN, Browser

pytestmark = pytest.mark.slow  # a page takes seconds to write
LABELS = ("ETT - Abnormal", "ETT - Normal", "CVC - Normal")
WIDTH, HEIGHT = 1000, 800
Row = tuple[str, str, Sequence[tuple[float, float]]]

IMAGES = {  # id -> patient and labels
    "a0": ("a", (0, 1, 0)),
    "a1": ("a", (0, 1, 0)),
    "b0": ("b", (1, 0, 0)),
    "c0": ("c", (0, 0, 0)),
    "d0": ("d", (0, 1, 0)),
    "e0": ("e", (1, 0, 0)),
}
DRAWN: list[Row] = [
    ("a0", "ETT - Normal", [(500, 0), (500, 400)]),
    ("a1", "ETT - Normal", [(500, 400), (500, 0)]),  # from the tip upwards
    ("b0", "ETT - Abnormal", [(600, 0), (600, 500)]),
    ("e0", "ETT - Abnormal", [(700, 0), (700, 300)]),
]
PREDICTED: list[Row] = [
    ("a0", "ETT - Normal", [(503, 0), (503, 404)]),  # 3, 4, 5
    ("a1", "ETT - Normal", [(530, 0), (530, 440)]),  # 30, 40, 50: of 20 pixels that are allowed
    ("c0", "ETT - Abnormal", [(100, 0), (100, 100)]),  # where there is none
    ("d0", "ETT - Normal", [(100, 0), (100, 100)]),  # where nobody drew one
    ("e0", "ETT - Normal", [(700, 0), (700, 300)]),
]


def write_lines(file: Path, rows: list[Row]) -> None:
    lines = [f'{uid},{label},"{json.dumps(points)}"\n' for uid, label, points in rows]
    file.write_text("StudyInstanceUID,label,data\n" + "".join(lines))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder beside its images, without a cache."""
    data = tmp_path / "data"
    (data / "train").mkdir(parents=True)
    table = ["StudyInstanceUID,PatientID," + ",".join(LABELS)]
    predictions = ["StudyInstanceUID,patient,fold," + ",".join(LABELS)]
    for number, (uid, (patient, labels)) in enumerate(IMAGES.items()):
        Image.fromarray(np.full((HEIGHT, WIDTH), 90, dtype=np.uint8)).save(data / f"train/{uid}.jpg")
        table.append(f"{uid},{patient},{','.join(map(str, labels))}")
        fold = ord(patient) % 2
        predictions.append(f"{uid},{patient},{fold},{','.join(str(0.2 + 0.5 * v + 0.01 * number) for v in labels)}")
    (data / "train.csv").write_text("\n".join(table) + "\n")
    write_lines(data / "lines.csv", DRAWN)
    folder = tmp_path / "run"
    folder.mkdir()
    settings = Settings(
        dataset_folder=str(data),
        cache_folder=str(tmp_path / "cache"),
        label_columns=LABELS,
        num_folds=2,
        annotation_table="lines.csv",
        lines="pooled",
        run_name="run",
        saved_models_folder=str(tmp_path),
    )
    (folder / "settings.json").write_text(settings_to_json(settings))
    (folder / "predictions.csv").write_text("\n".join(predictions) + "\n")
    write_lines(folder / "predictions_lines.csv", PREDICTED)
    return folder


def test_on_the_screen(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(run), "--resamples", "0"]) == 0
    printed = capsys.readouterr().out.splitlines()
    (start,) = (row for row, line in enumerate(printed) if line.startswith("lines and tips against"))
    assert printed[start].endswith("lines.csv, where it is known which there are")
    header, ett, cvc, errors, ett_errors, cvc_errors = (line.split() for line in printed[start + 1 : start + 8] if line)
    assert header == ["lines", "images", "tips", "tips", "found", "false", "per", "image", "Dice"]
    assert ett[:5] == ["ETT", "5", "4", "0.500", "0.400"]  # a0 and e0 of 4; those of a1 and c0 in 5 images
    assert cvc == ["CVC", "6", "0", "undefined", "0.000", "undefined"]
    assert errors[:4] == ["errors", "in", "tip,", "median"]
    assert ett_errors[:6] == ["ETT", "%", "of", "width", "2.75", "missed"]  # of 0, 0.5, 5 and infinity
    assert cvc_errors == ["CVC", "%", "of", "width", "undefined", "undefined", "undefined", "undefined"]


def test_in_files(run: Path) -> None:
    main([str(run), "--resamples", "200"])
    lines = json.loads((run / "metrics.json").read_text())["lines"]
    assert lines["predictions"] == str(run / "predictions_lines.csv")
    assert lines["annotations"] == str(run.parent / "data/lines.csv")
    assert lines["found_within"] == {"mm": 10, "share_of_width": 0.02}
    ett, cvc = lines["per_device"]
    assert (ett["device_type"], ett["num_images"], ett["num_tips"], ett["num_pairs"]) == ("ETT", 5, 4, 3)
    assert ett["tips_found"]["value"] == 0.5
    assert ett["tips_found"]["low"] < 0.5 < ett["tips_found"]["high"]
    median, upper = ett["tip_error"]["median"], ett["tip_error"]["percentile_90"]
    assert median["value"] == pytest.approx(0.0275)
    assert (median["high"], median["missed"]) == (None, ["high"])
    assert (upper["value"], upper["high"], upper["missed"]) == (None, None, ["value", "high"])
    assert ett["tip_error_mm"]["median"] == {"value": None, "low": None, "high": None, "missed": []}
    assert cvc["tips_found"] == {"value": None, "low": None, "high": None}
    table = pd.read_csv(run / "metrics.csv")
    of_lines = table[table["of"] == "lines"].set_index(["name", "metric"])["value"]
    assert of_lines["ETT", "tips_found"] == 0.5
    assert of_lines["ETT", "tip_error_percentile_90"] == math.inf
    cases = pd.read_csv(run / "lines_cases.csv", dtype={"patient": str})
    far, missed = cases.to_dict("records")
    assert (far["StudyInstanceUID"], far["patient"], far["device_type"], far["error"]) == ("a1", "a", "ETT", "far off")
    assert (far["tip_x"], far["tip_y"], far["predicted_x"], far["predicted_y"]) == (500, 400, 530, 440)
    assert far["share_of_width"] == pytest.approx(0.05)
    assert (missed["StudyInstanceUID"], missed["error"]) == ("b0", "missed")
    assert np.isnan([missed["predicted_x"], missed["share_of_width"], missed["mm"]]).all()


def test_no_line_predicted(run: Path) -> None:
    """A table without rows is one."""
    write_lines(run / "predictions_lines.csv", [])
    main([str(run), "--resamples", "0"])
    ett, _ = json.loads((run / "metrics.json").read_text())["lines"]["per_device"]
    assert (ett["tips_found"]["value"], ett["false_lines_per_image"]["value"], ett["dice"]["value"]) == (0, 0, 0)
    assert ett["tip_error"]["median"] == {"value": None, "low": None, "high": None, "missed": ["value"]}
    assert ett["centreline_distance"]["median"]["value"] is None
    assert len(pd.read_csv(run / "lines_cases.csv")) == 4


def test_a_run_without_lines(run: Path) -> None:
    (run / "predictions_lines.csv").unlink()
    (run / "lines_cases.csv").write_text("of an earlier evaluation")
    main([str(run), "--resamples", "0"])
    assert json.loads((run / "metrics.json").read_text())["lines"] is None
    assert not (run / "lines_cases.csv").exists()


def test_other_annotations(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A table of one's own, with an id that no image has: a0 and e0 are drawn otherwise, and b0 is not."""
    file = tmp_path / "mine.csv"
    write_lines(
        file,
        [
            ("a0", "ETT - Normal", [(503, 0), (503, 404)]),
            ("e0", "ETT - Abnormal", [(700, 0), (700, 310)]),
            ("gone", "ETT - Normal", [(1, 1)]),
        ],
    )
    main([str(run), "--annotations", str(file), "--resamples", "0"])
    assert "mine.csv: 1 of its 3 ids without a row in the label table, the first is gone" in capsys.readouterr().err
    ett, _ = json.loads((run / "metrics.json").read_text())["lines"]["per_device"]
    assert (ett["num_images"], ett["num_tips"], ett["tips_found"]["value"]) == (3, 2, 1)  # a0, c0 and e0
    assert ett["tip_error"]["median"]["value"] == pytest.approx(0.005)  # 0 and 10 pixels
    assert ett["false_lines_per_image"]["value"] == pytest.approx(1 / 3)


def test_a_line_that_is_drawn_twice(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two equal rows are one line."""
    write_lines(run.parent / "data/lines.csv", [*DRAWN, DRAWN[0]])
    main([str(run), "--resamples", "0"])
    assert "1 row the same as an earlier one" in capsys.readouterr().err
    ett, _ = json.loads((run / "metrics.json").read_text())["lines"]["per_device"]
    assert (ett["num_tips"], ett["tips_found"]["value"]) == (4, 0.5)


def test_an_ensemble_reads_no_lines(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nor what is wrong with them."""
    (run.parent / "data/lines.csv").write_text("broken")
    other = run.parent / "other"
    shutil.copytree(run, other)
    assert main([str(run), str(other), "--ensemble", "mean", "--resamples", "0"]) == 0
    assert "lines" not in capsys.readouterr().err
    assert json.loads((run.parent / "ensemble/metrics.json").read_text())["lines"] is None


def test_annotations_of_other_images(run: Path, tmp_path: Path) -> None:
    """Ids with a suffix: an error, for a warning would scroll away."""
    file = tmp_path / "mine.csv"
    write_lines(file, [(f"{uid}.jpg", label, points) for uid, label, points in DRAWN])
    with pytest.raises(TableError, match=r"none of its ids, such as a0\.jpg, is in the label table; a0\.jpg and"):
        main([str(run), "--annotations", str(file)])


def test_annotations_that_are_not_there(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The run's own are passed over with a warning, others are a mistake."""
    (run.parent / "data/lines.csv").unlink()
    main([str(run), "--resamples", "0"])
    assert "lines.csv, which is not here, so no lines are compared; say --annotations FILE" in capsys.readouterr().err
    assert json.loads((run / "metrics.json").read_text())["lines"] is None
    with pytest.raises(TableError, match=r"mine\.csv: no such file"):
        main([str(run), "--annotations", "mine.csv", "--resamples", "0"])
    (run / "predictions_lines.csv").unlink()
    with pytest.raises(UserError, match=r"predictions_lines\.csv: no such file, so there are no lines to compare with"):
        main([str(run), "--annotations", "mine.csv", "--resamples", "0"])


def test_a_table_that_is_no_annotation_table(run: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.csv"
    file.write_text('StudyInstanceUID,label,data\na0,ETT - Normal,"[[1]]"\n')
    with pytest.raises(TableError, match=r"mine\.csv: line 2, column 'data': '\[\[1\]\]' is not a list of points"):
        main([str(run), "--annotations", str(file)])


def test_an_image_that_cannot_be_read(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its size is not known, so nothing is known of its lines."""
    (run.parent / "data/train/a1.jpg").write_text("no image")
    main([str(run), "--resamples", "0"])
    assert "the size of 1 image is not known, a1 for one: nothing is known of their lines" in capsys.readouterr().err
    ett, _ = json.loads((run / "metrics.json").read_text())["lines"]["per_device"]
    assert (ett["num_images"], ett["num_tips"]) == (4, 3)


def figures(page: str) -> list[np.ndarray]:
    found = re.findall(r'data:image/jpeg;base64,([^"]+)" alt="[^"]* ETT lines, drawn and predicted"', page)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(figure)))).astype(int) for figure in found]


def test_on_the_page(run: Path, browser: Browser) -> None:
    """The numbers of the screen, and the X-rays of the tips that were not found: drawn lines blue, predicted orange."""
    main([str(run), "--resamples", "0"])
    page = (run / "report.html").read_text()
    assert '<td data-value="Infinity">missed</td>' in page  # which JavaScript sorts as a number
    far, missed = figures(page)
    assert far.shape == (336, 420, 3)  # of 800 x 1000
    red, _, blue = far[100, 210]  # on the drawn line, 500 of 1000 across
    assert blue > red + 60
    red, _, blue = far[100, 223]  # on the predicted one, 530 of 1000
    assert red > blue + 60
    assert np.ptp(missed[100, 223]) < 30  # nothing but grey
    browser.show(SCREEN)
    browser.open((run / "report.html").as_uri())
    cells = (
        "[...document.querySelector('#lines').parentElement.querySelectorAll('tbody tr')].map((row) => row.innerText)"
    )
    assert [row.split("\t") for row in browser.evaluate(cells)] == [
        ["ETT", "5", "4", "0.500", "0.400", "0.458"],
        ["CVC", "6", "0", "undefined", "0.000", "undefined"],
        ["ETT", "4", "2.75", "missed", "3", "0.30", "2.49"],
        ["CVC", "0", "undefined", "undefined", "0", "undefined", "undefined"],
    ]
    assert browser.evaluate("document.querySelector('nav a[href=\"#lines\"]').textContent") == "Lines and tips"
    assert browser.console == []
    assert browser.cut_boxes() == []
    browser.evaluate("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
    browser.assert_readable()


def test_the_page_of_a_run_without_lines(run: Path) -> None:
    (run / "predictions_lines.csv").unlink()
    main([str(run), "--resamples", "0"])
    assert "#lines" not in (run / "report.html").read_text()


@pytest.fixture
def measured(run: Path) -> Path:
    """The same run, which measured from the tip to the carina, and has a rule for it.

    The tips of a0, a1, b0 and e0 are drawn at 400, 400, 500 and 300. Their carinas are at 480, 480, 540 and none: true
    lengths of 80, 80 and 40 pixels of 800, 10%, 10% and 5% of the height. Predicted ones are 88 and 120 of a0 and a1.
    """
    settings = read_run_settings(run / "settings.json")
    measurements = {"ETT tip above carina": ("ETT tip", "carina", "vertical")}
    settings = dataclasses.replace(settings, landmark_table="landmarks.csv", measurements=measurements)
    (run / "settings.json").write_text(settings_to_json(settings))
    carinas = {"a0": 480, "a1": 480, "b0": 540, "c0": 500, "d0": 500}
    rows = [f"{uid},carina,500,{y}" for uid, y in carinas.items()]
    (run.parent / "data/landmarks.csv").write_text("\n".join(["StudyInstanceUID,name,x,y", *rows]) + "\n")
    write_measurements(run, [("a0", 404, 492, "Normal"), ("a1", 440, 560, "Abnormal"), ("e0", 300, 360, "Abnormal")])
    return run


def write_measurements(run: Path, rows: list[tuple[str, int, int, str]]) -> None:
    """Id, heights of the tip and the carina, label by rule."""
    header = "StudyInstanceUID,measurement,start_x,start_y,end_x,end_y,pixels,mm,share_of_height,label_by_rule,doubt"
    name = "ETT tip above carina"
    lines = [f"{uid},{name},500,{y},500,{to},{to - y},,{(to - y) / 800},ETT - {label}," for uid, y, to, label in rows]
    (run / "predictions_measurements.csv").write_text("\n".join([header, *lines]) + "\n")


def test_measurements(measured: Path, browser: Browser, capsys: pytest.CaptureFixture[str]) -> None:
    """Differences of 1% (11 - 10) and 5% (15 - 10) of the height: 3% and 1.96 deviations of 2.83%."""
    main([str(measured), "--resamples", "0"])
    lines = json.loads((measured / "metrics.json").read_text())["lines"]
    (entry,) = lines["measurements"]
    assert (entry["measurement"], entry["unit"]) == ("ETT tip above carina", "% of the image's height")
    assert (entry["num_true"], entry["num_pairs"], entry["measured"]["value"]) == (3, 2, pytest.approx(2 / 3))
    assert entry["mean_difference"]["value"] == pytest.approx(3)
    assert entry["lower_limit"]["value"] == pytest.approx(3 - 1.96 * 8**0.5)
    assert entry["upper_limit"]["value"] == pytest.approx(3 + 1.96 * 8**0.5)
    assert entry["median_absolute_error"]["value"] == pytest.approx(3)
    # In truth a0 and a1 are normal, e0 is not; the probabilities are right in all of them.
    (rule,) = lines["labels_by_rule"]
    assert rule["num_images"] == 3
    rates = {name: estimate["value"] for name, estimate in rule["accuracy"].items()}
    assert rates == pytest.approx({"by_rule": 2 / 3, "by_model": 1, "difference": -1 / 3})
    assert rule["disagreement"]["value"] == pytest.approx(1 / 3)
    abnormal, normal = rule["per_label"]
    assert (abnormal["label"], abnormal["num_positives"], normal["num_positives"]) == ("ETT - Abnormal", 1, 2)
    assert abnormal["specificity"]["by_rule"]["value"] == 0.5
    assert normal["sensitivity"]["by_rule"]["value"] == 0.5
    printed = capsys.readouterr().out
    assert re.search(
        r"^ETT tip above carina  % of the image's height +3 +2 +0\.667 +3\.00 +-2\.54 +8\.54 +3\.00$", printed, re.M
    )
    assert re.search(r"^ETT tip above carina, 3 images +accuracy +0\.667 +1\.000 +-0\.333$", printed, re.M)
    table = pd.read_csv(measured / "metrics.csv").set_index(["of", "name", "metric"])["value"]
    assert table["measurement", "ETT tip above carina", "mean_difference"] == pytest.approx(3)
    assert table["label by rule", "ETT tip above carina: ETT - Normal", "sensitivity_by_rule"] == 0.5
    page = (measured / "report.html").read_text()
    assert "2 pairs: mean difference 3.00 % of the image&#39;s height, limits of agreement -2.54 to 8.54" in page
    assert "They disagree in 0.333 of the images." in page
    browser.show(SCREEN)
    browser.open((measured / "report.html").as_uri())
    assert browser.console == []
    assert browser.cut_boxes() == []
    browser.assert_readable()


def test_nothing_measured(measured: Path) -> None:
    """A table without rows is one; there are true lengths all the same."""
    write_measurements(measured, [])
    main([str(measured), "--resamples", "200"])
    lines = json.loads((measured / "metrics.json").read_text())["lines"]
    (entry,) = lines["measurements"]
    assert (entry["num_true"], entry["num_pairs"], entry["measured"]["value"]) == (3, 0, 0)
    assert entry["mean_difference"]["value"] is None
    assert lines["labels_by_rule"] == []


def test_landmarks_that_are_not_there(measured: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (measured.parent / "data/landmarks.csv").unlink()
    main([str(measured), "--resamples", "0"])
    assert "landmarks.csv, which is not here, so no lengths from a landmark are compared" in capsys.readouterr().err
    lines = json.loads((measured / "metrics.json").read_text())["lines"]
    assert lines["measurements"][0]["num_true"] == 0
    assert lines["labels_by_rule"][0]["num_images"] == 3


def test_spacing_that_is_not_there(measured: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = json.loads((measured / "settings.json").read_text())
    (measured / "settings.json").write_text(json.dumps({**content, "spacing_table": "gone.csv"}))
    main([str(measured), "--resamples", "0"])
    assert "gone.csv, which is not here, so no length is in mm" in capsys.readouterr().err
    assert json.loads((measured / "metrics.json").read_text())["lines"]["measurements"][0]["num_pairs"] > 0


@pytest.mark.parametrize(
    ("old", "new", "part"),
    [
        (
            ",404,",
            ",four,",
            "line 2, column 'start_y': 'four' is not a finite number; pixels of the X-ray are expected",
        ),
        (",88,,", ",88,-,", "line 2, column 'mm': '-' is not a finite number; lengths in mm are expected"),
        (",doubt", ",doubt,doubt", "column 'doubt' stands twice in the header"),
        ("start_x", "from_x", "'start_x' is not a column"),
        ("a0,", ",", "column 'StudyInstanceUID'"),
    ],
)
def test_measurements_that_cannot_be_read(measured: Path, old: str, new: str, part: str) -> None:
    file = measured / "predictions_measurements.csv"
    file.write_text(file.read_text().replace(old, new, 1))
    with pytest.raises(TableError) as error:
        main([str(measured), "--resamples", "0"])
    assert part in str(error.value)


def test_measurements_of_another_name(measured: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = measured / "predictions_measurements.csv"
    file.write_text(file.read_text().replace("ETT tip above carina", "CVC tip above carina", 1))
    main([str(measured), "--resamples", "0"])
    assert "measurements that the settings do not have are passed over: CVC tip above" in capsys.readouterr().err
    assert json.loads((measured / "metrics.json").read_text())["lines"]["measurements"][0]["num_pairs"] == 1


@pytest.fixture
def others(run: Path) -> list[str]:
    """Arguments for the same predictions in a file of their own, with their lines beside it."""
    data = run.parent / "data"
    (run / "predictions.csv").rename(run.parent / "out.csv")
    (run / "predictions_lines.csv").rename(run.parent / "out_lines.csv")
    return ["--predictions", str(run.parent / "out.csv"), "--labels", str(data / "train.csv"), "--resamples", "0"]


def test_lines_beside_a_file(others: list[str], run: Path) -> None:
    """As predict.py writes them; the images are found from the label table."""
    annotations = str(run.parent / "data/lines.csv")
    main([*others, "--annotations", annotations, "--images", "train/{uid}.jpg"])
    folder = run.parent / "out_evaluation"
    ett, _ = json.loads((folder / "metrics.json").read_text())["lines"]["per_device"]
    assert (ett["num_images"], ett["tips_found"]["value"], ett["false_lines_per_image"]["value"]) == (5, 0.5, 0.4)
    assert len(figures((folder / "report.html").read_text())) == 2
    result = catheters.evaluate(
        others[1], others[3], annotations=annotations, images="train/{uid}.jpg", choices=Choices(num_resamples=0)
    )
    assert result.evaluation.lines is not None
    assert result.evaluation.lines.per_device[0].summary.found.value == 0.5
    with pytest.raises(UserError, match="say with --images where these are"):
        main([*others, "--annotations", annotations])
    with pytest.raises(UserError, match=r"--images \{uid\}\.png: none of the images is there, .*a0\.png for one"):
        main([*others, "--images", "{uid}.png"])
    with pytest.raises(UserError, match=r"--images train: .*\{uid\} or a \{column\} of the table is expected"):
        main([*others, "--images", "train"])
    (run.parent / "out_lines.csv").unlink()
    with pytest.raises(TableError, match=r"out_lines\.csv: no such file"):
        main([*others, "--annotations", annotations, "--images", "train/{uid}.jpg"])


def test_device_types_of_ones_own(others: list[str], run: Path) -> None:
    """As a config names them; without one nobody knows which line is of which."""
    data, config = run.parent / "data", run.parent / "mine.py"
    for file in (data / "train.csv", data / "lines.csv", run.parent / "out.csv", run.parent / "out_lines.csv"):
        text = file.read_text()
        for old, new in zip(LABELS, ("tube bad", "tube ok", "port"), strict=True):
            text = text.replace(old, new)
        file.write_text(text)
    config.write_text(
        "from catheters import Settings\n"
        'settings = Settings(label_columns=["tube bad", "tube ok", "port", "drain"],\n'
        '    heads={"tube": ["tube ok", "tube bad"], "port": ["port"], "drain": ["drain"]})\n'
    )
    options = [*others, "--annotations", str(data / "lines.csv"), "--images", "train/{uid}.jpg"]
    with pytest.raises(UserError, match=r"none of the labels is of a device type.* heads, in a config that --config"):
        main(options)
    main([*options, "--config", str(config)])
    tube, port = json.loads((run.parent / "out_evaluation/metrics.json").read_text())["lines"]["per_device"]
    assert (tube["device_type"], tube["num_tips"], tube["tips_found"]["value"]) == ("tube", 4, 0.5)
    assert (port["device_type"], port["num_tips"]) == ("port", 0)


def test_a_file_without_lines(others: list[str], run: Path) -> None:
    """Images alone show the hardest cases."""
    main([*others, "--images", "train/{uid}.jpg"])
    folder = run.parent / "out_evaluation"
    assert json.loads((folder / "metrics.json").read_text())["lines"] is None


def test_options_that_do_not_go_together(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for options, part in (
        (["--images", "{uid}.jpg"], "--images goes with --predictions"),
        ([str(run.parent), "--ensemble", "mean", "--annotations", "x.csv"], "--annotations goes with single models"),
    ):
        with pytest.raises(SystemExit):
            main([str(run), *options])
        assert part in capsys.readouterr().err


def test_spacing_and_measurements_in_mm(measured: Path) -> None:
    """0.5 mm per pixel: tips are found within 10 mm, 20 pixels, and the tip of a0 is 40 mm above its carina."""
    settings = read_run_settings(measured / "settings.json")
    given = read_run(measured, None)
    assert given.lines is not None and given.lines.measurements is not None
    spacings = {uid: PixelSpacing((0.5, 0.5)) for uid in ("a0", "a1")}
    tables = dataclasses.replace(given.lines, spacings=spacings)
    lines = build_line_set(tables, given.evaluated, settings.device_types)
    np.testing.assert_array_equal(lines.mm_per_pixel[:, 0], [0.5, 0.5, *[math.nan] * 4])
    (lengths,) = build_length_sets(given.lines.measurements, lines, given.evaluated.uids.tolist())
    assert [[length.mm for length in of_image] for of_image in lengths.true[:2]] == [[40], [40]]
    assert [length.share_of_height for length in lengths.true[2]] == pytest.approx([0.05])
    assert math.isnan(lengths.true[2][0].mm)
    assert [len(of_image) for of_image in lengths.true] == [1, 1, 1, 0, 0, 0]  # no tip, an unknown one, no carina


def test_a_trained_model(
    lines_run: Path, sample_folder: Path, tmp_path: Path, browser: Browser, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its lines in images that it has seen, as a file and as a run's, whose cache has the sizes of the X-rays.

    What is said of endotracheal tubes is worked out anew: an image has one tube at most.
    """
    out = tmp_path / "p.csv"
    predict(
        ["--model", str(lines_run), str(sample_folder / "train"), "--out", str(out), "--lines", str(tmp_path / "l")]
    )
    tables = ["--labels", str(sample_folder / "train.csv"), "--patient-column", "PatientID"]
    annotations = ["--annotations", str(sample_folder / "train_annotations.csv"), "--images", "train/{uid}.jpg"]
    main(["--predictions", str(out), *tables, *annotations, "--resamples", "100"])
    of_file = json.loads((tmp_path / "p_evaluation/metrics.json").read_text())["lines"]

    run = tmp_path / "run"
    run.mkdir()
    settings = dataclasses.replace(read_run_settings(lines_run / "settings.json"), all_data=False)
    (run / "settings.json").write_text(settings_to_json(settings))
    out.rename(run / "predictions.csv")
    (tmp_path / "p_lines.csv").rename(run / "predictions_lines.csv")
    main([str(run), "--resamples", "100"])
    of_run = json.loads((run / "metrics.json").read_text())["lines"]
    assert of_run["per_device"] == of_file["per_device"]
    assert [entry["device_type"] for entry in of_run["per_device"]] == list(RANZCR_HEADS)

    labels = pd.read_csv(sample_folder / "train.csv", index_col="StudyInstanceUID")
    drawn, found = (
        {
            uid: [np.array(json.loads(points)) for points in of_image]
            for uid, of_image in table[table["label"].isin(RANZCR_HEADS["ETT"])].groupby("StudyInstanceUID")["data"]
        }
        for table in (
            pd.read_csv(sample_folder / "train_annotations.csv"),
            pd.read_csv(run / "predictions_lines.csv"),
        )
    )
    errors, num_false, num_images = [], 0, 0
    for uid, row in labels.iterrows():
        has_tube = row[list(RANZCR_HEADS["ETT"])].any()
        if has_tube and uid not in drawn:
            continue
        num_images += 1
        tips = [line[-1] for line in found.get(uid, [])]
        if has_tube:
            (line,) = drawn[uid]
            tip = max(line[0], line[-1], key=lambda point: float(point[1]))  # tubes come in from above
            with Image.open(sample_folder / f"train/{uid}.jpg") as xray:
                width = xray.width
            errors.append(min((math.dist(tip, other) / width for other in tips), default=math.inf))
        num_false += len(tips) - (has_tube and errors[-1] <= 0.02)
    ett = of_run["per_device"][0]
    assert (ett["num_images"], ett["num_tips"]) == (num_images, len(errors))
    assert ett["tips_found"]["value"] == pytest.approx(np.mean(np.array(errors) <= 0.02))
    assert ett["tips_found"]["value"] > 0.3
    assert ett["tip_error"]["median"]["value"] == pytest.approx(np.median(errors))
    assert ett["false_lines_per_image"]["value"] == pytest.approx(num_false / num_images)
    assert 0.3 < ett["dice"]["value"] < 1
    assert 0 < ett["centreline_distance"]["median"]["value"] < 0.05
    assert capsys.readouterr().out.count("lines and tips against") == 2
    browser.show(SCREEN)
    browser.open((run / "report.html").as_uri())
    assert browser.console == []
    assert browser.cut_boxes() == []
    browser.evaluate("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
    browser.assert_readable()
