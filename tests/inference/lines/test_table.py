"""The table of predicted lines."""

from pathlib import Path

import numpy as np
import pandas as pd

from catheters.data.annotations import read_annotations
from catheters.inference.lines.landmarks import FoundLandmark
from catheters.inference.lines.measuring import plan, take_measurements
from catheters.inference.lines.prediction import PredictedLine
from catheters.inference.lines.table import write_lines, write_measurements
from catheters.measurement_rules import Rule
from catheters.measurements import NO_SPACING, PixelSpacing


def test_lines_are_an_annotation_table(tmp_path: Path) -> None:
    """Read back as one, to a tenth of a pixel; without any line there are the columns alone."""
    rng = np.random.default_rng(0)
    courses = [rng.uniform(-3, 4000, size=(number, 2)) for number in (2, 40, 3)]
    lines = [
        PredictedLine(
            device_type="CVC",
            label=f"CVC, {number}",
            points=points,
            confidence=2 / 3,
            tip_probability=0.0,
            length=1234.56,
        )
        for number, points in enumerate(courses)
    ]
    file = tmp_path / "lines.csv"
    write_lines(file, "StudyInstanceUID", [("a", lines[1]), ("a", lines[2]), ("c", lines[0])])
    read = read_annotations(file, "StudyInstanceUID")
    assert list(read) == ["a", "c"]
    assert [of_image.label for of_image in read["a"]] == ["CVC, 1", "CVC, 2"]
    for of_image, points in zip([*read["a"], *read["c"]], [*courses[1:], courses[0]], strict=True):
        assert np.abs(of_image.points - points).max() <= 0.05 + 1e-9
    table = pd.read_csv(file)
    assert list(table.columns[3:]) == ["device_type", "tip_x", "tip_y", "confidence", "tip_probability", "length"]
    assert table.iloc[2, 3:].tolist() == ["CVC", *courses[0][-1].round(1), 0.6667, 0.0, 1234.6]
    write_lines(file, "StudyInstanceUID", [])
    assert pd.read_csv(file).shape == (0, 9)


def test_measurements_are_a_table(tmp_path: Path) -> None:
    """One row per pair of points; where mm are not known, the cell is blank and the doubt says why."""
    planned = plan(
        {"height": ("ETT tip", "carina", "vertical")},
        {"height": Rule("mm", ((None, 20.0, "ETT - Abnormal"), (20.0, None, "ETT - Normal")))},
    )
    tubes = [
        PredictedLine(
            device_type="ETT",
            label="ETT - Normal",
            points=np.array([[0.0, 0.0], tip]),
            confidence=0.9,
            tip_probability=0.9,
            length=1.0,
        )
        for tip in ([100.123, 40.0], [110.0, 190.0])
    ]
    carina: dict[str, FoundLandmark | None] = {"carina": FoundLandmark(x=105.0, y=140.0, probability=0.9)}
    file = tmp_path / "m.csv"
    taken = [
        (uid, each)
        for uid, spacing in (("007", PixelSpacing((0.24, 0.25), "as the film says")), ("a, b", None))
        for each in take_measurements(planned, tubes, ["ETT"], carina, spacing, (400, 300))
    ]
    write_measurements(file, "StudyInstanceUID", taken)
    table = pd.read_csv(file, dtype=str, keep_default_na=False)
    assert table.to_dict("split")["columns"] == [
        "StudyInstanceUID",
        *("measurement", "start_x", "start_y", "end_x", "end_y", "pixels", "mm", "share_of_height"),
        *("label_by_rule", "doubt"),
    ]
    unknown = f"{NO_SPACING}; the rule is in mm, so it gives no label"
    assert table.to_numpy().tolist() == [
        [
            "007",
            "height",
            "100.12",
            "40.0",
            "105.0",
            "140.0",
            "100.0",
            "25.0",
            "0.25",
            "ETT - Normal",
            "as the film says",
        ],
        [
            "007",
            "height",
            "110.0",
            "190.0",
            "105.0",
            "140.0",
            "-50.0",
            "-12.5",
            "-0.125",
            "ETT - Abnormal",
            "as the film says",
        ],
        ["a, b", "height", "100.12", "40.0", "105.0", "140.0", "100.0", "", "0.25", "", unknown],
        ["a, b", "height", "110.0", "190.0", "105.0", "140.0", "-50.0", "", "-0.125", "", unknown],
    ]
    write_measurements(file, "StudyInstanceUID", [])
    assert pd.read_csv(file).shape == (0, 11)
