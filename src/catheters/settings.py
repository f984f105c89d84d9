"""Strict, frozen settings: everything that decides what a run does.

A config module holds `settings = Settings(...)` and no logic. Every script takes `--config FILE` and `name=value`
overrides. A misspelt name, a wrong type or an impossible value ends with one line that says where it stands, what came
and what is allowed.
"""

import string
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass
from pydantic_core import PydanticSerializationError, to_json

from catheters.errors import unknown_name
from catheters.labels import RANZCR_LABELS

# Lists are as good as tuples in a config; what stands inside stays strict.
ListOrTuple = Field(strict=False)
Labels = Annotated[tuple[str, ...], ListOrTuple, Field(min_length=1)]
Transforms = Annotated[tuple[Annotated[tuple[str, dict[str, Any]], ListOrTuple], ...], ListOrTuple]

PREDICTION_COLUMNS = ("patient", "fold")
"""Columns of `predictions.csv` beside the id that hold no probabilities."""


@dataclass(
    frozen=True,
    kw_only=True,
    config=ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True, allow_inf_nan=False),
)
class Settings:
    """Everything that decides what a run does. The text under each field is shown by `--help`."""

    # Data
    dataset_folder: str = "dataset"
    """Folder of the label table; image paths are relative to it."""
    label_table: str = "train.csv"
    """CSV with one row an image, relative to `dataset_folder`."""
    uid_column: str = "StudyInstanceUID"
    """Column that names each image uniquely."""
    patient_column: str = "PatientID"
    """Column of the patient; no patient is ever in two folds."""
    path_pattern: str = "train/{uid}.jpg"
    """Image file relative to `dataset_folder`; {uid} or any {column} of the row is filled in."""
    label_columns: Labels = RANZCR_LABELS
    """Labels to learn: 0/1 columns of the table, or names defined in `derived_labels`."""
    derived_labels: dict[str, Annotated[tuple[str, str], ListOrTuple]] = Field(default_factory=dict)
    """{label: (column, value)}: the label is 1 where the column holds the value, else 0."""
    cache_folder: str = "cache"
    """Folder of the image cache."""
    cache_name: Annotated[str, Field(pattern=r"^[\w.-]+$")] = "ranzcr"
    """The cache is <cache_folder>/<cache_name>_<image_size>.npy."""
    image_size: Annotated[int, Field(ge=16, le=8192)] = 1024
    """Height and width of the cached images, in pixels; the X-ray is stretched to it."""

    # Folds
    num_folds: Annotated[int, Field(ge=2, le=100)] = 5
    """Number of patient-grouped, label-balanced folds."""
    folds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], ListOrTuple, Field(min_length=1)] | None = None
    """Folds to train, counted from 0; None: all."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of folds, weights, shuffling and augmentation."""

    # Batches
    train_transforms: Transforms = ()
    """albumentations transforms of the training images, as (name, params); an absent `size` means `image_size`."""
    batch_size: Annotated[int, Field(ge=1)] = 12
    """Images in a training batch."""
    valid_batch_size: Annotated[int, Field(ge=1)] | None = None
    """Images in a validation batch; None: twice `batch_size`. It changes speed and memory, not results."""
    num_workers: Annotated[int, Field(ge=0)] | None = None
    """Processes that load batches; 0: none but the training one; None: one a core, at most 8, and 1 without a GPU."""

    grey_mean: Annotated[float, Field(ge=0, le=1)] | None = None
    """Grey mean that is subtracted from the pixels, in 0..1; None: the cache's own."""
    grey_std: Annotated[float, Field(gt=0, le=1)] | None = None
    """Standard deviation that they are divided by, in 0..1; None: the cache's own."""

    # Model
    backbone_model: str = "resnest50d"
    """Any name that timm knows; `timm.list_models("*resnest*")` lists some."""
    pretrained: bool | str = True
    """True: timm's weights (downloaded once); False: random; a path: a file of timm weights (.pth, .safetensors)."""
    classifier: Literal["linear", "attention"] = "linear"
    """linear: one linear layer over pooled features; attention: a head a device, each with its own attention map."""
    heads: dict[str, Labels] = Field(default_factory=dict)
    """{device: its labels}, the attention heads; together they hold every label once. Empty: one head for all."""
    drop_rate: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Dropout before the linear classifier; attention heads have 0.5 of their own."""

    # Training
    loss_func: str = "bce"
    """bce: binary cross-entropy; focal; asymmetric."""
    loss_params: dict[str, float] = Field(default_factory=dict)
    """focal: gamma (2), alpha (none); asymmetric: gamma_neg (4), gamma_pos (1), clip (0.05); defaults in brackets."""
    label_smoothing: dict[str, Annotated[float, Field(ge=0, lt=1)]] = Field(default_factory=dict)
    """{label: how far its targets move towards one half in the loss}; labels not named stay."""
    pos_weight: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    """{label: weight of its positives in the loss}; labels not named weigh 1."""
    optimizer: str = "Adam"
    """Name of the optimizer."""
    init_lr: Annotated[float, Field(gt=0)] = 3e-5
    """Learning rate that warm-up starts from and takes to `warmup_multiplier` times this."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Weight decay: decoupled for AdamW, L2 for Adam."""
    warmup_epochs: Annotated[int, Field(ge=0)] = 1
    """Epochs of linear warm-up; 0: none, the cosine starts at `init_lr`."""
    warmup_multiplier: Annotated[float, Field(ge=1)] = 10.0
    """Peak learning rate over `init_lr`; 1: warm-up starts at almost 0 and ends at `init_lr`."""
    cosine_epochs: Annotated[int, Field(ge=0)] = 20
    """Epochs of cosine decay after warm-up. A run lasts warmup_epochs + cosine_epochs."""
    restart_epochs: Annotated[int, Field(ge=0)] = 0
    """Epochs after which the cosine starts anew at its peak; 0: one cosine over all of cosine_epochs."""
    min_lr: Annotated[float, Field(ge=0)] = 1e-7
    """Learning rate at the end of the cosine."""
    early_stop: Annotated[int, Field(ge=0)] = 5
    """Epochs without a better macro AUC after which a fold ends; 0: never."""
    use_amp: bool = True
    """Mixed precision; on a CPU it is always off."""
    amp_dtype: Literal["float16", "bfloat16"] = "float16"
    """Mixed precision's type; bfloat16 needs an Ampere GPU or newer."""
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")] = "auto"
    """auto (the first GPU, else the CPU), cpu, cuda or cuda:<index>."""

    # Run
    saved_models_folder: str = "saved_models"
    """Folder of the run folders."""
    run_name: Annotated[str, Field(pattern=r"^[\w.-]+$")] | None = None
    """Name of the run folder; None: the config file's name."""

    @model_validator(mode="after")
    def _check_combinations(self) -> "Settings":
        if len(set(self.label_columns)) < len(self.label_columns):
            raise ValueError("label_columns names a label twice")
        taken = {self.uid_column, *PREDICTION_COLUMNS}.intersection(self.label_columns)
        if taken or self.uid_column in PREDICTION_COLUMNS:
            name = taken.pop() if taken else self.uid_column
            raise ValueError(
                f"'{name}' is a column of its own in predictions.csv (the id, {' and '.join(PREDICTION_COLUMNS)}); "
                "name the label or id column otherwise in the table"
            )
        _check_path_pattern(self.path_pattern)
        try:
            to_json(self.train_transforms)
        except PydanticSerializationError as error:
            raise ValueError(f"train_transforms: {error}; plain Python numbers, texts and lists are expected") from None
        in_heads = [label for labels in self.heads.values() for label in labels]
        named: dict[str, Iterable[str]] = {
            "pos_weight": self.pos_weight,
            "label_smoothing": self.label_smoothing,
            "derived_labels": self.derived_labels,
            "heads": in_heads,
        }
        for setting, labels in named.items():
            for label in labels:
                if label not in self.label_columns:
                    raise ValueError(f"{setting}: {unknown_name(label, 'one of label_columns', self.label_columns)}")
        if self.heads and sorted(in_heads) != sorted(self.label_columns):
            wrong = next(label for label in self.label_columns if in_heads.count(label) != 1)
            raise ValueError(f"heads: '{wrong}' stands in {in_heads.count(wrong)} of them; every label has one head")
        if self.folds is not None:
            if max(self.folds) >= self.num_folds:
                raise ValueError(
                    f"folds={list(self.folds)}: num_folds={self.num_folds}, so at most {self.num_folds - 1}"
                )
            if len(set(self.folds)) < len(self.folds):
                raise ValueError(f"folds={list(self.folds)} names a fold twice")
        if self.warmup_epochs + self.cosine_epochs == 0:
            raise ValueError("warmup_epochs and cosine_epochs are both 0: nothing to train")
        if self.min_lr > self.peak_lr:
            raise ValueError(f"min_lr={self.min_lr} is above the peak learning rate {self.peak_lr}")
        return self

    @property
    def num_epochs(self) -> int:
        """Epochs of a whole run of one fold."""
        return self.warmup_epochs + self.cosine_epochs

    @property
    def peak_lr(self) -> float:
        """Learning rate at the end of warm-up and the start of the cosine."""
        return self.init_lr * (self.warmup_multiplier if self.warmup_epochs else 1.0)

    @property
    def folds_to_train(self) -> tuple[int, ...]:
        """The chosen folds, or all of them."""
        return tuple(range(self.num_folds)) if self.folds is None else self.folds

    @property
    def run_folder(self) -> Path:
        """Where everything that the run writes goes."""
        assert self.run_name is not None, "load_settings names the run"
        return Path(self.saved_models_folder) / self.run_name

    @property
    def cache_file(self) -> Path:
        """The image cache's `.npy`; its index is the same name with `.json`."""
        return Path(self.cache_folder) / f"{self.cache_name}_{self.image_size}.npy"


def _check_path_pattern(pattern: str) -> None:
    try:
        fields = [field for field in string.Formatter().parse(pattern) if field[1] is not None]
    except ValueError as error:
        raise ValueError(f"path_pattern='{pattern}': {error}") from None
    if not fields or any(name == "" or spec or conversion for _, name, spec, conversion in fields):
        raise ValueError(
            f"path_pattern='{pattern}': {{uid}} or a {{column}} of the table is expected in it, as in train/{{uid}}.jpg"
        )
