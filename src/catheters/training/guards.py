"""What goes wrong in long runs, in words that say what to change."""

import contextlib
import dataclasses
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.utils.data import Dataset

from catheters.config.settings import Settings
from catheters.data.batch import Sample
from catheters.data.loader import WorkerDied, default_num_workers
from catheters.errors import UserError, one_line
from catheters.runtime.device import choose_device
from catheters.runtime.host import num_processes
from catheters.runtime.interrupts import interrupt_signal
from catheters.runtime.precision import autocast
from catheters.runtime.shortage import finds_no_engine, is_for_want_of_memory, shortage_of
from catheters.training.step import TrainStep, trial_batch, trial_step

MAX_SKIPPED_STEPS = 40
"""Optimizer steps in a row that a gradient scaler may skip: by then it has divided its scale by 2^40."""

NO_SHARED_MEMORY_TEXTS = re.compile("unable to (allocate shared memory|write to file </torch_|mmap .*</torch_)")
"""What torch says in a loading process that finds no room in /dev/shm."""


@dataclass(frozen=True, kw_only=True)
class BatchValues:
    """What a batch gave.

    Attributes:
        learning_rate: of its step.
        loss: the mean over the batch, of all processes.
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
    """The end of a message about a number that is not finite: the rate, what to change, what is left."""
    kept = ", ".join(file.name for file in sorted(folder.glob("*.pt")))
    return (
        f"(learning rate {learning_rate:.2e}); lower init_lr or warmup_multiplier, set clip_grad_norm, or set "
        f"use_amp=False; {folder} keeps {f'{kept} of earlier epochs' if kept else 'no checkpoint, no epoch was good'}"
    )


@torch.inference_mode()
def check_answers(step: TrainStep, images: Dataset[Sample], what: str, folder: Path) -> None:
    """Raise a UserError if the model answers an image with NaN or infinity, although its losses were finite.

    The losses are those before the last step; what that made of the weights, validation shows where there is one.
    """
    step.scored_model.eval()
    image = images[0, 0]["images"][None]
    with autocast(step.device, step.dtype):
        outputs = step.scored_model(image.to(step.device))
    if not outputs.are_finite:
        raise UserError(
            f"{what}: the model answers NaN or infinity after this epoch {remedies(step.last_learning_rate, folder)}"
        )


@contextlib.contextmanager
def clear_ends(settings: Settings, what: str) -> Iterator[None]:
    """Turn what the system does to long runs into a UserError: memory that runs out, loading processes that die.

    Args:
        settings: the run's settings, whose values the message names.
        what: the model that trains, for the message.
    """
    try:
        yield
    except MemoryError as error:
        raise UserError(f"{what}: {shortage_of(error)}; {_memory_remedies(settings)}") from None
    except UserError as error:
        # From a loading process torch brings an exception with its whole traceback for a text.
        if not str(error).startswith("Caught "):
            raise
        raise UserError(re.findall(r"^[\w.]+: (.*)$", str(error), re.MULTILINE)[-1]) from None
    except RuntimeError as error:
        if NO_SHARED_MEMORY_TEXTS.search(str(error)):
            raise UserError(f"{what}: no room for a batch in shared memory; {_loading_remedies(settings)}") from None
        if is_for_want_of_memory(error, lambda: _try_half(settings)):
            raise UserError(f"{what}: {shortage_of(error)}; {_memory_remedies(settings)}") from None
        if finds_no_engine(error):
            raise UserError(f"{what}: {no_engine(settings, error)}") from None
        if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            reason = one_line(error).partition(" Set TORCH")[0]  # the rest is for those who work on torch
            raise UserError(
                f"compile_mode={settings.compile_mode}: torch could not compile {settings.backbone_model} ({reason}); "
                "a CPU needs a C++ compiler, a GPU Triton; or set compile_mode=None"
            ) from error
        raise
    except WorkerDied as error:
        if interrupt_signal() is not None:  # whoever asked this process to end has ended that one as well
            raise KeyboardInterrupt from None
        raise UserError(
            f"{what}: a process that loads batches died ({error}): most often memory ran out (SIGKILL), or shared "
            f"memory did (SIGBUS); {_loading_remedies(settings)}"
        ) from None


def _try_half(settings: Settings) -> None:
    """A step with half the images of a batch; with one, where the batch is not known yet."""
    num_images = 1 if settings.batch_size == "auto" else max(1, settings.batch_size // num_processes() // 2)
    of_trial = dataclasses.replace(settings, batch_size=num_images, accumulation_steps=1, compile_mode=None)
    step = trial_step(of_trial, choose_device(settings.device), num_batches=1)
    step(trial_batch(of_trial, num_images))


def no_engine(settings: Settings, error: RuntimeError) -> str:
    """What to do where cuDNN has no algorithm for half the images either."""
    remedy = "set deterministic=False, which allows more of them, or " if settings.deterministic else ""
    return (
        f"cuDNN has no algorithm for a convolution of {settings.backbone_model}, with half the images neither "
        f"({one_line(error)}); {remedy}choose another image_size or backbone_model, or device=cpu"
    )


def _loading_remedies(settings: Settings) -> str:
    """What loading processes can do with, and how to go on."""
    number = settings.num_workers
    if number is None:
        number = default_num_workers(choose_device(settings.device))
    return (
        f"lower num_workers (now {number}; 0 needs no shared memory) or give a container more of it (--shm-size=8g or "
        "--ipc=host). The same command goes on from the last snapshot"
    )


def _memory_remedies(settings: Settings) -> str:
    """What takes less memory, by this run's own numbers, the cheapest first."""
    parts = []
    if settings.batch_size != "auto":  # else no batch is known yet
        size = settings.batch_size
        half = max(size // 2, 1)
        doubled = settings.accumulation_steps * size // half
        parts.append(
            f"lower batch_size={size} (batch_size={half} accumulation_steps={doubled} learns from as many images a "
            "step)"
        )
    if not settings.use_amp:
        parts.append("set use_amp=True")
    if not settings.grad_checkpointing:
        parts.append("set grad_checkpointing=True")
    parts.append(f"lower image_size={settings.image_size} or valid_batch_size, or choose a smaller backbone_model")
    return ", ".join(parts)
