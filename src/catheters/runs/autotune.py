"""What a run benchmarks before it starts: the memory layout of images, and the largest batch that fits."""

import dataclasses
import functools
import gc
import json
import math
import time
from collections.abc import Callable
from pathlib import Path

import torch

from catheters.checkpoints.parts import build_classifier
from catheters.config.loading import read_run_settings
from catheters.config.settings import Settings
from catheters.errors import SettingsError, UserError, one_line
from catheters.io.files import UnreadableFileError, read_json, write_text
from catheters.io.locks import exclusive_lock
from catheters.models.backbone import IN_CHANS
from catheters.runs.build import build_losses
from catheters.runs.failures import explain_failures, no_engine
from catheters.runs.probe import probe_batch, probe_step
from catheters.runs.run_folder import SETTINGS_FILE, holds_run
from catheters.runtime.console import say, warn
from catheters.runtime.device import device_name, wait_for
from catheters.runtime.host import (
    available_memory,
    num_local_processes,
    peak_memory,
    release_free_memory,
    reset_peak_memory,
    resident_memory,
)
from catheters.runtime.precision import autocast, choose_dtype
from catheters.runtime.shortage import finds_no_engine, is_for_want_of_memory
from catheters.training.losses import total
from catheters.training.step import TrainStep

LAYOUTS_FILE = "memory_layouts.json"
"""In the cache's folder: what was measured, so that the next run of this model here computes the same bits."""
LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
LOCK_SECONDS = 60
"""Time in which another run has written its own into the file."""
TIMED_ROUNDS = 3
MIN_GAIN = 0.03
"""What `channels_last` has to save to be taken: less is within what the clock says of one and the same layout."""
MAX_IMAGES_ON_CPU = 4
"""Images of a benchmark's batch on a CPU, where more take longer and tell no more."""

PROBE_IMAGES = (2, 4)
"""Batches whose memory is measured: what each further image takes follows."""
MAX_SHARE = 0.9
"""Share of the free memory that a batch may take: memory fragments in a long run, and other programs need some."""
STEP_BACK = 0.95
MIN_STEPS = 20
"""Optimizer steps that an epoch has at least, however much memory there is."""
PROPORTIONAL = ("sgd", "nesterov", "momentum")
"""Parts of the names of optimizers whose learning rate scales with the batch; others divide by the gradients' size."""


def settings_of_run(settings: Settings, *, fresh: bool) -> Settings | None:
    """The settings of the run to resume, whose choices stay; None for a new run."""
    if fresh or not holds_run(settings.run_folder):
        return None
    file = settings.run_folder / SETTINGS_FILE
    return read_run_settings(file)


