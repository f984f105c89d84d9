"""`evaluate.py` of a run that measured."""

import dataclasses
import json
import math
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from catheters.commands.evaluation_options import main
from catheters.config.loading import read_run_settings, settings_to_json
from catheters.io.csv_files import TableError
from catheters.measurements import PixelSpacing
from catheters.runs.evaluation.inputs import read_run
from catheters.runs.evaluation.line_inputs import build_line_set
from catheters.runs.evaluation.measurement_inputs import build_length_sets
from tests.browser import SCREEN, Browser

pytestmark = pytest.mark.slow  # a page takes seconds to write


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
    main([str(measured)])
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
    printed = re.sub(r" \([^)]* to [^)]*\)†?", "", capsys.readouterr().out)
    assert re.search(
        r"^ETT tip above carina  % of the image's height +3 +2 +0\.667 +3\.00 +-2\.54 +8\.54 +3\.00$", printed, re.M
    )
    assert re.search(r"^ETT tip above carina +accuracy +3 +0\.667 +1\.000 +-0\.333$", printed, re.M)
    assert re.search(r"^ETT - Abnormal +sensitivity +1 .*\nETT - Abnormal +specificity +2 +0\.500", printed, re.M)
    assert re.search(r"^predicted - true .* upper limit +median absolute$", printed, re.M)
    table = pd.read_csv(measured / "metrics.csv").set_index(["of", "name", "metric"])["value"]
    assert table["measurement", "ETT tip above carina", "mean_difference"] == pytest.approx(3)
    assert table["label by rule", "ETT tip above carina: ETT - Normal", "sensitivity_by_rule"] == 0.5
    page = re.sub(r" \([^)]* to [^)]*\)†?", "", (measured / "report.html").read_text())
    assert "2 pairs: mean difference 3.00 % of the image&#39;s height, limits of agreement -2.54 to 8.54" in page
    assert "They disagree in 0.333 of the images." in page
    assert '<tr><th scope="row">ETT - Normal</th><td>specificity</td><td>1</td>' in page
    assert "several labels by rule" not in page + printed and "no label of the device type" not in page + printed
    browser.show(SCREEN)
    browser.open((measured / "report.html").as_uri())
    assert browser.console == []
    assert browser.cut_boxes() == []
    browser.assert_readable()


def test_how_several_labels_and_none_are_counted_is_said(measured: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """a0, which is normal, has both labels: half right. c0 has no label of the tube: wrong, by rule and by model."""
    rows = [("a0", 404, 492, "Normal"), ("a0", 440, 460, "Abnormal"), ("c0", 440, 560, "Abnormal")]
    write_measurements(measured, rows)
    main([str(measured)])
    (rule,) = json.loads((measured / "metrics.json").read_text())["lines"]["labels_by_rule"]
    assert (rule["num_images"], rule["num_several"], rule["num_without_label"]) == (2, 1, 1)
    assert (rule["accuracy"]["by_rule"]["value"], rule["accuracy"]["by_model"]["value"]) == (0.25, 0.5)
    counts = [(label["num_positives"], label["num_negatives"]) for label in rule["per_label"]]
    assert counts == [(0, 2), (1, 1)]
    printed, page = capsys.readouterr().out, (measured / "report.html").read_text()
    for said in (printed, page):
        assert "1 image with several labels by rule: in its accuracy each counts as the share" in said
        assert "1 image with no label of the device type: any label is wrong there, by rule and by model." in said
    assert "Positives</th>" not in page


def test_nothing_measured(measured: Path) -> None:
    """A table without rows is one; there are true lengths all the same."""
    write_measurements(measured, [])
    main([str(measured)])
    lines = json.loads((measured / "metrics.json").read_text())["lines"]
    (entry,) = lines["measurements"]
    assert (entry["num_true"], entry["num_pairs"], entry["measured"]["value"]) == (3, 0, 0)
    assert entry["mean_difference"]["value"] is None
    assert lines["labels_by_rule"] == []


def test_landmarks_that_are_not_there(measured: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (measured.parent / "data/landmarks.csv").unlink()
    main([str(measured)])
    assert "landmarks.csv, which is not here, so no lengths from a landmark are compared" in capsys.readouterr().err
    lines = json.loads((measured / "metrics.json").read_text())["lines"]
    assert lines["measurements"][0]["num_true"] == 0
    assert lines["labels_by_rule"][0]["num_images"] == 3


def test_spacing_that_is_not_there(measured: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = json.loads((measured / "settings.json").read_text())
    (measured / "settings.json").write_text(json.dumps({**content, "spacing_table": "gone.csv"}))
    main([str(measured)])
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
        main([str(measured)])
    assert part in str(error.value)


def test_measurements_of_another_name(measured: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = measured / "predictions_measurements.csv"
    file.write_text(file.read_text().replace("ETT tip above carina", "CVC tip above carina", 1))
    main([str(measured)])
    assert "measurements that the settings do not have are passed over: CVC tip above" in capsys.readouterr().err
    assert json.loads((measured / "metrics.json").read_text())["lines"]["measurements"][0]["num_pairs"] == 1


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
