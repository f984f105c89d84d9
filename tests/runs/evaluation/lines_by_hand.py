"""A run that found lines, made by hand so that what an evaluation says of it can be worked out."""

import base64
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

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


def figures(page: str) -> list[np.ndarray]:
    found = re.findall(r'data:image/jpeg;base64,([^"]+)" alt="[^"]* ETT lines, drawn and predicted"', page)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(figure)))).astype(int) for figure in found]
