"""What is checked before a run starts: what can be said at once, then the data, then one step of the model."""

import dataclasses
from pathlib import Path

import torch

from catheters.checkpoints.parts import build_classifier
from catheters.config.settings import Settings
from catheters.errors import SettingsError, UserError, one_line
from catheters.models.backbone import check_patches
from catheters.models.weight_sources import CONFIG_FILE, FOLDER
from catheters.runs.autotune import (
    PROBE_IMAGES,
    choose_batch_size,
    choose_layout,
    settings_of_run,
    with_batch_size,
)
from catheters.runs.build import build_augmentation, build_losses
from catheters.runs.data_checks import (
    check_batches,
    check_global_batch,
    check_leaks,
    check_positives,
    num_training_images,
)
from catheters.runs.datasets import load_data
from catheters.runs.earlier_runs.first_stage import FirstStageRun, find_first_stage, with_input_maps, write_maps
from catheters.runs.earlier_runs.teacher import find_teacher, with_teacher, write_probabilities
from catheters.runs.earlier_runs.weights import check_weights, sources_of_weights, with_weights_of
from catheters.runs.extra_tables import with_extra_tables
from catheters.runs.failures import explain_failures
from catheters.runs.probe import probe_batch, probe_step
from catheters.runs.ranks import check_alike
from catheters.runs.run_data import RunData
from catheters.runs.run_folder import run_folder_of
from catheters.runtime.console import say, silent, warn
from catheters.runtime.device import check_own_devices, identity_of, open_device, prepare_device
from catheters.runtime.distributed import TorchrunProcesses
from catheters.runtime.precision import choose_dtype, warn_of_precision
from catheters.training.extensions.trackers import check_trackers
from catheters.training.optimizers import check_optimizer
from catheters.training.step import convert_batch_norm


def prepare_run(
    settings: Settings, torchrun: TorchrunProcesses, num_processes: int, *, fresh: bool
) -> tuple[Settings, RunData, FirstStageRun | None, torch.device, int]:
    """All that can be checked before the run folder is entered, and what the settings leave to the run.

    What can be said at once comes first, then what needs the data, then the model, which may have to be downloaded.

    Args:
        settings: the run's settings.
        torchrun: all ranks that call this.
        num_processes: world size of one model's training.
        fresh: whether an earlier run of this name is of no concern.

    Returns:
        The settings with nothing left open, data, first stage if there is one, device, and the bytes of a model's
        state.
    """
    device = open_device(settings.device)
    check_own_devices(torchrun.gather("device", identity_of(device)))
    check_choices(settings)
    check_global_batch(settings, num_processes)
    warn_of_precision([choose_dtype(settings.use_amp, settings.amp_dtype, device)], device)
    prepare_device(device, deterministic=settings.deterministic)
    warn_of_search(settings, device)
    data = with_extra_tables(settings, load_data(settings))
    check_alike(torchrun, settings, {"fingerprint": data.fingerprint})
    torchrun.check_alike("command", {"run_name": settings.run_name, "--fresh": fresh})
    check_leaks(settings, data)
    check_positives(settings, data)
    first_stage = find_first_stage(settings, data) if settings.lines == "input" else None
    teacher = None if settings.teacher is None else find_teacher(settings, data)
    check_batches(settings, data, num_processes)
    num_bytes = try_step(settings, device, num_processes)
    is_open = settings.batch_size == "auto"
    settings = _choose_open_settings(settings, data, device, torchrun, num_processes, fresh=fresh)
    check_batches(settings, data, num_processes)
    if is_open and settings.images_per_batch == num_processes:
        with silent(True):
            try_step(settings, device, num_processes)  # with one image, where two were tried
    num_images = num_training_images(settings, data)
    if settings.compile_mode is not None and num_processes == 1:  # several compile what shares their gradients
        _try_compiled(settings, device, min(settings.images_per_batch, num_images))
    check_weights(settings, data)
    if settings.images_per_batch > num_images:
        warn(
            f"batch_size={settings.batch_size} is more than the {num_images} training images: an epoch is one "
            "step, of all of them"
        )
    if settings.sync_batch_norm and num_processes == 1:
        warn("sync_batch_norm=True has no effect: one process has the whole batch")
    if torchrun.rank == 0:
        if teacher is not None:
            write_probabilities(settings, data, teacher, device)
        if first_stage is not None:
            write_maps(settings, data, first_stage, device)
    torchrun.barrier()
    if teacher is not None:
        data = with_teacher(settings, data, teacher)
    if first_stage is not None:
        data = with_input_maps(settings, data, first_stage)
    return settings, data, first_stage, device, num_bytes


