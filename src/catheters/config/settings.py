"""Strict, frozen settings: everything that decides what a run does.

A config module holds `settings = Settings(...)` and no logic. Every script takes `--config FILE` and `name=value`
overrides. A misspelt name, a wrong type or an impossible value fails with one line that says where it stands, what came
and what is allowed.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import model_validator
from pydantic.dataclasses import dataclass
from pydantic.fields import FieldInfo

from catheters.config import validation
from catheters.config.mistakes import raises_one_line
from catheters.config.setting_fields import CONFIG, SettingFields
from catheters.errors import SettingsError
from catheters.io.path_pattern import check_glob, check_path_pattern
from catheters.labels import known_heads, tip_name
from catheters.measurement_rules import Rule

MEANT_BEFORE: dict[str, Any] = {"resampling": "quick"}
"""What a run or a cache was made with that is older than these settings, and so does not name them."""
IMAGE_WEIGHT = "weight"
"""Name in a batch of what `weight_column` holds."""
IMAGES_AND_LABELS = (
    *("dataset_folder", "label_table", "uid_column", "patient_column", "patient_pattern", "path_pattern", "dicom_id"),
    *("label_values", "soft_labels", "soft_label_threshold", "label_corrections", "derived_labels", "findings_column"),
    *("keep_rows", "exclude_ids", "exclusive_conflicts"),
)
"""Which images a label table has, and what they show."""
TABLE_SETTINGS = (
    *IMAGES_AND_LABELS,
    *("annotation_table", "landmark_table", "weight_column", "cache_name", "crop_borders", "inverted"),
)
"""What each of `extra_tables` may say of itself."""
SHARED_BY_STAGES = (
    *IMAGES_AND_LABELS,
    *("label_columns", "heads", "exclusive", "backbone_model", "classifier", "lines", "line_stride", "measurements"),
    *("cache_folder", "num_folds", "folds", "fold_column", "fold_seed", "seed", "seeds", "all_data", "debug"),
    *("debug_fraction", "allow_leaking_folds", "pretrained", "pretrained_parts", "stages", "saved_models_folder"),
    *("run_name", "folds_parallel"),
)
"""What no stage says of itself: which images, labels, folds and model there are, and where a run lies."""
_OF_A_RUN_ALONE: dict[str, Any] = {
    "lines": None,
    "first_stage": None,
    "teacher": None,
    "fold_column": None,
    "spacing_table": None,
    "extra_tables": (),
    "stages": (),
    "measurements": {},
    "rules": {},
    "loss_weights": {},
}
"""Settings that are none of an extra table's, as they are where a run has no use for them."""
PREDICTION_COLUMNS = ("patient", "fold", "quality_flags", "reason")
"""Columns of `predictions.csv` beside the id that hold no probabilities: `quality_flags` about the image, and the
`reason` why it has none."""


