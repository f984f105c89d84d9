"""Steps in mixed precision on a CPU, which no user gets: the policy takes the device, so a CPU proves it."""

import dataclasses
import math
from collections.abc import Collection

import torch

from catheters.checkpoints.parts import build_classifier
from catheters.config.settings import Settings
from catheters.data.batch import Batch
from catheters.runs.build import build_step
from catheters.runtime.distributed import ALONE, Processes
from catheters.runtime.precision import create_scaler
from catheters.training.step import TrainStep

CPU = torch.device("cpu")


def mixed_step(
    settings: Settings,
    dtype: torch.dtype | None,
    *,
    init_scale: float | None = None,
    num_batches: int = 8,
    processes: Processes = ALONE,
) -> TrainStep:
    """The step of a model that computes in `dtype` on a CPU; with `init_scale` the gradient scaler starts there."""
    torch.manual_seed(0)
    step = build_step(settings, build_classifier(settings, 0.5, 0.25), num_batches, CPU, processes)
    step.dtype = dtype
    step.scaler = create_scaler(CPU, dtype)
    if init_scale is not None:
        step.scaler = torch.amp.GradScaler("cpu", init_scale=init_scale)
    return step


def spoil_gradients(step: TrainStep, batches: Collection[int]) -> None:
    """Let the last layer's gradient be infinite in these batches, counted from 0 from here on."""
    calls = -1

    def change(gradient: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return gradient * math.inf if calls in batches else gradient

    step.model.head.linear.weight.register_hook(change)


def random_batches(number: int, *, num_images: int = 4, size: int = 32) -> list[Batch]:
    """The same each time."""
    generator = torch.Generator().manual_seed(7)
    return [
        Batch(
            images=torch.randint(0, 256, (num_images, 1, size, size), dtype=torch.uint8, generator=generator),
            targets=torch.randint(0, 2, (num_images, 11), generator=generator).float(),
        )
        for _ in range(number)
    ]


def without_batch_norm(settings: Settings, **changes: object) -> Settings:
    """Of a model whose state a forward pass leaves alone, at one learning rate."""
    plain = {
        "backbone_model": "test_convnext",
        "schedule": "constant",
        "warmup_epochs": 0,
        "epochs": 4,
        "ema_decay": 0.9,
        "weight_decay": 0.01,
    }
    return dataclasses.replace(settings, **{**plain, **changes})  # type: ignore[arg-type]
