"""Learning rates at every iteration, against values worked out from the definition and against torch's own cosine."""

import math

import pytest
import torch

from catheters.settings import Settings
from catheters.training.schedules import create_schedule


def rates(settings: Settings, iters_per_epoch: int, num_iterations: int) -> list[float]:
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=settings.init_lr)
    schedule = create_schedule(settings, optimizer, iters_per_epoch)
    result = []
    for _ in range(num_iterations):
        result.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return result


def test_published_recipe_at_every_iteration() -> None:
    """Warm-up over 1 epoch from 3e-5 to 3e-4, cosine over 20 epochs to 1e-7."""
    n = 7
    expected = [3e-5 + (3e-4 - 3e-5) * i / n for i in range(n)]
    expected += [1e-7 + (3e-4 - 1e-7) * 0.5 * (1 + math.cos(math.pi * i / (20 * n))) for i in range(20 * n)]
    assert rates(Settings(), n, 21 * n) == pytest.approx(expected, rel=1e-12)


def test_no_overshoot_at_the_hand_over() -> None:
    """warmup-scheduler by itself gives 0, .5, 1, 1.025, 1, .927 for warm-up 2, cosine 10, multiplier 1."""
    settings = Settings(init_lr=1.0, warmup_epochs=2, warmup_multiplier=1.0, cosine_epochs=10, min_lr=0.0)
    got = rates(settings, 1, 12)
    assert got[:3] == pytest.approx([1 / 3, 2 / 3, 1.0])
    assert got[2:] == pytest.approx([0.5 * (1 + math.cos(math.pi * i / 10)) for i in range(10)])
    assert max(got) == 1.0


def test_without_warm_up_it_is_torchs_cosine() -> None:
    settings = Settings(init_lr=0.1, warmup_epochs=0, cosine_epochs=4, min_lr=1e-3)
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=0.1)
    reference = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=20, eta_min=1e-3)
    expected = []
    for _ in range(20):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        reference.step()
    assert rates(settings, 5, 20) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("restart_epochs", [2, 16])
def test_restarts_are_torchs(restart_epochs: int) -> None:
    """CosineAnnealingWarmRestarts, stepped by the fraction of an epoch; 16 is the published multi-head recipe's."""
    n = 5
    settings = Settings(init_lr=0.1, warmup_epochs=0, cosine_epochs=6, restart_epochs=restart_epochs, min_lr=1e-3)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    reference = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, T_0=restart_epochs, eta_min=1e-3)
    expected = []
    for iteration in range(6 * n):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        reference.step((iteration + 1) / n)
    assert rates(settings, n, 6 * n) == pytest.approx(expected, rel=1e-9)
    assert expected.count(0.1) == (3 if restart_epochs == 2 else 1)


def test_after_the_end_the_rate_stays() -> None:
    settings = Settings(init_lr=0.1, warmup_epochs=0, cosine_epochs=1, min_lr=0.01)
    assert rates(settings, 3, 6)[3:] == pytest.approx([0.01] * 3)


def test_warm_up_alone() -> None:
    settings = Settings(init_lr=1.0, warmup_epochs=1, warmup_multiplier=3.0, cosine_epochs=0)
    assert rates(settings, 4, 4) == pytest.approx([1.0, 1.5, 2.0, 2.5])


def test_state_is_plain_data() -> None:
    """`torch.load(weights_only=True)` refuses objects, such as the scheduler that warmup-scheduler keeps within."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    state = create_schedule(Settings(), optimizer, 5).state_dict()
    plain = (int, float, bool, list, type(None))
    assert all(isinstance(value, plain) for value in state.values()), state
