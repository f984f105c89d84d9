"""The settings in groups, as `--help` and the reference show them."""

import textwrap
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import get_type_hints

from catheters.config.field_types import in_words
from catheters.config.settings import FIELDS, Settings

GROUPS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "Label table": (
            "dataset_folder",
            "label_table",
            "path_pattern",
            "uid_column",
            "patient_column",
            "patient_pattern",
            "dicom_id",
            "label_columns",
            "label_values",
            "soft_labels",
            "soft_label_threshold",
            "label_corrections",
            "derived_labels",
            "findings_column",
            "keep_rows",
            "exclude_ids",
            "extra_tables",
            "annotation_table",
            "landmark_table",
            "measurements",
            "spacing_table",
            "rules",
            "exclusive",
            "exclusive_conflicts",
            "weight_column",
        ),
        "Image cache": (
            "cache_folder",
            "cache_name",
            "image_size",
            "resize",
            "crop_borders",
            "inverted",
            "resampling",
        ),
        "Folds and seeds": (
            "num_folds",
            "folds",
            "fold_column",
            "fold_seed",
            "allow_leaking_folds",
            "all_data",
            "seed",
            "seeds",
        ),
        "Augmentation": ("train_transforms", "augment_on", "mixup_alpha"),
        "Model": (
            "backbone_model",
            "pretrained",
            "pretrained_parts",
            "classifier",
            "heads",
            "lines",
            "first_stage",
            "line_stride",
            "drop_rate",
            "drop_path_rate",
            "grey_mean",
            "grey_std",
        ),
        "Batches and DataLoader": (
            "batch_size",
            "lr_batch_size",
            "valid_batch_size",
            "accumulation_steps",
            "num_workers",
        ),
        "Stages": ("stages",),
        "Teacher": ("teacher", "soft_weight", "pseudo_labels", "pseudo_label_confidence"),
        "Loss": ("loss_func", "loss_params", "loss_weights", "pos_weight", "label_smoothing"),
        "Optimizer": ("optimizer", "optimizer_params", "weight_decay", "layer_decay", "clip_grad_norm", "ema_decay"),
        "Learning-rate schedule and early stopping": (
            "epochs",
            "init_lr",
            "schedule",
            "schedule_step",
            "warmup_epochs",
            "warmup_multiplier",
            "cosine_epochs",
            "restart_epochs",
            "plateau_patience",
            "plateau_factor",
            "min_lr",
            "early_stop",
        ),
        "Device and speed": (
            "device",
            "use_amp",
            "amp_dtype",
            "channels_last",
            "compile_mode",
            "grad_checkpointing",
            "deterministic",
            "profile",
        ),
        "Several GPUs": ("folds_parallel", "sync_batch_norm"),
        "Run folder": ("saved_models_folder", "run_name", "trackers", "snapshot_minutes", "snapshot_iterations"),
        "Debug run": ("debug", "debug_fraction"),
    }
)
"""Group -> its settings. Every setting is in one of them."""

CACHE_GROUPS = ("Label table", "Image cache", "Folds and seeds", "Augmentation")
"""What `preproc_npy.py` uses: folds that leak are refused early, contact sheets show the augmentation."""
CACHE_FIRST = ("dataset_folder", "label_table", "path_pattern", "image_size", "cache_name")
TRAIN_FIRST = ("dataset_folder", "image_size", "backbone_model", "batch_size", "epochs")
"""What a beginner changes."""


def default_of(name: str) -> str:
    """A setting's default, as it is written in a config."""
    return repr(FIELDS[name].get_default(call_default_factory=True))


def meaning_of(name: str) -> str:
    """A setting's docstring, in one line."""
    return " ".join((FIELDS[name].description or "").split())


def type_of(name: str) -> str:
    """What a setting takes, in words, as in `int or None`."""
    return in_words(get_type_hints(Settings)[name])


def describe_settings(groups: Sequence[str] = tuple(GROUPS), first: Sequence[str] = ()) -> str:
    """One paragraph per setting: name, default, meaning; under the headings of their groups.

    Args:
        groups: keys of `GROUPS`.
        first: settings that come first, under a heading of their own.
    """
    sections = {"What is changed first": first, **{group: GROUPS[group] for group in groups}}
    lines = []
    for heading, names in sections.items():
        shown = [name for name in names if heading not in GROUPS or name not in first]
        lines += ["", f"{heading}:"] if shown else []
        for name in shown:
            for text, indent in ((f"{name} = {default_of(name)}", "  "), (meaning_of(name), "      ")):
                lines += textwrap.wrap(
                    text, 100, initial_indent=indent, subsequent_indent="      ", break_long_words=False
                )
    return "\n".join(lines[1:])
