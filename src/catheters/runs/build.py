"""The composition root: settings in, the parts that they describe out. No other part below reads settings whole."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from catheters.checkpoints.checkpoint import Checkpoint, save_checkpoint
from catheters.checkpoints.parts import build_classifier
from catheters.config.compatibility import check_resumable
from catheters.config.loading import settings_to_json
from catheters.config.settings import Settings
from catheters.data.augmentation import Augmentation
from catheters.data.gpu_augmentation import GpuAugmentation
from catheters.data.tables.label_rules import LabelRules
from catheters.data.tables.label_table import TableSource
from catheters.models.classifier import Classifier
from catheters.runs.advice import advice_at_chance
from catheters.runtime.distributed import ALONE, Processes
from catheters.runtime.precision import choose_dtype
from catheters.training.context import TrainContext
from catheters.training.losses import Losses, create_losses
from catheters.training.optimizers import create_optimizer
from catheters.training.schedules import Plan, Schedule
from catheters.training.step import TrainStep, convert_batch_norm


def build_label_rules(settings: Settings, *, may_lack_labels: bool = False) -> LabelRules:
    """How a table's cells become labels."""
    return LabelRules(
        label_values=settings.label_values,
        soft_labels=settings.soft_labels,
        soft_label_threshold=settings.soft_label_threshold,
        derived_labels=settings.derived_labels,
        findings_column=settings.findings_column,
        may_lack_labels=may_lack_labels,
    )


def build_table_source(settings: Settings, *, may_lack_labels: bool = False) -> TableSource:
    """Where the label table stands, and how it is read."""
    return TableSource(
        dataset_folder=Path(settings.dataset_folder),
        label_table=settings.label_table,
        uid_column=settings.uid_column,
        patient_column=settings.patient_column,
        patient_pattern=settings.patient_pattern,
        path_pattern=settings.path_pattern,
        dicom_id=settings.dicom_id,
        dicom_headers=Path(settings.cache_folder) / f"{settings.cache_name}_dicom_ids.json",
        keep_rows=settings.keep_rows,
        label_columns=settings.label_columns,
        label_rules=build_label_rules(settings, may_lack_labels=may_lack_labels),
        label_corrections=None if settings.label_corrections is None else Path(settings.label_corrections),
        exclude_ids=None if settings.exclude_ids is None else Path(settings.exclude_ids),
        exclusive=settings.exclusive,
        exclusive_conflicts=settings.exclusive_conflicts,
        fold_column=None if settings.all_data else settings.fold_column,
        num_folds=settings.num_folds,
        number_columns=settings.number_columns,
    )


def build_augmentation(settings: Settings) -> Augmentation | GpuAugmentation:
    """That of the training images; a SettingsError names what is wrong with `train_transforms`."""
    create = GpuAugmentation if settings.augment_on == "device" else Augmentation
    return create(settings.train_transforms, settings.image_shape)


def build_losses(settings: Settings) -> Losses:
    """What the model is trained by; a SettingsError as of `create_losses`."""
    return create_losses(
        settings.loss_func,
        settings.loss_params,
        settings.label_columns,
        pos_weight=settings.pos_weight,
        label_smoothing=settings.label_smoothing,
        exclusive=settings.exclusive,
        weights=settings.loss_weights,
        device_types=settings.device_types if settings.learns_lines else {},
    )


def build_optimizer(settings: Settings, model: Classifier) -> torch.optim.Optimizer:
    """Of a model's parameters; a SettingsError as of `create_optimizer`."""
    return create_optimizer(
        model,
        settings.optimizer,
        settings.optimizer_params,
        init_lr=settings.init_lr,
        weight_decay=settings.weight_decay,
        layer_decay=settings.layer_decay,
    )