def _choose_open_settings(
    settings: Settings,
    data: RunData,
    device: torch.device,
    torchrun: TorchrunProcesses,
    num_processes: int,
    *,
    fresh: bool,
) -> Settings:
    """Put numbers where the settings say `auto` or leave it to a benchmark: rank 0 measures, all do the same."""
    is_first = torchrun.rank == 0
    earlier = settings_of_run(settings, fresh=fresh) if is_first else None

    def with_layout(settings: Settings, num_images: int, key: str = "layout") -> Settings:
        channels_last = choose_layout(settings, earlier, device, max(1, num_images)) if is_first else False
        return dataclasses.replace(settings, channels_last=torchrun.share(key, channels_last))

    if settings.batch_size != "auto":
        return with_layout(settings, settings.batch_size // num_processes)
    tried = with_layout(settings, PROBE_IMAGES[-1], "layout of probe")
    num_images = num_training_images(settings, data)
    batch_size = choose_batch_size(tried, earlier, device, num_processes, num_images) if is_first else 0
    settings = with_batch_size(settings, torchrun.share("batch_size", batch_size))
    if settings.images_per_batch % num_processes:
        raise SettingsError(
            f"batch_size='auto': the run was started with {settings.batch_size} images, which {num_processes} "
            "processes cannot share equally; start a number of them that can"
        )
    if earlier is not None and settings.init_lr != earlier.init_lr:
        raise SettingsError(
            f"batch_size='auto': the run was started with batch_size={earlier.batch_size} init_lr={earlier.init_lr:g}, "
            f"and init_lr={settings.init_lr:g} would follow now; set those two numbers to resume it, or choose "
            "another run_name, or --fresh to start over"
        )
    if device.type == "cuda":  # where the choice may differ for so many; a CPU benchmarks few of them anyway
        return with_layout(settings, settings.images_per_batch // num_processes)
    return dataclasses.replace(settings, channels_last=tried.channels_last)


def check_choices(settings: Settings) -> None:
    """What the settings name must exist, before data is read or a folder made."""
    build_losses(settings)
    check_optimizer(settings.optimizer, settings.optimizer_params)
    check_trackers(settings.trackers)
    augmentation = build_augmentation(settings)
    if settings.learns_lines and augmentation.unfollowed:
        raise SettingsError(
            f"train_transforms: {augmentation.unfollowed[0]}: where it moves the points of a line is not known; leave "
            "it out, or set lines=None"
        )
    weights = settings.pretrained
    if not isinstance(weights, str):
        return
    if settings.all_data and "{fold}" in weights:
        raise SettingsError(f"pretrained={weights}: all_data=True has no folds; {{seed}} or one file is expected in it")
    # Of a folder, the run that it is of or lies in: what would be in it has that folder around it.
    named = Path(weights.removeprefix(FOLDER)) / CONFIG_FILE if weights.startswith(FOLDER) else Path(weights)
    if run_folder_of(named.resolve()) == settings.run_folder.resolve():
        raise SettingsError(
            f"pretrained={weights} is of this very run: the same command without it resumes where the run "
            "stopped; a new run that starts from these weights needs a run_name of its own"
        )
    sources_of_weights(settings)


def warn_of_search(settings: Settings, device: torch.device) -> None:
    """Say that compilation searches for kernels by a clock, and that `deterministic` keeps it from most of them."""
    if settings.compile_mode == "max-autotune" and settings.deterministic and device.type == "cuda":
        warn(
            "compile_mode='max-autotune' with deterministic=True spends minutes on a search for fast kernels "
            "and may not use many of them, while two runs still round differently; set deterministic=False, or "
            "compile_mode='reduce-overhead'"
        )


def _try_compiled(settings: Settings, device: torch.device, num_images: int) -> None:
    """Compile for the batches of the run; what torch makes of it here is used again for the run's own models."""
    say(f"compile_mode={settings.compile_mode}: compiling {settings.backbone_model}, from seconds to minutes")
    step = probe_step(dataclasses.replace(settings, accumulation_steps=1), device, num_batches=1)
    with explain_failures(settings, "the first compiled step"):
        step(probe_batch(settings, num_images))


def try_step(settings: Settings, device: torch.device, num_processes: int) -> int:
    """Some models refuse some image sizes, batch norm a batch of one, some optimizers a plain step: better now than
    after the first epoch.

    Returns:
        The bytes of model, EMA weights and optimizer.
    """
    first = settings.seeds_to_train[0] if settings.all_data else settings.folds_to_train[0]
    model = build_classifier(with_weights_of(settings, first), mean=0.5, std=0.25).to(device)
    check_patches(model.backbone, settings.backbone_model, settings.image_shape)
    say(model.origin)
    if settings.sync_batch_norm and num_processes > 1:
        model = convert_batch_norm(model, device)
    num_images = 2 if settings.batch_size == "auto" else min(settings.batch_size // num_processes, 2)
    settings = dataclasses.replace(settings, batch_size=num_images, accumulation_steps=1, compile_mode=None)
    step = probe_step(settings, device, num_batches=1, model=model)
    try:
        with explain_failures(settings, "the first step"):
            step(probe_batch(settings, num_images))
    except UserError:
        raise
    except Exception as error:  # models fail in ways of their own
        raise UserError(
            f"backbone_model={settings.backbone_model}, optimizer={settings.optimizer} cannot learn from {num_images} "
            f"images of {settings.image_size} px: {one_line(error)}; change image_size, batch_size, "
            "accumulation_steps, backbone_model or optimizer"
        ) from error
    of_weights = sum(value.nbytes for value in model.state_dict().values())
    of_optimizer = sum(
        value.nbytes
        for state in step.optimizer.state.values()
        for value in state.values()
        if isinstance(value, torch.Tensor)
    )
    return int(of_weights * (1 if step.ema is None else 2) + of_optimizer)
