"""Losses, gradients and outputs that are NaN or infinite: errors that say what to change."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.utils.data import Dataset

from catheters.data.batch import Sample
from catheters.errors import UserError
from catheters.runtime.precision import autocast
from catheters.training.step import TrainStep

MAX_SKIPPED_STEPS = 40
"""Optimizer steps in a row that a gradient scaler may skip: by then it has divided its scale by 2^40."""


@dataclass(frozen=True, kw_only=True)
class BatchValues:
    """What a batch gave.

    Attributes:
        learning_rate: of its step.
        loss: the mean over the global batch.
        terms: of several losses that sum up to it, each by its name.
        grad_norm: total norm of the gradients; None where they wait for further batches.
    """

    learning_rate: float
    loss: float
    terms: Mapping[str, float]
    grad_norm: float | None


def check_batches(batches: Sequence[BatchValues], num_before: int, what: str, folder: Path, *, may_skip: bool) -> None:
    """Raise a UserError that places the first loss or gradient which is NaN or infinite.

    Args:
        batches: some in a row.
        num_before: batches of the whole training before them.
        what: names the epoch.
        folder: where the checkpoints are.
        may_skip: a gradient scaler skips steps whose gradients are not finite, which is how it finds its scale.
    """
    for number, batch in enumerate(batches, start=num_before + 1):
        if not math.isfinite(batch.loss):
            wrong = f"the training loss is {batch.loss}"
        elif batch.grad_norm is not None and not math.isfinite(batch.grad_norm) and not may_skip:
            wrong = f"the norm of the gradients is {batch.grad_norm}"
        else:
            continue
        raise UserError(f"{what}, iteration {number}: {wrong} {remedies(batch.learning_rate, folder)}")


def check_skipped(grad_norms: Sequence[float], what: str, folder: Path, learning_rate: float) -> None:
    """Raise a UserError where the gradient scaler skips every step, since no scale makes the gradients finite.

    Args:
        grad_norms: those of the latest steps, `MAX_SKIPPED_STEPS` of them as soon as there were so many.
        what: names the epoch.
        folder: where the checkpoints are.
        learning_rate: of the last step.
    """
    if len(grad_norms) == MAX_SKIPPED_STEPS and not any(map(math.isfinite, grad_norms)):
        raise UserError(
            f"{what}: the gradients of {MAX_SKIPPED_STEPS} steps in a row were NaN or infinite at any scale "
            f"{remedies(learning_rate, folder)}"
        )


def remedies(learning_rate: float, folder: Path) -> str:
    """The end of a message about a number that is not finite: the learning rate, what to change, what is left."""
    kept = ", ".join(file.name for file in sorted(folder.glob("*.pt")))
    return (
        f"(learning rate {learning_rate:.2e}); lower init_lr or warmup_multiplier, set clip_grad_norm, or set "
        f"use_amp=False; {folder} keeps {f'{kept} of earlier epochs' if kept else 'no checkpoint, no epoch was good'}"
    )


@torch.inference_mode()
def check_outputs(step: TrainStep, images: Dataset[Sample], what: str, folder: Path) -> None:
    """Raise a UserError if the model outputs NaN or infinity for an image, although its losses were finite.

    The losses are those before the last step; what that made of the weights, validation shows where there is one.
    """
    step.scored_model.eval()
    image = images[0, 0]["images"][None]
    with autocast(step.device, step.dtype):
        outputs = step.scored_model(image.to(step.device))
    if not outputs.are_finite:
        raise UserError(
            f"{what}: the model outputs NaN or infinity after this epoch {remedies(step.last_learning_rate, folder)}"
        )