def choose_batch_size(
    settings: Settings, earlier: Settings | None, device: torch.device, num_processes: int, num_images: int
) -> int:
    """`batch_size`, or in place of "auto" the largest that fits into memory.

    A step of few images is done twice with different numbers of them; what each further one takes follows. On a GPU
    the batch is then tried, and validation's where it follows from it, and made smaller until both fit.

    Args:
        settings: the run's settings.
        earlier: the settings of the run to resume; None for a new run.
        device: where it computes.
        num_processes: ranks that divide the global batch.
        num_images: training images of the smallest fold.

    Returns:
        Images in a global batch; so few that an epoch has `MIN_STEPS` steps, if the images suffice.

    Raises:
        UserError: not even a few images fit, or the system does not say what they take.
    """
    if settings.batch_size != "auto":
        return settings.batch_size
    if device.type not in ("cpu", "cuda"):
        raise SettingsError(f"batch_size='auto': chosen by memory on CUDA GPUs and CPUs alone, not on {device}")
    if earlier is not None:
        return earlier.images_per_batch
    images_of_step = num_images // (settings.accumulation_steps * num_processes)  # if an epoch had one
    most = max(1, min(images_of_step, max(2, images_of_step // MIN_STEPS)))
    # Several ranks keep their gradients, to reduce them; so does one that accumulates them over several batches.
    keeps_gradients = num_processes > 1 or settings.accumulation_steps > 1
    with explain_failures(settings, "batch_size='auto'"):
        few, more = (_bytes_of_steps(settings, device, number, keeps_gradients) for number in PROBE_IMAGES)
    _release(device)
    budget = _memory(device)
    # At least the image itself as numbers: a tiny model's memory is lost in what the process has anyway.
    least = 4 * math.prod(settings.image_shape)
    for_each = max((more - few) / (PROBE_IMAGES[1] - PROBE_IMAGES[0]), least)
    number = min(most, max(2, int((budget - few) / for_each) + PROBE_IMAGES[0]))
    if device.type == "cuda":
        with explain_failures(settings, "batch_size='auto'"):
            number = largest_that_fits(settings, number, lambda n: _try_batch(settings, device, n, keeps_gradients))
    _release(device)
    allowed = f"{num_images} training images allow for {MIN_STEPS} steps per epoch"
    why = allowed if number == most else f"fit into {budget / 1e9:.1f} GB"
    parts = f", {number} per rank" if num_processes > 1 else ""
    say(f"batch_size='auto': {number * num_processes} images{parts}, the most that {why}")
    return number * num_processes


def with_batch_size(settings: Settings, batch_size: int) -> Settings:
    """The settings with this number in place of "auto", and the learning rate that follows.

    In proportion to the batch for plain gradient descent (Goyal et al. 2017, "Accurate, Large Minibatch SGD", 2.1),
    with its square root for optimizers that divide by the gradients' size (Malladi et al. 2022, "On the SDEs and
    Scaling Rules for Adaptive Gradient Algorithms").
    """
    if settings.batch_size != "auto":
        return settings
    ratio = batch_size * settings.accumulation_steps / settings.lr_batch_size
    is_proportional = any(part in settings.optimizer.lower() for part in PROPORTIONAL)
    init_lr = settings.init_lr * (ratio if is_proportional else math.sqrt(ratio))
    follows = f"the images of a step {'in proportion' if is_proportional else 'with their square root'}"
    try:
        chosen = dataclasses.replace(settings, batch_size=batch_size, init_lr=init_lr)
    except SettingsError as error:
        raise SettingsError(
            f"batch_size='auto': {batch_size} images, so init_lr={init_lr:.3g}: {error}; change init_lr or min_lr"
        ) from None
    say(
        f"init_lr={init_lr:.3g}: {settings.init_lr:g} is meant for lr_batch_size={settings.lr_batch_size}, and follows "
        f"{follows} ({settings.optimizer})"
    )
    return chosen


def _bytes_of_steps(settings: Settings, device: torch.device, num_images: int, keeps_gradients: bool) -> int:
    """The most memory that the process has while it learns from batches of so many images, all else included."""
    _release(device)
    _do_steps(settings, device, num_images, keeps_gradients)
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else peak_memory()


def _do_steps(settings: Settings, device: torch.device, num_images: int, keeps_gradients: bool) -> TrainStep:
    num_gathered = 2 if keeps_gradients else 1
    of_probe = dataclasses.replace(settings, batch_size=num_images, accumulation_steps=num_gathered, compile_mode=None)
    step = probe_step(of_probe, device, num_batches=2 * num_gathered)
    batch = probe_batch(settings, num_images)
    for _ in range(2 * num_gathered):  # the optimizer has its state from the second step on
        step(batch)
    return step


def _release(device: torch.device) -> None:
    """Give back free memory, and restart the measurement of peak memory."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    else:
        release_free_memory()
        if not reset_peak_memory():
            raise SettingsError(
                "batch_size='auto': this system does not say how much memory a batch takes; set a number"
            )


def _memory(device: torch.device) -> int:
    """Bytes that this process has or may take."""
    if device.type == "cuda":
        return int(MAX_SHARE * torch.cuda.mem_get_info(device)[0]) + torch.cuda.memory_allocated(device)
    return resident_memory() + int(MAX_SHARE * available_memory()) // num_local_processes()


def largest_that_fits(settings: Settings, foreseen: int, try_batch: Callable[[int], object]) -> int:
    """How many images fit: as many as are foreseen, else fewer by `STEP_BACK` until they do.

    Args:
        settings: the run's settings, whose values messages name.
        foreseen: so many should; 2 do.
        try_batch: does with so many images what the run will.

    Raises:
        UserError: cuDNN has no algorithm, for half the images neither.
    """
    number, reason = foreseen, ""
    while number > 2:
        try:
            try_batch(number)
            break
        except RuntimeError as error:
            if not is_for_want_of_memory(error, functools.partial(try_batch, number // 2)):
                if finds_no_engine(error):
                    raise UserError(f"batch_size='auto', {number} images: {no_engine(settings, error)}") from None
                raise
            reason = one_line(error)
        number = max(2, int(STEP_BACK * number))
    if number < foreseen / 2:
        warn(
            f"batch_size='auto': {number} images fit where {foreseen} were foreseen ({reason}); set a number "
            "if you know of a larger one that does"
        )
    return number


def _try_batch(settings: Settings, device: torch.device, num_images: int, keeps_gradients: bool) -> None:
    _release(device)
    step = _do_steps(settings, device, num_images, keeps_gradients)
    if settings.valid_batch_size is None and not settings.all_data:
        _predict(settings, step, 2 * num_images)


@torch.inference_mode()
def _predict(settings: Settings, step: TrainStep, num_images: int) -> None:
    """As in validation."""
    step.scored_model.eval()
    images = probe_batch(settings, num_images).images
    with autocast(step.device, step.dtype):
        step.scored_model(images.to(step.device))


def choose_layout(settings: Settings, earlier: Settings | None, device: torch.device, num_images: int) -> bool:
    """Whether `channels_last` is clearly faster: benchmarked once for model, image size, batch and device, remembered.

    Args:
        settings: the run's settings.
        earlier: the settings of the run to resume, whose layout stays, since the other one rounds differently.
        device: where it computes.
        num_images: images in a batch of one rank, or some where that is not known yet.
    """
    if settings.channels_last is not None:
        return settings.channels_last
    if earlier is not None:
        return bool(earlier.channels_last)
    num_images = num_images if device.type != "cpu" else min(num_images, MAX_IMAGES_ON_CPU)
    key = ", ".join(
        [
            settings.backbone_model,
            f"{settings.classifier} of {max(1, len(settings.heads))}",
            "x".join(map(str, (num_images, IN_CHANS + settings.num_input_maps, *settings.image_shape))),
            *([f"lines {settings.lines}"] if settings.learns_lines else []),
            str(choose_dtype(settings.use_amp, settings.amp_dtype, device) or torch.float32).removeprefix("torch."),
            device_name(device) if device.type != "cpu" else f"CPU with {torch.get_num_threads()} threads",
            *(name for name in ("deterministic", "grad_checkpointing") if getattr(settings, name)),
            f"torch {torch.__version__}",
        ]
    )
    file = Path(settings.cache_folder) / LAYOUTS_FILE
    known = _read_layouts(file)
    seconds = known.get(key)
    if seconds is None:
        say(f"channels_last=None: benchmarking both memory layouts of {num_images} images, once for this model")
        with explain_failures(settings, "channels_last=None, the benchmark of both layouts"):
            seconds = _time_layouts(settings, device, num_images)
        try:
            # Of another run too, which may have measured meanwhile.
            refusal = f"another run has held its lock for {LOCK_SECONDS} s"
            with exclusive_lock(Path(f"{file}.lock"), refusal, timeout_s=LOCK_SECONDS):
                known = _read_layouts(file)
                seconds = known.setdefault(key, seconds)
                write_text(file, json.dumps(known, indent=2) + "\n")
        except (OSError, UserError) as error:  # a folder of others', perhaps
            warn(
                f"{file}: cannot be written ({one_line(error)}); another run may choose another layout, which "
                "rounds differently"
            )
    is_faster = seconds["channels_last"] < (1 - MIN_GAIN) * seconds["contiguous"]
    say(
        f"channels_last={is_faster}: forward and backward take {1000 * seconds['channels_last']:.0f} ms with it, "
        f"{1000 * seconds['contiguous']:.0f} ms without; it has to save {MIN_GAIN:.0%} ({file})"
    )
    return is_faster


def _read_layouts(file: Path) -> dict[str, dict[str, float]]:
    """Key -> seconds of each layout; nothing where the file is missing, or with a warning where it is not ours."""
    if not file.exists():
        return {}
    try:
        known = read_json(file)
        return {key: {name: float(seconds[name]) for name in LAYOUTS} for key, seconds in known.items()}
    except UnreadableFileError as error:
        warn(f"{error}; layouts are benchmarked again")
    except (ValueError, TypeError, KeyError, AttributeError):
        warn(f"{file}: damaged, or another program's; layouts are benchmarked again")
    return {}


def _time_layouts(settings: Settings, device: torch.device, num_images: int) -> dict[str, float]:
    """Seconds of forward and backward, the least of a few rounds in which the layouts take turns."""
    model = build_classifier(settings.with_random_weights(), 0.5, 0.25).to(device).train()
    losses = build_losses(settings).to(device)
    batch = probe_batch(settings, num_images).to(device)
    seconds: dict[str, list[float]] = {name: [] for name in LAYOUTS}
    for _ in range(1 + TIMED_ROUNDS):  # the first one warms up
        for name, memory_format in LAYOUTS.items():
            model.to(memory_format=memory_format)
            wait_for(device)
            started = time.perf_counter()
            with autocast(device, choose_dtype(settings.use_amp, settings.amp_dtype, device)):
                loss = total(losses(model(batch.images), batch))
            loss.backward()  # type: ignore[no-untyped-call]
            wait_for(device)
            seconds[name].append(time.perf_counter() - started)
            model.zero_grad(set_to_none=True)
    return {name: min(of_layout[1:]) for name, of_layout in seconds.items()}
