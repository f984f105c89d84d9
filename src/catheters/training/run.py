"""A whole run: every chosen fold, in one run folder."""

import hashlib
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from catheters.csv_files import TableError, check_columns
from catheters.data.augment import Augmentation
from catheters.data.cache import ImageCache, open_cache
from catheters.data.folds import assign_folds, fold_table
from catheters.data.loader import BatchesInOrder, CachedRadiographs, EpochBatches, create_loader
from catheters.data.table import LabelTable, read_label_table
from catheters.errors import UserError, one_line
from catheters.evaluation.metrics import macro_mean, metrics_table, one_class_warnings, score_labels
from catheters.evaluation.plots import plot_curves
from catheters.evaluation.predictions import read_predictions, write_predictions
from catheters.models.backbone import IN_CHANS
from catheters.models.classifier import create_classifier
from catheters.settings import Settings
from catheters.training.loop import FoldResult, train_fold
from catheters.training.losses import create_loss
from catheters.training.optimizers import check_optimizer
from catheters.training.run_folder import enter_run_folder, move_aside
from catheters.training.step import choose_device, device_name


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
        """Hash of pixels, ids, labels and folds."""
        digest = hashlib.sha256(self.cache.pixels_hash.encode())
        digest.update("\n".join(self.table.uids.tolist()).encode())
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
        print(f"moved the earlier run to {move_aside(folder)}")
    enter_run_folder(settings, data.fingerprint)

    print(fold_table(data.folds, data.table.patient_ids, data.table.labels, data.table.label_columns))
    device = choose_device(settings.device)
    print(f"{settings.backbone_model} on {device_name(device)}, folds {list(settings.folds_to_train)} -> {folder}")
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
        _join_folds(settings, data)  # so that what is finished can be evaluated while the rest trains
        plot_curves(result.log, result.epoch, f"{settings.run_name}, fold {fold}", fold_folder / "curves.png")
        print(f"fold {fold}: best macro AUC {result.macro_auc:.4f} in epoch {result.epoch}")
    _print_scores(settings, data, *_join_folds(settings, data))


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
    device = choose_device(settings.device)
    check_optimizer(settings)
    create_loss(settings)
    Augmentation(settings.train_transforms, settings.image_size)
    _try_model(settings, device)


def _try_model(settings: Settings, device: torch.device) -> None:
    """Some models refuse some image sizes, and batch norm a batch of one: better now than after the first epoch."""
    model = create_classifier(settings, mean=0.5, std=0.25).to(device)
    num_images = min(settings.batch_size, 2)
    images = torch.zeros((num_images, IN_CHANS, settings.image_size, settings.image_size), dtype=torch.uint8)
    try:
        model(images.to(device)).sum().backward()
    except (RuntimeError, ValueError, AssertionError) as error:
        raise UserError(
            f"backbone_model={settings.backbone_model} cannot learn from {num_images} images of {settings.image_size} "
            f"px: {one_line(error)}; change image_size, batch_size or backbone_model"
        ) from error


def _check_positives(settings: Settings, data: RunData) -> None:
    """Warn of labels that a fold cannot train or score; refuse a fold that can score none."""
    labels = data.table.labels
    if not ((labels == 0).any(axis=0) & (labels == 1).any(axis=0)).any():
        raise UserError(f"{settings.label_table}: no label has both positives and negatives; there is nothing to learn")
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


def _train_one(settings: Settings, data: RunData, fold: int, folder: Path, device: torch.device) -> FoldResult:
    train_samples, valid_samples = split_samples(settings, data, fold)
    train_batches = EpochBatches(len(train_samples), settings.batch_size, settings.seed)
    valid_batches = BatchesInOrder(len(valid_samples), settings.valid_batch_size or 2 * settings.batch_size)
    return train_fold(
        settings,
        fold,
        create_loader(train_samples, train_batches, settings.num_workers, device),
        create_loader(valid_samples, valid_batches, settings.num_workers, device),
        data.cache.mean if settings.grey_mean is None else settings.grey_mean,
        data.cache.std if settings.grey_std is None else settings.grey_std,
        folder,
    )


def split_samples(settings: Settings, data: RunData, fold: int) -> tuple[CachedRadiographs, CachedRadiographs]:
    """The images of the other folds, augmented, and the validation images of this fold, as they are."""
    is_valid = data.folds == fold
    augmentation = Augmentation(settings.train_transforms, settings.image_size)
    return _samples(settings, data, ~is_valid, augmentation), _samples(settings, data, is_valid, None)


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


def _join_folds(settings: Settings, data: RunData) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float32]]:
    """Write the run's `predictions.csv`, of all folds finished so far.

    Returns:
        (N,) which images are predicted; (n, K) their probabilities.
    """
    frames = []
    for file in sorted(settings.run_folder.glob("fold*/predictions.csv")):
        try:
            _, frame, _ = read_predictions(file, settings.uid_column)
            check_columns(frame, settings.label_columns, file)
        except TableError as error:
            raise UserError(f"{error}; the file is damaged: delete {file.parent} to train that fold again") from None
        frames.append(frame.set_index(settings.uid_column)[list(settings.label_columns)])
    predictions = pd.concat(frames)
    is_predicted = np.isin(data.table.uids, predictions.index)
    probabilities = predictions.loc[data.table.uids[is_predicted].tolist()].to_numpy(dtype=np.float32)
    _write(settings, data, is_predicted, probabilities, settings.run_folder / "predictions.csv")
    return is_predicted, probabilities


def _print_scores(
    settings: Settings, data: RunData, is_predicted: npt.NDArray[np.bool_], probabilities: npt.NDArray[np.float32]
) -> None:
    """Print a table of the out-of-fold predictions of all finished folds, as one set."""
    metrics = score_labels(data.table.labels[is_predicted], probabilities, settings.label_columns)
    for warning in one_class_warnings(metrics):
        print(f"warning: {warning}", file=sys.stderr)
    num_finished = len(np.unique(data.folds[is_predicted]))
    print(f"\nout-of-fold predictions of {len(probabilities)} images, {num_finished} of {settings.num_folds} folds")
    print(metrics_table(metrics))
    macro_auc = macro_mean([metric.roc_auc for metric in metrics])
    print(f"macro AUC {macro_auc:.4f} -> {settings.run_folder / 'predictions.csv'}")


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
