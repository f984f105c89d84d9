"""What the tests share: a tiny synthetic data set, its settings, and the real scripts."""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # the tests run side by side; their processes must not fight over the cores
os.environ["HF_HUB_OFFLINE"] = "1"  # a test that asks for weights fails at once, with or without a network

import dataclasses
import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from catheters.checkpoints.finished import write_finished
from catheters.checkpoints.parts import build_preprocessing
from catheters.commands.evaluation_options import main as evaluate
from catheters.config.settings import Settings
from catheters.data.cache.writer import build_cache
from catheters.data.tables.label_table import read_label_table
from catheters.runs.build import build_table_source
from catheters.runs.run import train_run
from catheters.runtime.distributed import ALONE
from catheters.synthetic import generate_sample
from catheters.training.extensions.log import TrainingLog
from catheters.training.manager import Manager
from catheters.training.step import TrainStep
from tests import script_server
from tests.browser import Browser

REPOSITORY = Path(__file__).parents[1]
SHARED_DATA = REPOSITORY.parent / "shared" / "data"

torch.set_num_threads(1)


def sees_gpu(mark_expression: str) -> bool:
    """Whether the tests that `pytest -m` chooses are those of a GPU."""
    return mark_expression.split()[:1] == ["gpu"]


def pytest_configure(config: pytest.Config) -> None:
    """Only `pytest -m gpu` sees a GPU.

    The other tests compare with what a CPU computes, and device=auto would take the GPU; and they fork processes, which
    may not be done where CUDA was started. What they start sees none either. Nothing has asked for a GPU yet.
    """
    if not sees_gpu(config.option.markexpr):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


SLOW_FIXTURES = ("lines_run", "measuring_run")
"""Runs that take seconds to train, once in each process; tests that need one are slow."""


@pytest.hookimpl(tryfirst=True)  # before pytest chooses by marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if set(SLOW_FIXTURES) & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)
    of_gpu = [item for item in items if item.get_closest_marker("gpu") is not None]
    if of_gpu and not torch.cuda.is_available():
        for item in of_gpu:
            item.add_marker(pytest.mark.skip(reason="no CUDA GPU is at hand, or seen: only `pytest -m gpu` sees one"))


@pytest.fixture(scope="session")
def sample_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A synthetic data set of 40 images at 64 px."""
    folder = tmp_path_factory.mktemp("sample")
    generate_sample(folder, num_images=40, num_test_images=4, image_size=64, seed=0, num_workers=1)
    return folder


def tiny_settings(sample_folder: Path, folder: Path) -> Settings:
    """Settings that train a few seconds on `sample_folder` and write into `folder`."""
    return Settings(
        dataset_folder=str(sample_folder),
        cache_folder=str(folder / "cache"),
        cache_name="tiny",
        image_size=32,
        num_folds=2,
        train_transforms=(("HorizontalFlip", {"p": 0.5}),),
        batch_size=8,
        num_workers=0,
        backbone_model="test_resnet",
        pretrained=False,
        channels_last=False,  # None is measured, and may come out either way
        init_lr=1e-3,
        warmup_epochs=1,
        warmup_multiplier=2.0,
        cosine_epochs=1,
        device="cpu",
        saved_models_folder=str(folder / "saved_models"),
        run_name="run",
    )


@pytest.fixture
def settings(sample_folder: Path, tmp_path: Path) -> Settings:
    """The same in the test's own folder."""
    return tiny_settings(sample_folder, tmp_path)


@pytest.fixture
def cached(settings: Settings) -> Settings:
    """The same settings, with the cache built."""
    build_cache(read_label_table(build_table_source(settings)), settings.cache_file, build_preprocessing(settings))
    return settings


