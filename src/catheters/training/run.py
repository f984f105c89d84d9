"""A whole run: every chosen fold, in one run folder."""

import dataclasses
import hashlib
import json
import platform
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from catheters.data.augment import Augmentation
from catheters.data.cache import ImageCache, open_cache
from catheters.data.folds import assign_folds, fold_table
from catheters.data.loader import BatchesInOrder, CachedRadiographs, EpochBatches, create_loader
from catheters.data.table import LabelTable, read_label_table
from catheters.errors import UserError
from catheters.evaluation.metrics import macro_mean, metrics_table, one_class_warnings, score_labels
from catheters.evaluation.predictions import read_predictions, write_predictions
from catheters.files import write_text
from catheters.models.backbone import create_backbone
from catheters.settings import Settings, SettingsError, settings_from_json, settings_to_json
from catheters.training.checkpoint import package_versions
from catheters.training.loop import FoldResult, train_fold
from catheters.training.losses import create_loss
from catheters.training.optimizers import check_optimizer
from catheters.training.step import choose_device

MAY_CHANGE = ("folds", "num_workers", "valid_batch_size", "device", "cache_folder", "dataset_folder")
"""Settings that may differ when a run goes on: they do not change what a fold gives."""


@dataclass(frozen=True, kw_only=True)
class RunData:
    """The images of a run, readable ones only.

    Attributes:
        table: N images with their labels.
        rows: (N,) their rows in the cache.
        cache: the image cache.
        folds: (N,) the fold of each image.
    """

    table: LabelTable
    rows: npt.NDArray[np.intp]
    cache: ImageCache
    folds: npt.NDArray[np.int8]

    @property
    def fingerprint(self) -> str:
        """Hash of pixels, labels and folds."""
        digest = hashlib.sha256(self.cache.pixels_hash.encode())
        digest.update(self.table.labels.tobytes())
        digest.update(self.folds.tobytes())
        return digest.hexdigest()


def train_run(settings: Settings, *, fresh: bool) -> None:
    """Train the folds that the settings choose, except those that the run folder already holds.

    Args:
        settings: the run's settings.
        fresh: move an earlier run of the same name aside and start over.

    Raises:
        UserError: a setting, the data or the run folder is not as it has to be; said before any work starts.
    """
    _check_choices(settings)
    data = load_data(settings)
    _check_positives(settings, data)
    folder = settings.run_folder
    if fresh and folder.exists():
        print(f"moved the earlier run to {_move_aside(folder)}")
    _enter_run_folder(settings, data, folder)

    print(fold_table(data.folds, data.table.patient_ids, data.table.labels, data.table.label_columns))
    device = choose_device(settings.device)
    print(f"{settings.backbone_model} on {_device_name(device)}, folds {list(settings.folds_to_train)} -> {folder}")
    for fold in settings.folds_to_train:
        fold_folder = folder / f"fold{fold}"
        if (fold_folder / "predictions.csv").exists():
            print(f"fold {fold}: already trained, in {fold_folder}")
            continue
        if fold_folder.exists():
            print(f"fold {fold}: was not finished, starts again from its first epoch")
        fold_folder.mkdir(exist_ok=True)
        result = _train_one(settings, data, fold, fold_folder, device)
        is_valid = data.folds == fold
        _write(settings, data, is_valid, result.probabilities, fold_folder / "predictions.csv")
        print(f"fold {fold}: best macro AUC {result.macro_auc:.4f} in epoch {result.epoch}")
    _finish(settings, data, folder)


def load_data(settings: Settings) -> RunData:
    """Label table, cache and folds; images that the cache could not read are left out.

    Raises:
        UserError: see `read_label_table`, `open_cache`, `assign_folds`.
    """
    table = read_label_table(settings)
    cache = open_cache(settings.cache_file, table)
    # Folds are dealt before unreadable images are left out: mending one of them moves no other image.
    folds = assign_folds(table.patient_ids, table.labels, settings.num_folds, settings.seed)
    rows = np.flatnonzero([uid not in cache.failed for uid in table.uids.tolist()])
    if cache.failed:
        print(f"warning: {len(cache.failed)} images that could not be read are left out", file=sys.stderr)
    return RunData(table=table.take(rows), rows=rows, cache=cache, folds=folds[rows])


def _check_choices(settings: Settings) -> None:
    """What the settings name must exist, pretrained weights included, before data is read or a folder made."""
    choose_device(settings.device)
    check_optimizer(settings)
    create_loss(settings)
    Augmentation(settings.train_transforms, settings.image_size)
    create_backbone(settings.backbone_model, settings.pretrained, settings.image_size)


def _check_positives(settings: Settings, data: RunData) -> None:
    """Warn of labels that a fold cannot train or score; refuse a fold that can score none."""
    labels = data.table.labels
    for fold in settings.folds_to_train:
        is_valid = data.folds == fold
        if not is_valid.any():
            raise UserError(f"fold {fold} has no readable image; run preproc_npy.py or set a smaller num_folds")
        positives = labels[is_valid].sum(axis=0)
        is_scorable = (positives > 0) & (positives < is_valid.sum())
        if not is_scorable.any():
            raise UserError(
                f"fold {fold}: no label has both positives and negatives among its {is_valid.sum()} images, so no "
                "epoch can be scored; set a smaller num_folds"
            )
        lines = [
            f"fold {fold}: '{settings.label_columns[k]}' has {positives[k]} positives in {is_valid.sum()} validation "
            "images: its AUC is undefined (NaN) and left out of the mean"
            for k in np.flatnonzero(~is_scorable)
        ]
        lines += [
            f"fold {fold}: '{settings.label_columns[k]}' has no positive in the training images: it cannot be learnt"
            for k in np.flatnonzero(labels[~is_valid].sum(axis=0) == 0)
        ]
        for line in lines:
            print(f"warning: {line}", file=sys.stderr)


