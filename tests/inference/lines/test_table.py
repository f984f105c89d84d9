"""The table of predicted lines."""

from pathlib import Path

import numpy as np
import pandas as pd

from catheters.data.annotations import read_annotations
from catheters.inference.lines.prediction import PredictedLine
from catheters.inference.lines.table import write_lines


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
