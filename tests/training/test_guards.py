"""Losses and gradients that are no numbers any more fail with an error that places them and says what to change."""

import dataclasses
import io
import math
import re
from pathlib import Path

import pytest
import torch

from catheters.checkpoints.parts import build_classifier
from catheters.config.settings import Settings
from catheters.data.batch import Batch
from catheters.errors import UserError
from catheters.runs.build import build_step
from catheters.training.guards import MAX_SKIPPED_STEPS
from catheters.training.loop import train_epoch
from catheters.training.step import TrainStep
from tests.conftest import CreateManager

CPU = torch.device("cpu")


def spoil_gradient(step: TrainStep, from_call: int) -> None:
    """Let the head's gradient be infinite from a certain backward pass on."""
    calls = 0

    def change(gradient: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return gradient * math.inf if calls >= from_call else gradient

    step.model.head.linear.weight.register_hook(change)


def batches(number: int) -> list[Batch]:
    return [
        Batch(images=torch.randint(0, 256, (2, 1, 32, 32), dtype=torch.uint8), targets=torch.zeros((2, 11)))
        for _ in range(number)
    ]


@pytest.mark.parametrize("clip_grad_norm", [None, 1.0])
def test_a_gradient_that_is_not_finite_is_placed(
    settings: Settings, tmp_path: Path, clip_grad_norm: float | None, create_manager: CreateManager
) -> None:
    """In the step that ruins the weights: the loss shows it one step later."""
    step = build_step(
        dataclasses.replace(settings, clip_grad_norm=clip_grad_norm), build_classifier(settings, 0.5, 0.25), 60, CPU
    )
    spoil_gradient(step, 4)
    manager, log = create_manager(step, tmp_path, num_batches=60)
    with pytest.raises(
        UserError, match=r"fold 0 epoch 1/1, iteration 4: the norm of the gradients is (inf|nan) \(lear"
    ):
        train_epoch(batches(60), step, manager, log, "")


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")
def test_a_scaler_may_skip_steps_but_not_all(settings: Settings, tmp_path: Path, create_manager: CreateManager) -> None:
    """That is how it finds its scale; a model whose gradients are never finite would never learn anything."""
    for from_call, is_hopeless in ((10**6, False), (1, True)):
        step = build_step(settings, build_classifier(settings, 0.5, 0.25), 50, CPU)
        step.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127)
        spoil_gradient(step, from_call)
        manager, log = create_manager(step, tmp_path / str(from_call), num_batches=50, may_skip=True)
        if is_hopeless:
            with pytest.raises(UserError, match=rf"gradients of {MAX_SKIPPED_STEPS} steps in a row were NaN or infin"):
                train_epoch(batches(50), step, manager, log, "")
        else:
            train_epoch(batches(50), step, manager, log, "")
            line = (tmp_path / str(from_call) / "log.jsonl").read_text()
            skipped = int(re.search(r'"skipped_steps": (\d+)', line)[1])  # type: ignore[index]
            assert 0 < skipped < MAX_SKIPPED_STEPS
            assert step.scaler.get_scale() == 2.0 ** (127 - skipped)


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")
def test_skipped_steps_of_short_epochs_are_counted(
    settings: Settings, tmp_path: Path, create_manager: CreateManager
) -> None:
    step = build_step(settings, build_classifier(settings, 0.5, 0.25), 50, CPU)
    step.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127)
    spoil_gradient(step, 1)
    manager, log = create_manager(step, tmp_path, num_batches=25, num_epochs=2, may_skip=True)
    train_epoch(batches(25), step, manager, log, "")
    log.end_epoch(25, 1e-3, {})
    with pytest.raises(UserError, match=rf"gradients of {MAX_SKIPPED_STEPS} steps in a row were NaN or infin"):
        train_epoch(batches(25), step, manager, log, "")


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")
def test_skipped_steps_are_counted_over_a_snapshot(
    settings: Settings, tmp_path: Path, create_manager: CreateManager
) -> None:
    """25 before it, in a finished epoch, and 15 after resuming; at 14 training continues."""
    step = build_step(settings, build_classifier(settings, 0.5, 0.25), 50, CPU)
    step.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127)
    spoil_gradient(step, 1)
    manager, log = create_manager(step, tmp_path, num_batches=25, num_epochs=2, may_skip=True)
    train_epoch(batches(25), step, manager, log, "")
    log.end_epoch(25, 1e-3, {})
    file = io.BytesIO()
    torch.save(log.state_dict(), file)
    for number in (14, 15):
        manager, resumed = create_manager(step, tmp_path, num_batches=number, num_epochs=2, may_skip=True)
        file.seek(0)
        resumed.load_state_dict(torch.load(file, weights_only=True))
        if number == 15:
            with pytest.raises(UserError, match=rf"gradients of {MAX_SKIPPED_STEPS} steps in a row were NaN or infin"):
                train_epoch(batches(number), step, manager, resumed, "")
        else:
            train_epoch(batches(number), step, manager, resumed, "")
