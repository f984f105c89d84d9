"""`evaluate.py` of a run that found lines, made by hand so that its numbers can be worked out."""

import base64
import io
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from catheters.commands.evaluation_options import main
from catheters.config.loading import settings_to_json
from catheters.config.settings import Settings
from catheters.errors import UserError
from catheters.io.csv_files import TableError
from tests.browser import SCREEN, Browser

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
    header, ett, cvc, errors, ett_errors, cvc_errors = (line.split() for line in printed[start + 1 : start + 7])
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


def pictures(page: str) -> list[np.ndarray]:
    found = re.findall(r'data:image/jpeg;base64,([^"]+)" alt="[^"]* ETT lines, drawn and predicted"', page)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(picture)))).astype(int) for picture in found]


def test_on_the_page(run: Path, browser: Browser) -> None:
    """The numbers of the screen, and the X-rays of the tips that were not found: drawn lines blue, predicted orange."""
    main([str(run), "--resamples", "0"])
    page = (run / "report.html").read_text()
    far, missed = pictures(page)
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
