"""`evaluate.py` of a run that found lines."""

import dataclasses
import json
import math
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from catheters.commands.evaluation_options import main
from catheters.commands.predict import main as predict
from catheters.config.loading import read_run_settings, settings_to_json
from catheters.errors import UserError
from catheters.io.csv_files import TableError
from catheters.labels import RANZCR_HEADS
from tests.browser import SCREEN, Browser
from tests.runs.evaluation.lines_by_hand import DRAWN, figures, write_lines

pytestmark = pytest.mark.slow  # a page takes seconds to write


def without_intervals(text: str) -> str:
    """0.500 (0.029 to 0.971)† -> 0.500."""
    return re.sub(r" \([^)]* to [^)]*\)†?", "", text)


def test_on_the_screen(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(run)]) == 0
    printed = without_intervals(capsys.readouterr().out).splitlines()
    (start,) = (row for row, line in enumerate(printed) if line.startswith("lines and tips against"))
    assert printed[start].endswith("lines.csv, where it is known which there are")
    header, ett, cvc, errors, ett_errors, cvc_errors = (line.split() for line in printed[start + 1 : start + 8] if line)
    assert header == ["lines", "images", "tips", "tips", "found", "false", "per", "image", "Dice"]
    assert ett[:5] == ["ETT", "5", "4", "0.500", "0.400"]  # a0 and e0 of 4; those of a1 and c0 in 5 images
    assert cvc == ["CVC", "6", "0", "undefined", "0.000", "undefined"]
    assert errors[:5] == ["errors", "in", "tips", "tip,", "median"]
    assert ett_errors[:7] == ["ETT", "%", "of", "width", "4", "2.75", "missed"]  # of 0, 0.5, 5 and infinity
    assert ett_errors[7] == "3"  # lines
    assert cvc_errors == ["CVC", "%", "of", "width", "0", *["undefined"] * 2, "0", *["undefined"] * 2]


def test_in_files(run: Path) -> None:
    main([str(run)])
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
    assert ett["tip_error_mm"]["median"] == {
        "value": None, "low": None, "high": None, "few_patients": False, "missed": []
    }  # fmt: skip
    assert cvc["tips_found"] == {"value": None, "low": None, "high": None, "few_patients": False}
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
    main([str(run)])
    ett, _ = json.loads((run / "metrics.json").read_text())["lines"]["per_device"]
    assert (ett["tips_found"]["value"], ett["false_lines_per_image"]["value"], ett["dice"]["value"]) == (0, 0, 0)
    assert ett["tip_error"]["median"] == {
        "value": None, "low": None, "high": None, "few_patients": True, "missed": ["value", "low", "high"]
    }  # fmt: skip
    assert ett["centreline_distance"]["median"]["value"] is None
    assert len(pd.read_csv(run / "lines_cases.csv")) == 4


def test_a_run_without_lines(run: Path) -> None:
    (run / "predictions_lines.csv").unlink()
    (run / "lines_cases.csv").write_text("of an earlier evaluation")
    main([str(run)])
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
    main([str(run), "--annotations", str(file)])
    assert "mine.csv: 1 of its 3 ids without a row in the label table, the first is gone" in capsys.readouterr().err
    ett, _ = json.loads((run / "metrics.json").read_text())["lines"]["per_device"]
    assert (ett["num_images"], ett["num_tips"], ett["tips_found"]["value"]) == (3, 2, 1)  # a0, c0 and e0
    assert ett["tip_error"]["median"]["value"] == pytest.approx(0.005)  # 0 and 10 pixels
    assert ett["false_lines_per_image"]["value"] == pytest.approx(1 / 3)


def test_a_line_that_is_drawn_twice(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two equal rows are one line."""
    write_lines(run.parent / "data/lines.csv", [*DRAWN, DRAWN[0]])
    main([str(run)])
    assert "1 row the same as an earlier one" in capsys.readouterr().err
    ett, _ = json.loads((run / "metrics.json").read_text())["lines"]["per_device"]
    assert (ett["num_tips"], ett["tips_found"]["value"]) == (4, 0.5)


def test_an_ensemble_reads_no_lines(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nor what is wrong with them."""
    (run.parent / "data/lines.csv").write_text("broken")
    other = run.parent / "other"
    shutil.copytree(run, other)
    assert main([str(run), str(other), "--ensemble", "mean"]) == 0
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
    main([str(run)])
    assert "lines.csv, which is not here, so no lines are compared; say --annotations FILE" in capsys.readouterr().err
    assert json.loads((run / "metrics.json").read_text())["lines"] is None
    with pytest.raises(TableError, match=r"mine\.csv: no such file"):
        main([str(run), "--annotations", "mine.csv"])
    (run / "predictions_lines.csv").unlink()
    with pytest.raises(UserError, match=r"predictions_lines\.csv: no such file, so there are no lines to compare with"):
        main([str(run), "--annotations", "mine.csv"])


def test_a_table_that_is_no_annotation_table(run: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.csv"
    file.write_text('StudyInstanceUID,label,data\na0,ETT - Normal,"[[1]]"\n')
    with pytest.raises(TableError, match=r"mine\.csv: line 2, column 'data': '\[\[1\]\]' is not a list of points"):
        main([str(run), "--annotations", str(file)])


def test_an_image_that_cannot_be_read(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its size is not known, so nothing is known of its lines."""
    (run.parent / "data/train/a1.jpg").write_text("no image")
    main([str(run)])
    assert "the size of 1 image is not known, a1 for one: nothing is known of their lines" in capsys.readouterr().err
    ett, _ = json.loads((run / "metrics.json").read_text())["lines"]["per_device"]
    assert (ett["num_images"], ett["num_tips"]) == (4, 3)


def test_on_the_page(run: Path, browser: Browser) -> None:
    """The numbers of the screen, and the X-rays of the tips that were not found: drawn lines blue, predicted orange."""
    main([str(run)])
    page = (run / "report.html").read_text()
    assert '<td data-value="Infinity">missed (' in page  # which JavaScript sorts as a number
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
    assert [without_intervals(row).split("\t") for row in browser.evaluate(cells)] == [
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
    main([str(run)])
    assert "#lines" not in (run / "report.html").read_text()


def test_options_that_do_not_go_together(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for options, part in (
        (["--images", "{uid}.jpg"], "--images goes with --predictions"),
        ([str(run.parent), "--ensemble", "mean", "--annotations", "x.csv"], "--annotations goes with single models"),
    ):
        with pytest.raises(SystemExit):
            main([str(run), *options])
        assert part in capsys.readouterr().err


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
    main(["--predictions", str(out), *tables, *annotations])
    of_file = json.loads((tmp_path / "p_evaluation/metrics.json").read_text())["lines"]

    run = tmp_path / "run"
    run.mkdir()
    settings = dataclasses.replace(read_run_settings(lines_run / "settings.json"), all_data=False)
    (run / "settings.json").write_text(settings_to_json(settings))
    out.rename(run / "predictions.csv")
    (tmp_path / "p_lines.csv").rename(run / "predictions_lines.csv")
    main([str(run)])
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
