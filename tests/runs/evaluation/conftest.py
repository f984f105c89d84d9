"""What the tests of evaluations share."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from catheters.config.loading import settings_to_json
from catheters.config.settings import Settings
from tests.runs.evaluation.lines_by_hand import DRAWN, HEIGHT, IMAGES, LABELS, PREDICTED, WIDTH, write_lines


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
