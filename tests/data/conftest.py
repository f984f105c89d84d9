"""What the tests of data share."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from catheters.data.tables.label_table import LabelTable


@pytest.fixture
def table(tmp_path: Path, rng: np.random.Generator) -> LabelTable:
    """Five PNGs of 16 x 16."""
    folder = tmp_path / "sources"
    folder.mkdir()
    paths = tuple(folder / f"{i}.png" for i in range(5))
    for path in paths:
        cv2.imwrite(str(path), rng.integers(0, 256, (16, 16), dtype=np.uint8))
    return LabelTable(
        uids=np.array([path.stem for path in paths]),
        patient_ids=np.array(["p"] * 5),
        paths=paths,
        labels=np.zeros((5, 1), dtype=np.float32),
        targets=np.zeros((5, 1), dtype=np.float32),
        label_columns=("L",),
    )
