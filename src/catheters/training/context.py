"""What training a model needs besides settings and batches."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from catheters.checkpoints.parts import build_classifier
from catheters.config.settings import Settings
from catheters.runtime.distributed import Processes
from catheters.runtime.host import release_free_memory
from catheters.training.extensions.log import TrainingLog
from catheters.training.step import TrainStep, convert_batch_norm


@dataclass(frozen=True, kw_only=True)
class TrainContext:
    """Where a model is trained.

    Attributes:
        device: where it computes.
        processes: those that train it together.
        environment: see `describe_environment`, with the `data_fingerprint`; goes into checkpoints and snapshots.
        mean: grey mean of the images, in 0..1.
        std: their standard deviation, in 0..1.
        num_models_left: models of the run that come after this one, for the time left.
    """

    device: torch.device
    processes: Processes
    environment: Mapping[str, Any]
    mean: float
    std: float
    num_models_left: int


def create_step(settings: Settings, seed: int, num_batches: int, context: TrainContext) -> TrainStep:
    """A new model with all that it needs to learn, its weights drawn by the seed."""
    if context.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(context.device)  # what was tried before is not what the log shows
    torch.manual_seed(seed)
    model = build_classifier(settings, context.mean, context.std).to(context.device)
    if settings.sync_batch_norm and context.processes.count > 1:
        model = convert_batch_norm(model, context.device)
    return TrainStep(settings, model, num_batches, context.device, context.processes)


def create_log(
    settings: Settings, what: str, num_batches: int, step: TrainStep, context: TrainContext, folder: Path
) -> TrainingLog:
    """The log of the model `what` in its folder, for epochs of so many batches."""
    release_free_memory()  # reading table and index took many times what is kept of them, and processes fork from here
    return TrainingLog(
        folder,
        what,
        context.processes,
        context.device,
        num_batches=num_batches,
        num_epochs=settings.num_epochs,
        batch_size=settings.images_per_batch,
        num_models_left=context.num_models_left,
        may_skip=step.scaler.is_enabled(),
    )
