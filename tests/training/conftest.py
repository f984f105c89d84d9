"""A run that has been trained, and the parts of the loop by themselves."""

from collections.abc import Callable
from pathlib import Path

import pytest

from catheters.settings import Settings
from catheters.training.distributed import ALONE
from catheters.training.log import TrainingLog
from catheters.training.manager import Manager
from catheters.training.run import train_run
from catheters.training.step import TrainStep
from tests.processes import Training, processes_of


@pytest.fixture
def trained(cached: Settings) -> Settings:
    train_run(cached, fresh=False)
    return cached


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


def start_processes(settings: Settings, folder: Path, count: int) -> list[Training]:
    """So many processes of one run, each with its output in `out<rank>`."""
    return [
        Training(settings, folder / f"out{rank}", environment) for rank, environment in enumerate(processes_of(count))
    ]


def train_with_processes(settings: Settings, folder: Path, count: int) -> None:
    """Train with so many processes until all have ended well."""
    trainings = start_processes(settings, folder, count)
    statuses = [training.wait() for training in trainings]
    assert statuses == [0] * count, "\n".join(training.text for training in trainings)
