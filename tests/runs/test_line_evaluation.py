"""`evaluate.py` of a run that found lines, made by hand so that its numbers can be worked out."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from catheters.commands.evaluation_options import main
from catheters.config.loading import settings_to_json
from catheters.config.settings import Settings
from catheters.errors import UserError
from catheters.io.csv_files import TableError

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
    assert header == "lines images tips tips found false per image Dice".split()
    assert ett[:5] == ["ETT", "5", "4", "0.500", "0.400"]  # a0 and e0 of 4; those of a1 and c0 in 5 images
    assert cvc == ["CVC", "6", "0", "undefined", "0.000", "undefined"]
    assert errors[:4] == ["errors", "in", "tip,", "median"]
    assert ett_errors[:6] == ["ETT", "%", "of", "width", "2.75", "missed"]  # of 0, 0.5, 5 and infinity
    assert cvc_errors == "CVC % of width undefined undefined undefined undefined".split()
