"""Numbers that are not finite end a run, in words that help."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from catheters.data.loader import Loader
from catheters.errors import UserError
from catheters.training.step import TrainStep, autocast


def check_losses(losses: Sequence[tuple[float, Tensor]], num_before: int, what: str, folder: Path) -> None:
    """Raise a UserError that places the first loss which is NaN or infinite.

    Args:
        losses: learning rate and loss, a scalar, of some batches in a row.
        num_before: batches of the epoch before them.
        what: names the epoch.
        folder: where the checkpoints are.
    """
    is_finite = torch.isfinite(torch.stack([loss for _, loss in losses])).tolist()
    if all(is_finite):
        return
    first = is_finite.index(False)
    learning_rate, loss = losses[first]
    raise UserError(
        f"{what}, iteration {num_before + first + 1}: the training loss is {float(loss)} "
        f"{remedies(learning_rate, folder)}"
    )


def remedies(learning_rate: float, folder: Path) -> str:
    """The end of a message about a number that is not finite: the rate, what to change, what is left."""
    kept = ", ".join(file.name for file in sorted(folder.glob("*.pt")))
    return (
        f"(learning rate {learning_rate:.2e}); lower init_lr or warmup_multiplier, set clip_grad_norm, or set "
        f"use_amp=False; {folder} keeps {f'{kept} of earlier epochs' if kept else 'no checkpoint, no epoch was good'}"
    )


@torch.inference_mode()
def check_answers(step: TrainStep, loader: Loader, what: str, folder: Path) -> None:
    """Raise a UserError if the model answers an image with NaN or infinity, although its losses were finite.

    The losses are those before the last step; what that made of the weights, validation shows where there is one.
    """
    step.scored_model.eval()
    # One image, and not a batch of the loader, whose next pass would then be another epoch's.
    images = loader.dataset[0, 0][0][None]
    with autocast(step.device, step.dtype):
        logits = step.scored_model(images.to(step.device))
    if not torch.isfinite(logits).all():
        raise UserError(
            f"{what}: the model answers NaN or infinity after this epoch {remedies(step.last_learning_rate, folder)}"
        )