@raises_one_line
@dataclass(frozen=True, kw_only=True, config=CONFIG)
class Settings(SettingFields):
    """Everything that decides what a run does. `SettingFields` has the settings, `--help` shows their texts."""

    @model_validator(mode="after")
    def _check_combinations(self) -> "Settings":
        self._check_columns()
        self._check_labels()
        self._check_folds_and_seeds()
        self._check_extra_tables()
        self._check_stages()
        validation.check_epochs(
            self.schedule, self.epochs, self.warmup_epochs, self.cosine_epochs, self.warmup_multiplier
        )
        if self.min_lr > self.peak_lr:
            raise ValueError(f"min_lr={self.min_lr} is above the peak learning rate {self.peak_lr}")
        if self.compile_mode in ("reduce-overhead", "max-autotune") and self.accumulation_steps > 1:
            raise ValueError(
                f"compile_mode='{self.compile_mode}' has CUDA graphs, which write over gradients that wait for further "
                f"batches (accumulation_steps={self.accumulation_steps}); compile_mode='default' has none"
            )
        return self

    def _check_columns(self) -> None:
        validation.check_column_names(self.uid_column, self.label_columns, PREDICTION_COLUMNS)
        validation.check_patient_pattern(self.patient_pattern)
        validation.check_label_values(self.label_values)
        validation.check_dicom_id(self.dicom_id)
        if self.dicom_id is None:
            check_path_pattern(self.path_pattern)
        else:
            check_glob(self.path_pattern)
        validation.check_plain("train_transforms", self.train_transforms)
        validation.check_plain("optimizer_params", self.optimizer_params)

    def _check_labels(self) -> None:
        validation.check_label_names("pos_weight", self.pos_weight, self.label_columns)
        validation.check_label_names("label_smoothing", self.label_smoothing, self.label_columns)
        validation.check_label_names("derived_labels", self.derived_labels, self.label_columns)
        validation.check_heads(self.heads, self.label_columns)
        validation.check_exclusive(self.exclusive, self.label_columns)
        validation.check_soft_labels(self.soft_label_threshold, self.exclusive)
        validation.check_lines(self.lines, self.annotation_table, self.first_stage, self.device_types)
        validation.check_measurements(self.measurements, self.device_types, self.lines, self.landmark_table)
        validation.check_rules(self.rules_by_name, self.measurements, self.label_columns, self.device_types)
        validation.check_loss_weights(self.loss_weights, self.label_columns, self.exclusive, self.lines, self.landmarks)

    def _check_folds_and_seeds(self) -> None:
        """Folds and seeds: which models a run is made of."""
        validation.check_named_once("folds", "fold", self.folds)
        validation.check_named_once("seeds", "seed", self.seeds)
        validation.check_fold_numbers(self.folds, self.num_folds)
        validation.check_all_data(self.all_data, self.seeds, self.schedule)

    def _check_extra_tables(self) -> None:
        """Each is read as a label table of its own would be."""
        taken = [self.cache_name]
        for number, table in enumerate(self.extra_tables):
            validation.check_plain(f"extra_tables[{number}]", table)
            validation.check_extra_table(table, number, (*TABLE_SETTINGS, *validation.OF_EXTRA_TABLES), taken)
            taken.append(table["cache_name"])
            try:
                self.of_extra_table(number)
            except SettingsError as error:
                raise ValueError(f"extra_tables[{number}]: {error}") from None
        if self.extra_tables and self.lines == "input":
            raise ValueError(
                "extra_tables: their images have no out-of-fold maps for lines='input'; set lines='pooled', or leave "
                "one of both out"
            )

    def of_extra_table(self, number: int) -> "Settings":
        """The settings by which an extra table is read, and its cache built."""
        own = {"crop_borders": self.crop_borders, "inverted": self.inverted, **self.extra_tables[number]}
        values = {name: own.get(name, FIELDS[name].get_default(call_default_factory=True)) for name in TABLE_SETTINGS}
        return dataclasses.replace(self, **{**_OF_A_RUN_ALONE, **values})

    def _check_stages(self) -> None:
        """Each is a run of its own."""
        if self.pretrained_parts == "all" and not isinstance(self.pretrained, str):
            raise ValueError("pretrained_parts='all' needs pretrained, a checkpoint of the same model")
        for number, stage in enumerate(self.stages):
            validation.check_plain(f"stages[{number}]", stage)
            validation.check_stage(stage, number, FIELDS, SHARED_BY_STAGES)
        try:
            self.in_stages()
        except SettingsError as error:
            raise ValueError(str(error)) from None

    def in_stages(self) -> tuple["Settings", ...]:
        """The settings of each stage's run; of a run without stages itself.

        The last one has the run folder, the others have folders in it; a run without a name, whose caches may be
        wanted, has none.
        """
        named = self if self.run_name else dataclasses.replace(self, stages=(), run_name="run")
        runs: list[Settings] = []
        for number, stage in enumerate(self.stages, start=1):
            changes: dict[str, Any] = {**stage, "stages": ()}
            if number < len(self.stages):
                changes |= {"saved_models_folder": str(named.run_folder), "run_name": f"stage{number}"}
            if runs:
                file = "seed{seed}/final.pt" if self.all_data else "fold{fold}/best.pt"
                changes |= {"pretrained": f"{runs[-1].run_folder}/{file}", "pretrained_parts": "all"}
            try:
                runs.append(dataclasses.replace(self, **changes))
            except SettingsError as error:
                raise SettingsError(f"stages[{number - 1}]: {error}") from None
        return tuple(runs) or (self,)

    @property
    def share_ids(self) -> tuple[bool, ...]:
        """Of each extra table, whether its ids name the same patients and images as those of other tables."""
        return tuple(bool(table.get(validation.SHARES_IDS, True)) for table in self.extra_tables)

    def with_random_weights(self) -> "Settings":
        """The same without weights of a file or of timm."""
        return dataclasses.replace(self, pretrained=False, pretrained_parts="backbone")

    @property
    def extra_weights(self) -> tuple[float, ...]:
        """By how much the loss of each extra table's images is multiplied."""
        return tuple(float(table.get(validation.TABLE_WEIGHT, 1.0)) for table in self.extra_tables)

    @property
    def seed_of_folds(self) -> int:
        """`fold_seed`, or `seed` in its place."""
        return self.seed if self.fold_seed is None else self.fold_seed

    @property
    def number_columns(self) -> dict[str, str]:
        """Numbers per image that go along in each batch, by name, and their columns in the label table."""
        return {} if self.weight_column is None else {IMAGE_WEIGHT: self.weight_column}

    @property
    def device_types(self) -> dict[str, tuple[str, ...]]:
        """Device type -> its labels: `heads`, or RANZCR CLiP's where labels are its own."""
        return self.heads or dict(known_heads(self.label_columns))

    @property
    def learns_lines(self) -> bool:
        """Whether the model has a line decoder of its own."""
        return self.lines in validation.LEARNT_LINES

    @property
    def num_input_maps(self) -> int:
        """Maps that the model sees beside the image: of a first stage's lines and tips, one each per device type."""
        return 2 * len(self.device_types) if self.lines == "input" else 0

    @property
    def landmarks(self) -> tuple[str, ...]:
        """What `measurements` name that is no tip, each once."""
        tips = set(map(tip_name, self.device_types))
        named = (point for start, end, _ in self.measurements.values() for point in (start, end))
        return tuple(dict.fromkeys(point for point in named if point not in tips))

    @property
    def rules_by_name(self) -> dict[str, Rule]:
        """Measurement -> its rule: `rules`, of which a file has been read when the settings were made."""
        assert not isinstance(self.rules, str)
        return self.rules

    @property
    def images_per_batch(self) -> int:
        """`batch_size`, once a run has put a number in the place of "auto"."""
        assert self.batch_size != "auto", "a run chooses before it needs it"
        return self.batch_size

    @property
    def num_epochs(self) -> int:
        """Epochs of a whole run of one fold."""
        return self.warmup_epochs + self.cosine_epochs if self.epochs is None else self.epochs

    @property
    def peak_lr(self) -> float:
        """Learning rate at the end of warm-up."""
        return self.init_lr * (self.warmup_multiplier if self.warmup_epochs else 1.0)

    @property
    def folds_to_train(self) -> tuple[int, ...]:
        """The chosen folds, or all of them."""
        return tuple(range(self.num_folds)) if self.folds is None else self.folds

    @property
    def seeds_to_train(self) -> tuple[int, ...]:
        """The seeds of the models that are trained on all data."""
        return (self.seed,) if self.seeds is None else self.seeds

    @property
    def run_folder(self) -> Path:
        """Where everything that the run writes goes."""
        assert self.run_name is not None, "load_settings names the run"
        return Path(self.saved_models_folder) / (self.run_name + ("_debug" if self.debug else ""))

    @property
    def cache_file(self) -> Path:
        """The image cache's `.npy`; its index is the same name with `.json`."""
        height, width = self.image_shape
        size = f"{height}" if height == width else f"{height}x{width}"
        return Path(self.cache_folder) / f"{self.cache_name}_{size}.npy"

    @property
    def image_shape(self) -> tuple[int, int]:
        """Height and width of the cached images, in pixels."""
        return (self.image_size, self.image_size) if isinstance(self.image_size, int) else self.image_size

    @property
    def map_shape(self) -> tuple[int, int]:
        """Height and width of the line decoder's maps, in their own pixels."""
        height, width = self.image_shape
        return -(-height // self.line_stride), -(-width // self.line_stride)


FIELDS: Mapping[str, FieldInfo] = Settings.__pydantic_fields__  # type: ignore[attr-defined]
"""Name -> what pydantic knows of a setting: type, default, docstring."""
for _name, _field in SettingFields.__pydantic_fields__.items():  # type: ignore[attr-defined]
    FIELDS[_name].description = _field.description  # pydantic reads docstrings where they are written, and there alone
