"""Several ranks whose batches know little: every parameter has a gradient, so that no rank waits for another's."""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from catheters.config.settings import Settings
from catheters.data.batch import Batch
from catheters.labels import RANZCR_HEADS
from catheters.runtime.distributed import joined_torchrun, process_group
from catheters.training.step import TrainStep
from tests.processes import environments_of_ranks, run_in_forks
from tests.training.mixed import CPU, mixed_step
from tests.training.test_line_losses import line_batch

pytestmark = pytest.mark.filterwarnings("ignore:Grad strides do not match bucket view strides")


def knows_nothing(batch: Batch) -> Batch:
    """No label and no line of it is known, and no tip is drawn in it."""
    assert batch.tips is not None and batch.lines_known is not None
    tips = batch.tips.clone()
    tips[:, :, 4] = 0
    return dataclasses.replace(
        batch,
        labels_known=torch.zeros_like(batch.targets),
        lines_known=torch.zeros_like(batch.lines_known),
        tips=tips,
    )


def of_lines(settings: Settings, lines: str, classifier: str) -> Settings:
    return dataclasses.replace(
        settings,
        lines=lines,
        annotation_table="train_annotations.csv",
        image_size=64,
        classifier=classifier,
        heads=dict(RANZCR_HEADS) if classifier == "attention" else {},
        exclusive={"ETT": RANZCR_HEADS["ETT"]},
        init_lr=1e-3,
    )


@pytest.mark.parametrize("classifier", ["linear", "attention"])
@pytest.mark.parametrize("lines", ["auxiliary", "pooled"])
def test_a_batch_that_knows_nothing_has_gradients_of_zero(settings: Settings, lines: str, classifier: str) -> None:
    """Zero, and not none: what torch's data parallelism has to be told of otherwise."""
    step = mixed_step(of_lines(settings, lines, classifier), None)
    batch = knows_nothing(line_batch(2))
    losses = step.losses(step.model(batch.images), batch)
    sum(losses.values()).backward()  # type: ignore[union-attr]
    for name, parameter in step.model.named_parameters():
        assert parameter.grad is not None, name
        assert not parameter.grad.any(), name


def train_two(work: Callable[[TrainStep, int], object], settings: Settings) -> None:
    """Let two ranks each work with a step of one model."""

    def join(rank: int, environment: dict[str, str]) -> None:
        os.environ.update(environment)
        with joined_torchrun() as torchrun, process_group(torchrun, CPU) as processes:
            work(mixed_step(settings, None, processes=processes), rank)

    ranks = enumerate(environments_of_ranks(2))
    run_in_forks([lambda rank=rank, environment=environment: join(rank, environment) for rank, environment in ranks])


@pytest.mark.slow
@pytest.mark.parametrize(("lines", "classifier"), [("auxiliary", "attention"), ("pooled", "linear")])
def test_ranks_of_which_one_knows_nothing(settings: Settings, tmp_path: Path, lines: str, classifier: str) -> None:
    """Then both: no rank hangs or raises, and all have the same weights."""

    def train(step: TrainStep, rank: int) -> None:
        batch = line_batch(2)
        for is_known in ((True, True), (True, False), (False, False), (False, True)):
            step(batch if is_known[rank] else knows_nothing(batch))
        torch.save([value.detach() for value in step.model.parameters()], tmp_path / f"{rank}.pt")

    train_two(train, of_lines(settings, lines, classifier))
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    assert all(map(torch.equal, first, second))


@pytest.mark.slow
def test_a_part_that_no_loss_reads_is_refused_by_torch(settings: Settings) -> None:
    """In the second step, on every rank, as a loss of one's own may do; it does not hang."""

    def train(step: TrainStep, rank: int) -> None:
        step.losses.lines = None
        step(line_batch(2))
        with pytest.raises(RuntimeError, match="Expected to have finished reduction in the prior iteration"):
            step(line_batch(2))

    train_two(train, of_lines(settings, "auxiliary", "linear"))
