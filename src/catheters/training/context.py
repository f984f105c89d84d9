"""The train context: what training a model needs besides its step and batches."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from catheters.models.classifier import Classifier


@dataclass(frozen=True, kw_only=True)
class TrainContext:
    """The run that a model is one of, as far as its training is concerned.

    Attributes:
        what: the model, "fold 0" or "seed 0", for messages.
        folder: the model's own, in the run folder.
        run_name: of the run folder; of a stage the whole run's, and which one it is.
        runs_folder: where the run folder lies, of a stage the whole run's.
        environment: see `describe_environment`, with the `data_fingerprint`; goes into snapshots.
        settings_json: the run's settings; goes into snapshots and to trackers.
        check_settings: of the settings in a snapshot (as JSON, with the version that wrote them and the snapshot for
            the message) raises a SettingsError if the run cannot be resumed from it.
        save: writes a checkpoint, of a model with its scores.
        label_columns: (K,) labels, in the order of the model's columns.
        num_epochs: epochs to train.
        warmup_epochs: those of them during which the learning rate rises.
        early_stop: patience of early stopping, epochs without a better one; 0: no early stopping.
        images_per_batch: images in a global batch.
        snapshot_minutes: minutes after which a snapshot is due within an epoch; None: never.
        snapshot_iterations: batches after which one is; None: never.
        trackers: names of `TRACKERS`.
        sync_batch_norm: whether batch norm sees the whole global batch.
        num_models_left: models of the run that come after this one, for the time left.
        advice_at_chance: what to try where it learns nothing, the likeliest first.
    """

    what: str
    folder: Path
    run_name: str
    runs_folder: Path
    environment: Mapping[str, Any]
    settings_json: str
    check_settings: Callable[[str, str, str], None]
    save: Callable[[Path, Classifier, Mapping[str, float]], None]
    label_columns: tuple[str, ...]
    num_epochs: int
    warmup_epochs: int
    early_stop: int
    images_per_batch: int
    snapshot_minutes: float | None
    snapshot_iterations: int | None
    trackers: tuple[str, ...]
    sync_batch_norm: bool
    num_models_left: int
    advice_at_chance: tuple[str, ...]
