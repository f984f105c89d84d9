"""A run of a data set with all that a flow diagram and Table 1 tell of."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from catheters.checkpoints.parts import build_preprocessing
from catheters.commands.evaluation_options import main as evaluate
from catheters.data.cache.writer import build_cache
from catheters.data.tables.label_table import read_label_table
from catheters.runs.build import build_table_source
from catheters.runs.run import train_run
from tests.conftest import tiny_settings

READ_BY = ("CVC - Normal", "NGT - Normal")
LABELS = ("ETT - Normal", *READ_BY)
"""Three of the table's, since most of the time goes into the figures that the page has of each label."""
CHECKLISTS = ("claim2024", "tripod-ai", "stard-ai")


@pytest.fixture(scope="session")
def study_run(sample_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an evaluated run of 40 images less some; not to be changed.

    Of the table's rows, in their order, the first two are dropped by `keep_rows`, the third is listed in `exclude_ids`,
    the fourth has no file, and that of the fifth is no image.
    """
    folder = tmp_path_factory.mktemp("study")
    data = folder / "data"
    shutil.copytree(sample_folder, data)
    table = pd.read_csv(data / "train.csv", dtype=str)
    rng = np.random.default_rng(0)
    table["kept"] = ["no"] * 2 + ["yes"] * 38
    table["Patient Age"] = [f"{age:03}Y" for age in rng.integers(20, 90, 40)]
    table["Sex"] = rng.choice(["F", "M", ""], 40)
    table["note"] = [f"note {number}" for number in range(40)]
    for reader, share in (("A", 0.05), ("B", 0.1), ("C", 0.2)):
        for label in READ_BY:
            said = np.where(rng.random(40) < share, 1 - table[label].astype(int), table[label].astype(int))
            table[f"{label} [{reader}]"] = np.where(rng.random(40) < 0.1, "", said.astype(np.str_))
    table.to_csv(data / "train.csv", index=False)
    uids = table["StudyInstanceUID"].tolist()
    (data / f"train/{uids[3]}.jpg").unlink()
    (data / f"train/{uids[4]}.jpg").write_bytes(b"no image")
    (folder / "listed.txt").write_text(f"{uids[2]}\n")
    settings = dataclasses.replace(
        tiny_settings(data, folder),
        epochs=1,
        label_columns=LABELS,
        keep_rows={"kept": "yes"},
        exclude_ids=str(folder / "listed.txt"),
    )
    build_cache(read_label_table(build_table_source(settings)), settings.cache_file, build_preprocessing(settings))
    train_run(settings, fresh=False)
    run = settings.run_folder
    checklists = [word for key in CHECKLISTS for word in ("--checklist", key)]
    assert evaluate([str(run), "--by", "Sex", *checklists]) == 0
    return run
