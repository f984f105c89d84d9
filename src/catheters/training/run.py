"""A whole run: every chosen fold or seed, in one run folder."""

import dataclasses
import sys
import zipfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from catheters.csv_files import TableError, check_columns
from catheters.data.augment import Augmentation
from catheters.data.folds import fold_table
from catheters.errors import SettingsError, UserError, one_line
from catheters.evaluation.metrics import macro_mean, metrics_table, one_class_warnings, score_labels
from catheters.evaluation.plots import plot_curves
from catheters.evaluation.predictions import read_predictions, write_predictions
from catheters.models.backbone import IN_CHANS
from catheters.models.classifier import create_classifier
from catheters.settings import Settings
from catheters.settings_file import settings_from_json
from catheters.training.loop import train_fold, train_on_all
from catheters.training.losses import create_loss
from catheters.training.optimizers import check_optimizer
from catheters.training.run_data import (
    RunData,
    all_samples,
    check_batches,
    check_leaks,
    check_positives,
    create_train_loader,
    create_valid_loader,
    load_data,
    split_samples,
)
from catheters.training.run_folder import enter_run_folder, move_aside
from catheters.training.step import TrainStep, choose_device, device_name


def train_run(settings: Settings, *, fresh: bool) -> None:
    """Train the folds, or seeds, that the settings choose, except those that the run folder already holds.

    Args:
        settings: the run's settings.
        fresh: move an earlier run of the same name aside and start over.

    Raises:
        UserError: a setting, the data or the run folder is not as it has to be; said before any work starts.
    """
    # What can be said at once comes first, then what needs the data, then the model, which may have to be downloaded.
    _check_choices(settings)
    data = load_data(settings)
    check_leaks(settings, data)
    check_positives(settings, data)
    check_batches(settings, data)
    _try_step(settings)
    if isinstance(settings.pretrained, str):
        _warn_of_leak(settings, Path(settings.pretrained))
    folder = settings.run_folder
    if fresh and folder.exists():
        print(f"moved the earlier run to {move_aside(folder)}")
    enter_run_folder(settings, data.fingerprint)
    device = choose_device(settings.device)
    print(f"{settings.backbone_model} on {device_name(device)} -> {folder}")
    train = _train_seeds if settings.all_data else _train_folds
    train(settings, data, device)


def _train_seeds(settings: Settings, data: RunData, device: torch.device) -> None:
    """Train a model a seed on all images."""
    for seed in settings.seeds_to_train:
        folder = settings.run_folder / f"seed{seed}"
        if _is_trained(folder, f"seed {seed}", "final.pt"):
            continue
        of_seed = dataclasses.replace(settings, seed=seed)
        loader = create_train_loader(of_seed, all_samples(of_seed, data), device)
        log = train_on_all(of_seed, loader, *_grey_values(settings, data), folder)
        plot_curves(log, None, f"{settings.run_name}, seed {seed}", folder / "curves.png")
        print(f"seed {seed}: trained on all {len(data.rows)} images -> {folder / 'final.pt'}")


def _train_folds(settings: Settings, data: RunData, device: torch.device) -> None:
    """Train a model a fold on the other folds' images, and join what they predict."""
    print(fold_table(data.folds, data.table.patient_ids, data.table.labels, data.table.label_columns))
    for fold in settings.folds_to_train:
        folder = settings.run_folder / f"fold{fold}"
        if _is_trained(folder, f"fold {fold}", "predictions.csv"):
            continue
        train_samples, valid_samples = split_samples(settings, data, fold)
        result = train_fold(
            settings,
            fold,
            create_train_loader(settings, train_samples, device),
            create_valid_loader(settings, valid_samples, device),
            *_grey_values(settings, data),
            folder,
        )
        _write(settings, data, data.folds == fold, result.probabilities, folder / "predictions.csv")
        _join_folds(settings, data)  # so that what is finished can be evaluated while the rest trains
        plot_curves(result.log, result.epoch, f"{settings.run_name}, fold {fold}", folder / "curves.png")
        print(f"fold {fold}: best macro AUC {result.macro_auc:.4f} in epoch {result.epoch}")
    _print_scores(settings, data, *_join_folds(settings, data))


def _is_trained(folder: Path, what: str, last_file: str) -> bool:
    """Whether this model's folder holds what is written last; makes the folder if it does not stand."""
    if (folder / last_file).exists():
        print(f"{what}: already trained, in {folder}")
        return True
    if folder.exists():
        print(f"{what}: was not finished, starts again from its first epoch")
    folder.mkdir(exist_ok=True)
    return False


def _grey_values(settings: Settings, data: RunData) -> tuple[float, float]:
    """Mean and standard deviation of the images, in 0..1: the settings', or the cache's own."""
    return (
        data.cache.mean if settings.grey_mean is None else settings.grey_mean,
        data.cache.std if settings.grey_std is None else settings.grey_std,
    )


def _check_choices(settings: Settings) -> None:
    """What the settings name must exist, before data is read or a folder made."""
    choose_device(settings.device)
    create_loss(settings)
    check_optimizer(settings)
    Augmentation(settings.train_transforms, settings.image_shape)
    weights = settings.pretrained
    if isinstance(weights, str) and settings.run_folder.resolve() in Path(weights).resolve().parents:
        raise SettingsError(
            f"pretrained={weights} is of this very run: the same command without it goes on where the run "
            "stopped; a run that starts anew from these weights needs a run_name of its own"
        )


def _warn_of_leak(settings: Settings, weights: Path) -> None:
    """A `best.pt` of the same label table has learnt from images that other folds validate on."""
    if weights.suffix == ".safetensors":
        return
    checkpoint = torch.load(weights, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(weights))
    if not (isinstance(checkpoint, dict) and "settings" in checkpoint and "label_columns" in checkpoint):
        return
    earlier = settings_from_json(checkpoint["settings"], str(weights))
    if (earlier.dataset_folder, earlier.label_table) == (settings.dataset_folder, settings.label_table):
        print(
            f"warning: pretrained={weights} was trained on images of the same label table; a fold that validates on "
            "images which it has seen scores too well",
            file=sys.stderr,
        )


def _try_step(settings: Settings) -> None:
    """Some models refuse some image sizes, batch norm a batch of one, some optimizers a plain step: better now than
    after the first epoch."""
    device = choose_device(settings.device)
    model = create_classifier(settings, mean=0.5, std=0.25).to(device)
    print(model.origin)
    num_images = min(settings.batch_size, 2)
    settings = dataclasses.replace(settings, accumulation_steps=1)
    step = TrainStep(settings, model, num_batches=1, device=device)
    images = torch.zeros((num_images, IN_CHANS, *settings.image_shape), dtype=torch.uint8)
    try:
        step(images, torch.zeros((num_images, len(settings.label_columns))))
    except (RuntimeError, ValueError, AssertionError) as error:
        raise UserError(
            f"backbone_model={settings.backbone_model}, optimizer={settings.optimizer} cannot learn from {num_images} "
            f"images of {settings.image_size} px: {one_line(error)}; change image_size, batch_size, backbone_model or "
            "optimizer"
        ) from error


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
