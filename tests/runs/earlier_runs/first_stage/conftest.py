"""A finished run that finds lines, and the settings of one that sees them."""

import dataclasses
import shutil
from pathlib import Path

import pytest

from catheters.checkpoints.parts import build_preprocessing
from catheters.config.settings import Settings
from catheters.data.cache.writer import build_cache
from catheters.data.tables.label_table import read_label_table
from catheters.runs.build import build_table_source
from catheters.runs.run import train_run
from tests.conftest import tiny_settings


@pytest.fixture(scope="module")
def finder(sample_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A finished run that finds lines, with landmarks, and its cache; not to be changed."""
    settings = dataclasses.replace(
        tiny_settings(sample_folder, tmp_path_factory.mktemp("finder")),
        run_name="finder",
        annotation_table="train_annotations.csv",
        lines="auxiliary",
        line_stride=2,
        cosine_epochs=0,
    )
    build_cache(read_label_table(build_table_source(settings)), settings.cache_file, build_preprocessing(settings))
    train_run(settings, fresh=False)
    return settings


@pytest.fixture
def second(finder: Settings, tmp_path: Path) -> Settings:
    """Settings of a run that sees what `finder` finds, in the test's own folder."""
    shutil.copytree(finder.cache_folder, tmp_path / "cache")
    return dataclasses.replace(
        finder,
        run_name="second",
        lines="input",
        first_stage=str(finder.run_folder),
        annotation_table=None,
        cosine_epochs=1,
        cache_folder=str(tmp_path / "cache"),
        saved_models_folder=str(tmp_path / "saved_models"),
    )