@pytest.fixture(scope="session")
def trained_once(sample_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the cache and the run of such settings; not to be changed."""
    folder = tmp_path_factory.mktemp("trained")
    settings = tiny_settings(sample_folder, folder)
    build_cache(read_label_table(build_table_source(settings)), settings.cache_file, build_preprocessing(settings))
    train_run(settings, fresh=False)
    return folder


@pytest.fixture
def trained(settings: Settings, trained_once: Path, tmp_path: Path) -> Settings:
    """The same settings, trained: a copy of one run, which the test may change."""
    shutil.copytree(trained_once, tmp_path, dirs_exist_ok=True)
    return settings


CreateManager = Callable[..., tuple[Manager, TrainingLog]]


@pytest.fixture
def create_manager() -> CreateManager:
    """What `train_epoch` needs besides a step; the log is in the given epoch, from 0."""

    def create(
        step: TrainStep, folder: Path, *, num_batches: int, num_epochs: int = 1, epoch: int = 0, may_skip: bool = False
    ) -> tuple[Manager, TrainingLog]:
        log = TrainingLog(
            folder,
            "fold 0",
            ALONE,
            step.device,
            num_batches=num_batches,
            num_epochs=num_epochs,
            batch_size=2,
            num_models_left=0,
            may_skip=may_skip,
        )
        log.load_state_dict(
            {
                "epoch": epoch,
                "num_in_lines": 0,
                "seconds": 0.0,
                "batches": [],
                "num_bytes": 0,
                "latest_norms": [],
                "latest": [],
            }
        )
        return Manager(step, [log], num_epochs=num_epochs, num_batches=num_batches, folder=folder), log

    return create


@pytest.fixture(scope="session")
def evaluated_run(sample_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a tiny model of two folds, trained for an epoch and evaluated; not to be changed."""
    settings = tiny_settings(sample_folder, tmp_path_factory.mktemp("evaluated"))
    build_cache(read_label_table(build_table_source(settings)), settings.cache_file, build_preprocessing(settings))
    train_run(dataclasses.replace(settings, epochs=1), fresh=False)
    assert evaluate([str(settings.run_folder), "--calibration", "temperature"]) == 0
    return settings.run_folder


@pytest.fixture(scope="session")
def lines_run(sample_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a tiny model that finds lines in the images that it has seen; not to be changed."""
    settings = dataclasses.replace(
        tiny_settings(sample_folder, tmp_path_factory.mktemp("lines")),
        image_size=64,
        annotation_table="train_annotations.csv",
        lines="pooled",
        line_stride=2,
        all_data=True,
        train_transforms=(),
        init_lr=3e-3,
        cosine_epochs=30,
    )
    build_cache(read_label_table(build_table_source(settings)), settings.cache_file, build_preprocessing(settings))
    train_run(settings, fresh=False)
    return settings.run_folder


def join_again(run_folder: Path) -> None:
    """Let a run's predictions, which a test has changed, be those of its folds."""
    folds = [file.relative_to(run_folder).as_posix() for file in run_folder.glob("fold*/predictions.csv")]
    write_finished(run_folder, ("predictions.csv", *folds))


@pytest.fixture
def write_config(tmp_path: Path) -> Callable[[Settings], Path]:
    """Writes settings as a config module."""

    def write(settings: Settings) -> Path:
        values = ", ".join(f"{name}={value!r}" for name, value in dataclasses.asdict(settings).items())
        file = tmp_path / "tiny_config.py"
        file.write_text(f"from catheters import Settings\n\nsettings = Settings({values})\n")
        return file

    return write


def run_script(name: str, *arguments: str | Path, cwd: Path = REPOSITORY) -> subprocess.CompletedProcess[str]:
    """Run one of the scripts at the top, as a user does."""
    return script_server.run([str(REPOSITORY / name), *map(str, arguments)], cwd)


def load_benchmark(name: str) -> ModuleType:
    """A program of benchmarks/, which is no package, as a module."""
    module_name = f"benchmark_{name}"
    specification = importlib.util.spec_from_file_location(module_name, REPOSITORY / "benchmarks" / f"{name}.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[module_name] = module  # its dataclasses look for it there
    specification.loader.exec_module(module)
    return module


def assert_user_error(result: subprocess.CompletedProcess[str], *parts: str) -> None:
    """The command failed as a user's mistake shall: exit status 2, one line that holds `parts`, no traceback."""
    assert result.returncode == 2, result.stderr
    lines = [line for line in result.stderr.splitlines() if not line.startswith("warning: ")]
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("error: ")
    for part in parts:
        assert part in lines[0]


@pytest.fixture
def mount_disk(tmp_path: Path) -> Iterator[Callable[[str, str], Path]]:
    """Mounts disks of a name and mount options such as size=1m; they are gone after the test."""
    folders = []

    def mount(name: str, options: str) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        if subprocess.run(command, capture_output=True, check=False).returncode != 0:
            pytest.skip("disks cannot be mounted here")
        folders.append(folder)
        return folder

    yield mount
    for folder in folders:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def small_disk(mount_disk: Callable[[str, str], Path]) -> Path:
    """A disk of 1 MB."""
    return mount_disk("small_disk", "size=1m")


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    """Chromium; skips the test where there is none."""
    with Browser(tmp_path) as started:
        yield started


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