def _enter_run_folder(settings: Settings, data: RunData, folder: Path) -> None:
    """Create the run folder, or make sure that what it holds is the same run."""
    settings_file = folder / "settings.json"
    environment_file = folder / "environment.json"
    if settings_file.exists() and environment_file.exists():
        _check_same_settings(settings, settings_file)
        if json.loads(environment_file.read_text(encoding="utf-8"))["data_fingerprint"] != data.fingerprint:
            raise UserError(
                f"{folder}: was trained on other images, labels or folds; choose another run_name or --fresh"
            )
        print(f"continuing the run in {folder}")
    elif folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder}: holds files but no run; choose another run_name or delete it")
    folder.mkdir(parents=True, exist_ok=True)
    write_text(settings_file, settings_to_json(settings))
    environment = {
        "data_fingerprint": data.fingerprint,
        "command": sys.argv,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": _device_name(choose_device(settings.device)),
        "versions": package_versions(),
    }
    write_text(environment_file, json.dumps(environment, indent=2) + "\n")


def _check_same_settings(settings: Settings, settings_file: Path) -> None:
    earlier = settings_from_json(settings_file.read_text(encoding="utf-8"), str(settings_file))
    # Through JSON, since a list and a tuple in a transform's parameters are the same there.
    old, new = json.loads(settings_to_json(earlier)), json.loads(settings_to_json(settings))
    differences = [
        f"{field.name} was {old[field.name]!r}, is {new[field.name]!r}"
        for field in dataclasses.fields(Settings)
        if field.name not in MAY_CHANGE and old[field.name] != new[field.name]
    ]
    if differences:
        raise SettingsError(
            f"{settings_file.parent}: holds a run of other settings: {'; '.join(differences)}; "
            "choose another run_name, or --fresh to start over"
        )


def _move_aside(folder: Path) -> Path:
    """Rename an earlier run: nothing that took hours to compute is deleted."""
    number = 1
    while (aside := folder.with_name(f"{folder.name}.old{number}")).exists():
        number += 1
    return folder.rename(aside)


def _train_one(settings: Settings, data: RunData, fold: int, folder: Path, device: torch.device) -> FoldResult:
    is_valid = data.folds == fold
    augmentation = Augmentation(settings.train_transforms, settings.image_size)
    train_samples = _samples(settings, data, ~is_valid, augmentation)
    valid_samples = _samples(settings, data, is_valid, None)
    train_batches = EpochBatches(len(train_samples), settings.batch_size, settings.seed)
    valid_batches = BatchesInOrder(len(valid_samples), settings.valid_batch_size or 2 * settings.batch_size)
    return train_fold(
        settings,
        fold,
        create_loader(train_samples, train_batches, settings.num_workers, device),
        create_loader(valid_samples, valid_batches, settings.num_workers, device),
        data.cache.mean,
        data.cache.std,
        folder,
    )


def _samples(
    settings: Settings, data: RunData, is_chosen: npt.NDArray[np.bool_], augmentation: Augmentation | None
) -> CachedRadiographs:
    return CachedRadiographs(
        settings.cache_file,
        data.rows[is_chosen],
        data.table.uids[is_chosen],
        data.table.labels[is_chosen],
        augmentation,
        settings.seed,
    )


def _finish(settings: Settings, data: RunData, folder: Path) -> None:
    """Join the folds' predictions, and score them as one set."""
    files = sorted(folder.glob("fold*/predictions.csv"))
    probability_of: dict[str, npt.NDArray[np.float32]] = {}
    for file in files:
        _, frame, labels = read_predictions(file, settings.uid_column)
        assert labels == settings.label_columns, "the run folder's settings were checked"
        probability_of.update(zip(frame[settings.uid_column], frame[list(labels)].to_numpy(np.float32), strict=True))
    is_predicted = np.array([uid in probability_of for uid in data.table.uids.tolist()])
    probabilities = np.stack([probability_of[uid] for uid in data.table.uids[is_predicted].tolist()])
    _write(settings, data, is_predicted, probabilities, folder / "predictions.csv")

    metrics = score_labels(data.table.labels[is_predicted], probabilities, settings.label_columns)
    for warning in one_class_warnings(metrics):
        print(f"warning: {warning}", file=sys.stderr)
    print(f"\nout-of-fold predictions of {is_predicted.sum()} images, {len(files)} of {settings.num_folds} folds")
    print(metrics_table(metrics))
    print(f"macro AUC {macro_mean([metric.roc_auc for metric in metrics]):.4f} -> {folder / 'predictions.csv'}")


def _write(
    settings: Settings,
    data: RunData,
    is_chosen: npt.NDArray[np.bool_],
    probabilities: npt.NDArray[np.float32],
    file: Path,
) -> None:
    write_predictions(
        file,
        settings.uid_column,
        data.table.uids[is_chosen],
        data.table.patient_ids[is_chosen],
        data.folds[is_chosen],
        probabilities,
        settings.label_columns,
    )


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "the CPU"
