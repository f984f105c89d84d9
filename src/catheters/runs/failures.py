"""Failures of long runs that come from the system: errors that say what to change."""

import contextlib
import dataclasses
import re
from collections.abc import Iterator

from catheters.config.settings import Settings
from catheters.data.loader import WorkerDied, default_num_workers
from catheters.errors import UserError, one_line
from catheters.runs.probe import probe_batch, probe_step
from catheters.runtime.device import choose_device
from catheters.runtime.host import num_processes
from catheters.runtime.interrupts import interrupt_signal
from catheters.runtime.shortage import (
    finds_no_engine,
    is_for_want_of_memory,
    lacks_operation,
    no_operation,
    shortage_of,
)

NO_SHARED_MEMORY_TEXTS = re.compile("unable to (allocate shared memory|write to file </torch_|mmap .*</torch_)")
"""What torch says in a DataLoader worker that finds no room in /dev/shm."""


@contextlib.contextmanager
def explain_failures(settings: Settings, what: str) -> Iterator[None]:
    """Turn what the system does to long runs into a UserError: memory that runs out, DataLoader workers that die.

    Args:
        settings: the run's settings, whose values the message names.
        what: the model that trains, for the message.
    """
    try:
        yield
    except MemoryError as error:
        raise UserError(f"{what}: {shortage_of(error)}; {_memory_remedies(settings)}") from None
    except UserError as error:
        # From a DataLoader worker torch brings an exception with its whole traceback for a text.
        if not str(error).startswith("Caught "):
            raise
        raise UserError(re.findall(r"^[\w.]+: (.*)$", str(error), re.MULTILINE)[-1]) from None
    except RuntimeError as error:
        if NO_SHARED_MEMORY_TEXTS.search(str(error)):
            raise UserError(f"{what}: no room for a batch in shared memory; {_loading_remedies(settings)}") from None
        if is_for_want_of_memory(error, lambda: _try_half(settings)):
            raise UserError(f"{what}: {shortage_of(error)}; {_memory_remedies(settings)}") from None
        if lacks_operation(error):
            raise UserError(f"{what}: {no_operation(error)}") from None
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
        if interrupt_signal() is not None:  # whoever stopped this process has stopped the worker as well
            raise KeyboardInterrupt from None
        raise UserError(
            f"{what}: a DataLoader worker died ({error}): most often memory ran out (SIGKILL), or shared "
            f"memory did (SIGBUS); {_loading_remedies(settings)}"
        ) from None


def _try_half(settings: Settings) -> None:
    """A step with half the images of a batch; with one, where the batch is not known yet."""
    num_images = 1 if settings.batch_size == "auto" else max(1, settings.batch_size // num_processes() // 2)
    of_probe = dataclasses.replace(settings, batch_size=num_images, accumulation_steps=1, compile_mode=None)
    step = probe_step(of_probe, choose_device(settings.device), num_batches=1)
    step(probe_batch(of_probe, num_images))


def no_engine(settings: Settings, error: RuntimeError) -> str:
    """What to do where cuDNN has no algorithm for half the images either."""
    remedy = "set deterministic=False, which allows more of them, or " if settings.deterministic else ""
    return (
        f"cuDNN has no algorithm for a convolution of {settings.backbone_model}, with half the images neither "
        f"({one_line(error)}); {remedy}choose another image_size or backbone_model, or device=cpu"
    )


def _loading_remedies(settings: Settings) -> str:
    """What lets DataLoader workers do with less memory, and how to resume."""
    number = settings.num_workers
    if number is None:
        number = default_num_workers(choose_device(settings.device))
    return (
        f"lower num_workers (now {number}; 0 needs no shared memory) or give a container more of it (--shm-size=8g or "
        "--ipc=host). The same command resumes from the last snapshot"
    )


def _memory_remedies(settings: Settings) -> str:
    """What takes less memory, by this run's own numbers, the cheapest first."""
    parts = []
    if settings.batch_size != "auto" and settings.batch_size > 2:  # else it is not known yet, or as small as can be
        size = settings.batch_size
        half = max(size // 2, 1)
        doubled = settings.accumulation_steps * size // half
        parts.append(
            f"lower batch_size={size} (batch_size={half} accumulation_steps={doubled} learns from as many images per "
            "step)"
        )
    if not settings.use_amp:
        parts.append("set use_amp=True")
    if not settings.grad_checkpointing:
        parts.append("set grad_checkpointing=True")
    parts.append(f"lower image_size={settings.image_size} or valid_batch_size, or choose a smaller backbone_model")
    return ", ".join(parts)
