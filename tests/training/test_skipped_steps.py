"""Steps that the gradient scaler skips have not been: weights, optimizer, EMA weights; the schedule goes on."""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from timm.optim import create_optimizer_v2, list_optimizers
from timm.utils import ModelEmaV3

from catheters.config.settings import Settings
from catheters.data.batch import Batch
from catheters.errors import UserError
from catheters.runtime.distributed import joined_torchrun, process_group
from catheters.training.guards import MAX_SKIPPED_STEPS
from catheters.training.loop import train_epoch
from catheters.training.step import TrainStep
from tests.conftest import CreateManager
from tests.processes import environments_of_ranks, run_in_forks
from tests.training.mixed import CPU, mixed_step, random_batches, spoil_gradients, without_batch_norm

pytestmark = [
    pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step"),
    pytest.mark.filterwarnings("ignore:It is highly recommended to have 'opt_einsum' installed"),
]

LEFT_OUT = ("bnb", "fused", "kron", "adahessian")
"""Of NVIDIA's apex and bitsandbytes, which need a GPU; one whose step takes minutes here; one that never learns."""


def one_of_each_class() -> list[str]:
    """Names of timm's optimizers that differ in their class, and all whose step is fused here."""
    names = {}
    for name in list_optimizers():
        if not name.startswith(LEFT_OUT):
            kind = type(create_optimizer_v2(torch.nn.Linear(2, 2).parameters(), name, lr=0.1))
            names[name if kind is torch.optim.SGD else kind] = name
    return list(names.values())


def numbers_of(step: TrainStep) -> dict[str, torch.Tensor]:
    """All that a step of the optimizer moves."""
    assert step.ema is not None
    numbers = {f"weight {name}": value.detach() for name, value in step.model.named_parameters()}
    numbers |= {f"EMA {name}": value for name, value in step.ema.module.state_dict().items()}
    for number, parameter in enumerate(step.model.parameters()):
        for name, value in step.optimizer.state.get(parameter, {}).items():
            if isinstance(value, torch.Tensor):
                numbers[f"state {number} {name}"] = value
    return {name: value.clone() for name, value in numbers.items()}


