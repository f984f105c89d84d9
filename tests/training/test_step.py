"""One step: equal to the bare one, and the rate that goes with it."""

import dataclasses

import pytest
import torch

from catheters.errors import UserError
from catheters.models.classifier import create_classifier
from catheters.settings import Settings
from catheters.training.losses import create_loss
from catheters.training.optimizers import create_optimizer
from catheters.training.schedules import create_schedule
from catheters.training.step import TrainStep, amp_dtype, choose_device

CPU = torch.device("cpu")


def create_step(settings: Settings, device: torch.device = CPU) -> TrainStep:
    torch.manual_seed(0)
    model = create_classifier(settings, 0.5, 0.25).to(device)
    optimizer = create_optimizer(settings, model.parameters())
    schedule = create_schedule(settings, optimizer, 2)
    return TrainStep(model, create_loss(settings).to(device), optimizer, schedule, device, amp_dtype(settings, device))


@pytest.mark.parametrize("optimizer", ["Adam", "AdamW"])
def test_equals_the_bare_steps(settings: Settings, optimizer: str) -> None:
    settings = dataclasses.replace(settings, optimizer=optimizer, weight_decay=0.01)
    step = create_step(settings)
    torch.manual_seed(0)
    model = create_classifier(settings, 0.5, 0.25)
    optimizer_class = {"Adam": torch.optim.Adam, "AdamW": torch.optim.AdamW}[optimizer]
    bare = optimizer_class(model.parameters(), lr=settings.init_lr, weight_decay=0.01)
    for rate in (1e-3, 1.5e-3, 2e-3):  # warm-up over two iterations to twice init_lr, then the top of the cosine
        images = torch.randint(0, 256, (4, 1, 32, 32), dtype=torch.uint8)
        targets = torch.randint(0, 2, (4, 11)).float()
        bare.param_groups[0]["lr"] = rate
        loss = torch.nn.functional.binary_cross_entropy_with_logits(model(images), targets)
        bare.zero_grad()
        loss.backward()
        bare.step()
        assert torch.equal(step(images, targets), loss.detach())
    for expected, got in zip(model.parameters(), step.model.parameters(), strict=True):
        assert torch.equal(expected, got)


def test_mixed_precision_is_off_on_a_cpu() -> None:
    assert amp_dtype(Settings(use_amp=True), CPU) is None
    gpu = torch.device("cuda")
    assert amp_dtype(Settings(use_amp=False), gpu) is None
    assert amp_dtype(Settings(use_amp=True), gpu) == torch.float16
    assert amp_dtype(Settings(use_amp=True, amp_dtype="bfloat16"), gpu) == torch.bfloat16


def test_device_that_is_not_there() -> None:
    with pytest.raises(UserError, match=r"device=cuda:99: this machine has \d+ CUDA GPUs"):
        choose_device("cuda:99")
    assert choose_device("cpu") == CPU


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU is at hand")
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_mixed_precision_learns_on_a_gpu(settings: Settings, dtype: str) -> None:
    step = create_step(dataclasses.replace(settings, amp_dtype=dtype, use_amp=True), torch.device("cuda"))
    images = torch.randint(0, 256, (8, 1, 32, 32), dtype=torch.uint8)
    targets = torch.randint(0, 2, (8, 11)).float()
    scaler = step.scaler
    losses = [float(step(images, targets)) for _ in range(30)]
    assert step.scaler is scaler
    assert scaler.is_enabled() == (dtype == "float16")
    assert losses[-1] < losses[0]