def build_schedule(settings: Settings, optimizer: torch.optim.Optimizer, steps_per_epoch: int) -> Schedule:
    """Learning rates, for epochs of so many optimizer steps."""
    plan = Plan(
        num_warmup_steps=settings.warmup_epochs * steps_per_epoch,
        num_cosine_steps=settings.cosine_epochs * steps_per_epoch,
        num_restart_steps=settings.restart_epochs * steps_per_epoch,
        num_steps=settings.num_epochs * steps_per_epoch,
        num_held_steps=steps_per_epoch if settings.schedule_step == "epoch" else 1,
        init_lr=settings.init_lr,
        peak_lr=settings.peak_lr,
        min_lr=settings.min_lr,
    )
    plateau = {"patience": settings.plateau_patience, "factor": settings.plateau_factor}
    return Schedule(settings.schedule, optimizer, plan, plateau)


def build_step(
    settings: Settings, model: Classifier, num_batches: int, device: torch.device, processes: Processes = ALONE
) -> TrainStep:
    """The step of a model that is on `device`, for epochs of so many batches.

    Raises:
        SettingsError: a loss, optimizer or schedule that does not exist or cannot be made so.
    """
    # Before anything holds its parameters; None: nothing was measured.
    model = model.to(memory_format=torch.channels_last if settings.channels_last else torch.contiguous_format)
    losses, optimizer = build_losses(settings).to(device), build_optimizer(settings, model)
    augmentation = build_augmentation(settings) if settings.augment_on == "device" else None
    assert not isinstance(augmentation, Augmentation), "workers do that"
    return TrainStep(
        model,
        losses,
        optimizer,
        build_schedule(settings, optimizer, num_batches // settings.accumulation_steps),
        device,
        seed=settings.seed,
        dtype=choose_dtype(settings.use_amp, settings.amp_dtype, device),
        processes=processes,
        accumulation_steps=settings.accumulation_steps,
        clip_grad_norm=settings.clip_grad_norm,
        ema_decay=settings.ema_decay,
        mixup_alpha=settings.mixup_alpha,
        compile_mode=settings.compile_mode,
        augmentation=augmentation,
    )


def build_new_step(
    settings: Settings,
    seed: int,
    num_batches: int,
    device: torch.device,
    processes: Processes,
    grey_values: tuple[float, float],
) -> TrainStep:
    """A new model with all that it needs to learn, its weights drawn by the seed.

    Args:
        settings: the run's settings.
        seed: of the weights that no file has.
        num_batches: batches of an epoch.
        device: where it computes.
        processes: the ranks that train it together.
        grey_values: mean and standard deviation of the images, in 0..1.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)  # the log does not show what was probed before
    torch.manual_seed(seed)
    model = build_classifier(settings, *grey_values).to(device)
    if settings.sync_batch_norm and processes.count > 1:
        model = convert_batch_norm(model, device)
    return build_step(settings, model, num_batches, device, processes)


def build_context(
    settings: Settings,
    what: str,
    folder: Path,
    environment: Mapping[str, Any],
    *,
    run_name: str,
    runs_folder: Path,
    num_models_left: int,
    first_stage: Sequence[Checkpoint],
) -> TrainContext:
    """What the training of the model `what` in its folder needs of the run; `first_stage` goes into its checkpoints."""
    return TrainContext(
        what=what,
        folder=folder,
        run_name=run_name,
        runs_folder=runs_folder,
        environment=environment,
        settings_json=settings_to_json(settings),
        check_settings=lambda written, by, snapshot: check_resumable(written, by, settings, snapshot),
        save=lambda file, model, scores: save_checkpoint(file, model, settings, environment, scores, first_stage),
        label_columns=settings.label_columns,
        num_epochs=settings.num_epochs,
        warmup_epochs=settings.warmup_epochs,
        early_stop=settings.early_stop,
        images_per_batch=settings.images_per_batch,
        snapshot_minutes=settings.snapshot_minutes,
        snapshot_iterations=settings.snapshot_iterations,
        trackers=settings.trackers,
        sync_batch_norm=settings.sync_batch_norm,
        num_models_left=num_models_left,
        advice_at_chance=advice_at_chance(settings),
    )