def assert_same(got: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    """To the bit; a state that only a skipped step has made is zeros."""
    for name, value in got.items():
        assert torch.equal(value, expected.get(name, torch.zeros_like(value))), name
    assert expected.keys() <= got.keys()


@pytest.mark.parametrize("name", one_of_each_class())
def test_as_if_they_had_not_been(settings: Settings, name: str) -> None:
    """The first step and a later one are skipped; to the bit what the other batches alone give.

    In float32, where the scale, a power of 2, leaves no trace. Memory is full of large numbers beforehand, which a
    state that is not initialised would show.
    """
    settings = without_batch_norm(settings, optimizer=name, init_lr=1e-3)
    batches = random_batches(4)
    step = mixed_step(settings, None, init_scale=1024.0)
    spoil_gradients(step, {0, 2})
    before = numbers_of(step)
    for number, batch in enumerate(batches):
        used = [torch.full_like(weight, 1e4) for weight in step.model.parameters() for _ in range(4)]
        del used
        if number == 2:
            before = numbers_of(step)
        step(batch)
        if number in (0, 2):
            assert_same(numbers_of(step), before)
    other = mixed_step(settings, None, init_scale=1024.0)
    for batch in (batches[1], batches[3]):
        other(batch)
    assert_same(numbers_of(step), numbers_of(other))
    assert step.scaler.get_scale() == 1024.0 / 4


def test_an_optimizer_of_second_derivatives_is_none_of_ours(settings: Settings) -> None:
    """Left out above, as its first step raises: no graph of the backward pass is kept."""
    step = mixed_step(without_batch_norm(settings, optimizer="adahessian"), None)
    with pytest.raises(RuntimeError, match="does not require grad"):
        step(random_batches(1)[0])


def test_the_schedule_goes_on(settings: Settings) -> None:
    """Its lengths are epochs: the learning rates of a run are the same however many steps are skipped."""
    settings = dataclasses.replace(settings, ema_decay=0.9, warmup_epochs=1, cosine_epochs=1)
    rates = []
    for spoilt in ((), (0, 1, 3)):
        step = mixed_step(settings, torch.float16, init_scale=1024.0, num_batches=4)
        spoil_gradients(step, spoilt)
        rates.append([step(batch).learning_rate for batch in random_batches(6)])
    assert rates[0] == rates[1]
    assert len(set(rates[0])) > 4


def test_ema_weights_are_those_of_timm(settings: Settings) -> None:
    """Where nothing is skipped, by a scaler's way and without one; d of the steps that moved, where some are."""
    settings = without_batch_norm(settings, optimizer="SGD", init_lr=0.05, ema_decay=0.7)
    batches = random_batches(6)
    for spoilt in ((), (0, 1, 2), (1, 4)):
        step = mixed_step(settings, None, init_scale=1024.0)
        expected = ModelEmaV3(step.model, decay=0.7, use_warmup=True)
        spoil_gradients(step, spoilt)
        num_moved = 0
        for number, batch in enumerate(batches):
            step(batch)
            if number not in spoilt:
                num_moved += 1
                expected.update(step.model, step=num_moved)
        assert step.ema is not None and int(step.ema.num_skipped) == len(spoilt)
        for name, value in expected.module.state_dict().items():
            torch.testing.assert_close(step.scored_model.state_dict()[name], value, rtol=1e-5, atol=1e-7)


def test_a_spoilt_batch_of_several_costs_its_step(settings: Settings) -> None:
    """Gradients wait for two batches each: an infinite one of the first leaves nothing for the steps after."""
    settings = without_batch_norm(settings, accumulation_steps=2, clip_grad_norm=0.5, optimizer="AdamW")
    batches = random_batches(6)
    step = mixed_step(settings, None, init_scale=1024.0)
    spoil_gradients(step, {2})
    norms = [step(batch).grad_norm for batch in batches]
    assert [None if norm is None else bool(norm.isfinite()) for norm in norms] == [None, True, None, False, None, True]
    other = mixed_step(settings, None, init_scale=1024.0)
    for batch in (*batches[:2], *batches[4:]):
        other(batch)
    assert_same(numbers_of(step), numbers_of(other))
    assert not any(parameter.grad is not None for parameter in step.model.parameters())


@pytest.mark.slow
def test_forty_in_a_row_end_the_training(settings: Settings, tmp_path: Path, create_manager: CreateManager) -> None:
    """In float16, with weights of the loss that no scale brings into its range; one line, weights as they were."""
    settings = without_batch_norm(settings, pos_weight=dict.fromkeys(settings.label_columns, 1e30))
    step = mixed_step(settings, torch.float16)
    start = numbers_of(step)
    manager, log = create_manager(step, tmp_path, num_batches=MAX_SKIPPED_STEPS, may_skip=True)
    with pytest.raises(UserError) as error:
        train_epoch(random_batches(1, num_images=2) * MAX_SKIPPED_STEPS, step, manager, log, "")
    assert str(error.value).startswith(
        f"fold 0 epoch 1/1: the gradients of {MAX_SKIPPED_STEPS} steps in a row were NaN or infinite at any scale (lear"
    )
    assert "\n" not in str(error.value)
    assert_same(numbers_of(step), start)


def halves(batch: Batch) -> Sequence[Batch]:
    return [batch.map(lambda tensor, start=start: tensor[start : start + 2]) for start in (0, 2)]  # type: ignore[misc]


@pytest.mark.slow
@pytest.mark.parametrize("accumulation_steps", [1, 2])
def test_ranks_skip_together(settings: Settings, tmp_path: Path, accumulation_steps: int) -> None:
    """An infinite gradient of one rank, before it is reduced, is one of all: scale, weights and EMA stay the same."""
    settings = without_batch_norm(settings, accumulation_steps=accumulation_steps)
    batches = random_batches(6)

    def train(rank: int, environment: dict[str, str]) -> None:
        os.environ.update(environment)
        with joined_torchrun() as torchrun, process_group(torchrun, CPU) as processes:
            step = mixed_step(settings, torch.float16, init_scale=1024.0, processes=processes)
            if rank == 1:
                spoil_gradients(step, {2})
            norms = [step(halves(batch)[rank]).grad_norm for batch in batches]
            finite = [bool(norm.isfinite()) for norm in norms if norm is not None]
            torch.save([numbers_of(step), finite, step.scaler.get_scale()], tmp_path / f"{rank}.pt")

    ranks = enumerate(environments_of_ranks(2))
    run_in_forks([lambda rank=rank, environment=environment: train(rank, environment) for rank, environment in ranks])
    (numbers, finite, scale), others = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    assert_same(numbers, others[0])
    assert finite == others[1] == [number != 2 // accumulation_steps for number in range(6 // accumulation_steps)]
    assert scale == others[2] == 512.0
