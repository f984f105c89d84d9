"""The settings themselves: each one's name, type, default and meaning, as `--help` and the documentation show them."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field
from pydantic.dataclasses import dataclass

from catheters.config.field_types import Column, Labels, ListOrTuple, PixelSize, PointToPoint, Transforms, Values
from catheters.config.rules import read_rules
from catheters.labels import RANZCR_LABELS, LabelValue
from catheters.measurement_rules import Rule
from catheters.runtime.host import check_device

CONFIG = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True, allow_inf_nan=False)
"""A misspelt name or a wrong type is a mistake."""


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class SettingFields:
    """Every setting by itself; `Settings` adds how they must fit together."""

    # Data
    dataset_folder: str = "dataset"
    """Folder of the label table; image paths are relative to it."""
    label_table: str = "train.csv"
    """CSV with one row per image, relative to `dataset_folder`."""
    uid_column: Column = "StudyInstanceUID"
    """Column that names each image uniquely."""
    patient_column: Column = "PatientID"
    """Column of the patient; no patient is ever in two folds."""
    patient_pattern: str | None = None
    r"""Regular expression with one group, searched in `patient_column`: the group is the patient, as in
    /patient(\d+)/. None: the whole value is."""
    path_pattern: str = "train/{uid}.jpg"
    """Image file relative to `dataset_folder`; {uid} or any {column} of the row is filled in; folders may have * in
    them, and ** for any depth, as in images*/**/{uid}. With `dicom_id`: a glob of files."""
    dicom_id: str | None = None
    """DICOM keyword of the ids in `uid_column`, such as StudyInstanceUID: each image is then the file with this id in
    its header, among the files that `path_pattern` is a glob of, as in export/**/*. None: images are found by name."""
    label_columns: Labels = RANZCR_LABELS
    """Labels to learn: 0/1 columns of the table, or names defined in `derived_labels`."""
    label_values: dict[str, LabelValue] = Field(default_factory=dict)
    """{value: 0, 1 or "unknown"}: what further values in the label columns mean, as in {"": "unknown", "-1.0": 1}; what
    is unknown there or in columns of `derived_labels` and `findings_column`. An unknown label counts nowhere."""
    soft_labels: bool = False
    """Whether cells of the label columns may be shares between 0 and 1, as several readers or a teacher give them: the
    loss learns them as they are."""
    soft_label_threshold: Annotated[float, Field(gt=0, le=1)] | None = None
    """With `soft_labels`: from which share on a label counts as positive in folds and scores, else as negative. None: a
    share between 0 and 1 counts nowhere but in the loss."""
    label_corrections: str | None = None
    """CSV with `uid_column`, label and new_label: label becomes 0 and new_label 1 for that image. Relative to where you
    are."""
    derived_labels: dict[Column, Annotated[tuple[Column, str], ListOrTuple]] = Field(default_factory=dict)
    """{label: (column, value)}: the label is 1 where the column holds the value, unknown where
    `label_values` says so, else 0."""
    findings_column: Column | None = None
    """Column that lists an image's findings as A|B|C, as NIH's tables do, or as ['A', 'B'], as PadChest's: a label is 1
    where it is among them. A blank means none with label_values={"": 0}, and that nobody
    knows with {"": "unknown"}."""
    keep_rows: dict[Column, str | Values] = Field(default_factory=dict)
    """{column: value} or {column: [value, value]}: rows that hold other values there are left out of everything."""
    exclude_ids: str | None = None
    """Text file with one image id per line: these images are left out of everything. Relative to where you are."""
    extra_tables: Annotated[tuple[dict[str, Any], ...], ListOrTuple] = ()
    """Further label tables, of other hospitals or data sets, each as {"cache_name": "nih", "dataset_folder":
    "dataset/nih"} with the settings of its table that are not as by default, crop_borders, inverted, and the "weight"
    of its images in the loss. They only train. Labels that a table lacks are unknown. An image of a patient of
    `label_table`, by id or by equal pixels, trains where that one does; "shares_ids": False says that ids of patients
    and images are the table's own."""
    annotation_table: str | None = None
    """CSV of drawn lines, relative to `dataset_folder`: `uid_column`, label, and data as [[x, y], ...] in pixels of the
    X-ray. `lines` learns from them; contact sheets show them."""
    landmark_table: str | None = None
    """CSV of landmarks such as the carina, relative to `dataset_folder`: `uid_column`, name, x and y in pixels of the
    X-ray. `lines` learns those that `measurements` name; contact sheets show all."""
    measurements: dict[str, PointToPoint] = Field(default_factory=dict)
    """{name: (point, point, kind)}, as {"ETT tip above carina": ("ETT tip", "carina", "vertical")}: from the tip of a
    device type, or a landmark, to another; vertical is positive where the first lies above the second. The landmarks
    that they name are learnt; predictions have the lengths, in mm where the pixel spacing is known."""
    spacing_table: str | None = None
    """CSV of pixel spacings, relative to `dataset_folder`: `uid_column`, spacing_x and spacing_y in mm per pixel of the
    X-ray. With it, out-of-fold `measurements` are in mm, and so is how far found tips and lines lie off in what
    evaluate.py writes."""
    rules: Annotated[str | dict[str, Rule], BeforeValidator(read_rules)] = Field(default_factory=dict)
    """TOML file with a label for each length of `measurements`, relative to where you are, such as
    configs/ett_rules.toml. The run and its checkpoints keep what it holds."""
    cache_folder: str = "cache"
    """Folder of the image cache."""
    cache_name: Annotated[str, Field(pattern=r"^[\w.-]+$")] = "ranzcr"
    """The cache is <cache_folder>/<cache_name>_<image_size>.npy."""
    image_size: PixelSize | Annotated[tuple[PixelSize, PixelSize], ListOrTuple] = 1024
    """Height and width of the cached images, in pixels: one number for both, or [height, width]."""
    resize: Literal["stretch", "pad"] = "stretch"
    """stretch: the X-ray is stretched to image_size; pad: it keeps its aspect, black fills the rest."""
    crop_borders: bool = False
    """Cut off black borders first."""
    inverted: Literal["keep", "invert", "exclude"] = "keep"
    """What becomes of X-rays in inverted grayscale (MONOCHROME1: dark mediastinum, bright lungs): keep, invert or
    exclude."""
    resampling: Literal["area", "quick"] = "area"
    """area: every pixel of the X-ray is averaged into image_size, which keeps thin lines; quick: as version 0.2.0 did,
    for its runs and caches."""

    # Folds
    num_folds: Annotated[int, Field(ge=2, le=100)] = 5
    """Number of patient-grouped, label-balanced folds."""
    fold_column: Column | None = None
    """Column of the table that holds the fold of each image, 0 to num_folds - 1; None: patients are assigned to folds
    by `fold_seed`."""
    fold_seed: Annotated[int, Field(ge=0)] | None = None
    """Seed of the folds, and of the patients of a debug run: equal ones give equal folds whatever `seed` is; None:
    `seed`."""
    allow_leaking_folds: bool = False
    """Train although patients, or equal images, are in several folds; scores are then too good."""
    folds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], ListOrTuple, Field(min_length=1)] | None = None
    """Folds to train, counted from 0; None: all."""
    all_data: bool = False
    """Train on every image and validate on none; the last epoch's weights are kept."""
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], ListOrTuple, Field(min_length=1)] | None = None
    """With `all_data`: a model is trained for each of these seeds, in place of `seed`; None: one, of `seed`."""
    debug: bool = False
    """A debug run: quick, on `debug_fraction` of the patients of each fold, in a run folder named ..._debug."""
    debug_fraction: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Share of the patients that a debug run keeps."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of weights, shuffling and augmentation, and of the folds where `fold_seed` is None."""

    # Batches
    train_transforms: Transforms = ()
    """albumentations transforms of the training images, as (name, params); an absent `size` means `image_size`.
    ("OneOf", {"transforms": ((name, params), ...), "p": 0.5}) applies one of several."""
    augment_on: Literal["cpu", "device"] = "cpu"
    """cpu: the DataLoader workers augment. device: they only draw, and the GPU augments whole batches (both flips,
    Affine, RandomResizedCrop, RandomSizedCrop, CoarseDropout, RandomBrightnessContrast), for a GPU that waits for
    data."""
    batch_size: Annotated[int, Field(ge=1)] | Literal["auto"] = 12
    """Images in a training batch; with torchrun the global batch, of all ranks together. auto: the most that fit into
    memory and leave an epoch 20 steps, found by a probe before the run, with the learning rate that follows."""
    lr_batch_size: Annotated[int, Field(ge=1)] = 12
    """batch_size="auto": the images per optimizer step that init_lr is meant for. The learning rate used grows with
    the square root of those found, for SGD in proportion."""
    valid_batch_size: Annotated[int, Field(ge=1)] | None = None
    """Images in a validation batch of one rank; None: twice its share of `batch_size`. It changes speed and memory, not
    results."""
    num_workers: Annotated[int, Field(ge=0)] | None = None
    """DataLoader workers per training process. 0: none, it loads the batches itself. None: one per core, at most 8
    (with torchrun the ranks share the cores); 1 without a GPU."""
    accumulation_steps: Annotated[int, Field(ge=1)] = 1
    """Gradient accumulation: batches per optimizer step. As one batch of so many times `batch_size`, but for batch
    norm's statistics."""
    grey_mean: Annotated[float, Field(ge=0, le=1)] | None = None
    """Grey mean that is subtracted from the pixels, in 0..1; None: the cache's own."""
    grey_std: Annotated[float, Field(gt=0, le=1)] | None = None
    """Standard deviation that they are divided by, in 0..1; None: the cache's own."""

    # Model
    backbone_model: str = "resnest50d"
    """Any name that timm knows; `timm.list_models("*resnest*")` lists some."""
    pretrained: bool | str = True
    """Transfer learning, fine-tuning. True: timm's pretrained weights (downloaded once); False: random weights; a path:
    a file of weights whose backbone is taken, ours (best.pt) or others' (.pth, .safetensors); local-dir:FOLDER: the one
    in a folder; hf-hub:OWNER/REPO or hf-hub:OWNER/REPO@REVISION: that of a model on the Hugging Face Hub, downloaded
    once. {fold} and {seed} in it are those of each model, as in saved_models/small/fold{fold}/best.pt, without a
    leak."""
    pretrained_parts: Literal["backbone", "all"] = "backbone"
    """backbone: heads start from random weights. all: heads and line decoder are taken from `pretrained` too, which is
    then a checkpoint of the same labels and model."""
    stages: Annotated[tuple[dict[str, Any], ...], ListOrTuple] = ()
    """Trainings one after the other, each as {setting: value} of what is other than in the rest of the config, such as
    [{"image_size": 512}, {"image_size": 1024, "init_lr": 1e-5}]. Each model continues from the best weights of its
    fold, or seed, in the stage before. Earlier stages lie in stage1, stage2, ... of the run folder."""
    classifier: Literal["linear", "attention"] = "linear"
    """linear: one linear layer over pooled features; attention: one head per device type, each with its
    own attention map."""
    heads: dict[str, Labels] = Field(default_factory=dict)
    """{device type: its labels}, the attention heads, and the device types that `lines` tells apart, with a map each;
    together they hold every label once. Empty: one head for all, and RANZCR CLiP's device types where labels are
    its own."""
    exclusive: dict[str, Labels] = Field(default_factory=dict)
    """{name: labels that exclude each other}, as {"ETT": ("ETT - Abnormal", "ETT - Borderline", "ETT - Normal")}: a
    softmax over them and a further class, none of them, in place of a sigmoid each. Empty: every label by itself."""
    exclusive_conflicts: Literal["refuse", "first"] = "refuse"
    """An image with two labels of an exclusive group: "refuse" the table, or the one that `exclusive` names "first"
    holds."""
    lines: Literal["auxiliary", "pooled", "input"] | None = None
    """Learn where each line and its tip lie from `annotation_table`. auxiliary: a line decoder trains the backbone
    beside the classifier; pooled: the classifier also reads what lies at the tips; input: it sees the maps of lines and
    tips that the run `first_stage` predicts. None: from labels alone."""
    first_stage: str | None = None
    """lines="input": run folder of a finished run with lines="auxiliary" or "pooled", of the same images and folds.
    Each image has the maps of the model that did not see its patient."""
    teacher: str | None = None
    """Run folder of a finished run of the same labels, images and folds, whose probabilities are learnt too
    (self-training, distillation). The model of a fold learns from the teacher's model of that fold, which has not seen
    what the fold validates on. Labels that are unknown, in `extra_tables` too, become pseudo-labels; so do lines that
    nobody has drawn, where both runs learn lines."""
    soft_weight: Annotated[float, Field(ge=0, le=1)] = 0.5
    """With `teacher`: its share in the target of a label that is known; the rest is the label's own. 0: its
    probabilities fill in unknown labels alone."""
    pseudo_labels: Literal["soft", "hard", "confident"] = "soft"
    """With `teacher`: its probabilities as they are; hard: as 0 and 1; confident: so where the probability, or that of
    the opposite, is `pseudo_label_confidence` or more, unknown elsewhere."""
    pseudo_label_confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.9
    """pseudo_labels="confident": from which probability on."""
    line_stride: Literal[2, 4, 8] = 4
    """Pixels of the image for one of the line decoder's maps: 4 for image_size 512 and more, 2 for small images."""
    drop_rate: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Dropout before the linear classifier; attention heads have 0.5 of their own."""
    drop_path_rate: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Stochastic depth (drop path): how often the last residual branch is dropped, in 0..1; earlier ones less."""
    channels_last: bool | None = None
    """Memory format: images lie in memory channel by channel (False) or pixel by pixel (True). None: True where a short
    benchmark before the run finds that it saves 3% or more for this model and device."""
    compile_mode: Literal["default", "reduce-overhead", "max-autotune"] | None = None
    """torch.compile of the training step: seconds to minutes at the start, faster steps; reduce-overhead and
    max-autotune use CUDA graphs, max-autotune for use with deterministic=False. None: not compiled."""
    grad_checkpointing: bool = False
    """Compute the backbone's activations again in the backward pass: less memory, more time, the same gradients; batch
    norm's running averages then follow each batch twice."""

    # Training
    loss_func: str = "bce"
    """The multi-label loss. bce: binary cross-entropy; focal; asymmetric."""
    loss_params: dict[str, float] = Field(default_factory=dict)
    """focal: gamma (2), alpha (none); asymmetric: gamma_neg (4), gamma_pos (1), clip (0.05); defaults in brackets."""
    loss_weights: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    """{term of the loss: its weight in the sum}: `labels` and the names in `exclusive`; with a line decoder also lines,
    tips and landmarks, with lines="pooled" positions and global besides. 1 for those that are absent."""
    label_smoothing: dict[str, Annotated[float, Field(ge=0, lt=1)]] = Field(default_factory=dict)
    """{label: how far its targets move towards one half in the loss}; labels not named stay."""
    pos_weight: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    """Class imbalance: {label: weight of its positives in the weighted loss}; labels not named weigh 1."""
    weight_column: Column | None = None
    """Column of the label table with a weight per image, 0 or more, by which its loss is multiplied. Weights of mean 1
    leave the meaning of the learning rate. None: every image weighs 1."""
    mixup_alpha: Annotated[float, Field(ge=0)] = 0.0
    """Mixup: each image and its labels are mixed with another's of the batch, by a share from Beta(alpha, alpha); 0:
    off."""
    optimizer: str = "Adam"
    """Any name that timm knows, in any case: Adam, AdamW, SGD (Nesterov), momentum (plain), LAMB, RMSprop, Lion, ..."""
    optimizer_params: dict[str, Any] = Field(default_factory=dict)
    """Further parameters of the optimizer, such as {"momentum": 0.9} or {"betas": (0.9, 0.98)}."""
    init_lr: Annotated[float, Field(gt=0)] = 3e-5
    """Learning rate at the start of warm-up. The peak is `warmup_multiplier` times this."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Weight decay, decoupled for AdamW, L2 for Adam; norms and biases have none."""
    layer_decay: Annotated[float, Field(gt=0, le=1)] | None = None
    """Factor by which each layer of the backbone learns slower than the one above it; None: all learn at one rate."""
    clip_grad_norm: Annotated[float, Field(gt=0)] | None = None
    """Gradients of a larger total norm are scaled down to it; None: never."""
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = None
    """EMA weights: an exponential moving average, new = ema_decay old + (1 - ema_decay) weights at each optimizer step
    that float16 does not skip, faster at first. They are scored, chosen and saved as best.pt, the raw weights as
    best_raw.pt. None: no EMA."""
    schedule: Literal["cosine", "cosine_restarts", "one_cycle", "constant", "plateau"] = "cosine"
    """Learning-rate schedule. cosine: warm-up, then cosine_epochs down to min_lr. cosine_restarts: again every
    restart_epochs. one_cycle: up in warmup_epochs and down to min_lr in the rest of `epochs`, both as half cosines.
    constant: the peak after warm-up. plateau: that, times plateau_factor after plateau_patience epochs without a better
    macro AUC."""
    schedule_step: Literal["iteration", "epoch"] = "iteration"
    """When the learning rate changes: at each step of the optimizer, or only where an epoch begins."""
    epochs: Annotated[int, Field(ge=1)] | None = None
    """Epochs per fold; None: warmup_epochs + cosine_epochs. Fewer end the schedule early."""
    warmup_epochs: Annotated[int, Field(ge=0)] = 1
    """Epochs of linear warm-up; 0: none, the schedule starts at `init_lr`."""
    warmup_multiplier: Annotated[float, Field(ge=1)] = 10.0
    """Peak learning rate over `init_lr`. At 1 the peak is `init_lr`, and warm-up starts near 0."""
    cosine_epochs: Annotated[int, Field(ge=0)] = 20
    """schedule="cosine": epochs of cosine decay after warm-up."""
    restart_epochs: Annotated[int, Field(ge=1)] = 10
    """schedule="cosine_restarts": epochs after which the cosine starts again at its peak."""
    plateau_patience: Annotated[int, Field(ge=0)] = 2
    """schedule="plateau": epochs without a better macro AUC that are let pass before the learning rate falls."""
    plateau_factor: Annotated[float, Field(gt=0, lt=1)] = 0.3
    """schedule="plateau": what the learning rate is multiplied by."""
    min_lr: Annotated[float, Field(ge=0)] = 1e-7
    """Learning rate that the schedule ends at, or never falls below; layers that learn slower have less of it too."""
    early_stop: Annotated[int, Field(ge=0)] = 5
    """Early stopping: epochs without a better macro AUC after which the training of a fold stops; 0: never."""
    use_amp: bool = True
    """Mixed precision; on a CPU it is always off."""
    amp_dtype: Literal["float16", "bfloat16"] = "float16"
    """Mixed precision's type; bfloat16 needs an Ampere GPU or newer."""
    device: Annotated[str, AfterValidator(check_device)] = "auto"
    """auto (the first NVIDIA or AMD GPU, else the CPU), cpu, cuda or cuda:<index>; xpu or xpu:<index> for Intel's GPUs,
    mps for Apple's. With torchrun, auto and cuda give each rank a GPU of its own. A GPU that is there but does not
    compute is an error with auto as well."""
    deterministic: bool = True
    """Reproducible on a GPU: only algorithms that give the same bits every time, where there are such. False: faster
    ones, and those for a model for which cuDNN has no other."""
    sync_batch_norm: bool = False
    """Several GPUs: batch norm's statistics are those of the global batch, not of the share of each rank."""
    folds_parallel: bool = False
    """With torchrun: each rank trains folds (or seeds) of its own, in place of a share of every batch."""

    # Run
    profile: bool = False
    """Before the run, do some steps of a model of its own and write where their time goes, with and without loading, to
    <run folder>/profile: a table, and traces for ui.perfetto.dev."""
    trackers: Annotated[tuple[str, ...], ListOrTuple] = ()
    """Trackers of experiments that get what log.jsonl gets: tensorboard, mlflow, wandb (Weights & Biases); each is an
    extra to install."""
    saved_models_folder: str = "saved_models"
    """Folder of the run folders."""
    run_name: Annotated[str, Field(pattern=r"^[\w.-]+$")] | None = None
    """Name of the run folder; None: the config file's name."""
    snapshot_minutes: Annotated[float, Field(gt=0)] | None = 10.0
    """Minutes after which a snapshot is written, from which a killed run resumes; None: by `snapshot_iterations` alone.
    There is one after each epoch in any case."""
    snapshot_iterations: Annotated[int, Field(ge=1)] | None = None
    """Batches after which one is written; None: by `snapshot_minutes` alone."""
