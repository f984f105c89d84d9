"""A whole run: every chosen fold or seed, in one run folder."""

import contextlib
import dataclasses
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

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
from catheters.training.distributed import ALONE, Processes, Team, joined_team, process_group
from catheters.training.environment import describe_environment
from catheters.training.guards import clear_ends
from catheters.training.log import read_epochs
from catheters.training.loop import Surroundings, is_over, train_fold, train_on_all
from catheters.training.losses import create_loss
from catheters.training.optimizers import check_optimizer
from catheters.training.run_data import (
    RunData,
    all_samples,
    check_batches,
    check_leaks,
    check_parts,
    check_positives,
    create_train_loader,
    create_valid_loader,
    load_data,
    split_samples,
)
from catheters.training.run_folder import check_space, enter_run_folder, move_aside, only_process, silent
from catheters.training.snapshots import read_progress
from catheters.training.step import TrainStep, choose_device, convert_batch_norm, device_name, prepare_device


def train_run(settings: Settings, *, fresh: bool) -> None:
    """Train the folds, or seeds, that the settings choose, except those that the run folder already holds.

    Started by torchrun, all its processes call it, and train each model together, or a model each with
    `folds_parallel`.

    Args:
        settings: the run's settings.
        fresh: move an earlier run of the same name aside and start over.

    Raises:
        UserError: a setting, the data or the run folder is not as it has to be, said before any work starts; or
            training cannot go on.
        Interrupted: a signal asked for it, and a snapshot is written.
    """
    with joined_team() as team:
        is_first = team.rank == 0
        num_processes = 1 if settings.folds_parallel else team.count
        with silent(not is_first):
            data, device, num_bytes = _prepare(settings, num_processes)
        folder = settings.run_folder
        with only_process(folder) if is_first else contextlib.nullcontext():
            environment = describe_environment(device, num_processes)
            if is_first:
                if fresh and folder.exists():
                    print(f"moved the earlier run to {move_aside(folder)}")
                check_space(settings, num_bytes)
                enter_run_folder(settings, data.fingerprint, environment)
                print(f"{settings.backbone_model} on {_where(device, team.count)} -> {folder}")
            run = _Run(
                settings=settings,
                data=data,
                device=device,
                environment={**environment, "data_fingerprint": data.fingerprint},
            )
            if settings.folds_parallel and team.count > 1:
                _train_in_parallel(run, team)
            else:
                with silent(not is_first), process_group(team, device) as processes:
                    _train_in_turn(run, processes)
            if is_first and not settings.all_data:
                _print_scores(settings, data, *_join_folds(settings, data))


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Run:
    """What all models of a run share."""

    settings: Settings
    data: RunData
    device: torch.device
    environment: Mapping[str, Any]

    def around(self, processes: Processes, num_models_left: int) -> Surroundings:
        """For one model."""
        mean, std = _grey_values(self.settings, self.data)
        return Surroundings(
            device=self.device,
            processes=processes,
            environment=self.environment,
            mean=mean,
            std=std,
            num_models_left=num_models_left,
        )

    @property
    def members(self) -> tuple[int, ...]:
        """The folds to train, or the seeds."""
        return self.settings.seeds_to_train if self.settings.all_data else self.settings.folds_to_train

    def waiting(self) -> list[int]:
        """Those of them that are not trained yet."""
        return [member for member in self.members if not _is_trained(self.settings, member)]

    def train(self, member: int, processes: Processes, num_models_left: int) -> None:
        """Train one."""
        train = _train_seed if self.settings.all_data else _train_fold
        train(self.settings, self.data, member, self.around(processes, num_models_left))


def _prepare(settings: Settings, num_processes: int) -> tuple[RunData, torch.device, int]:
    """All that can be checked before the run folder is looked at; data, device, and the bytes of a model's state.

    What can be said at once comes first, then what needs the data, then the model, which may have to be downloaded.
    """
    _check_choices(settings)
    check_parts(settings, num_processes)
    device = choose_device(settings.device)
    prepare_device(settings, device)
    data = load_data(settings)
    check_leaks(settings, data)
    check_positives(settings, data)
    check_batches(settings, data, num_processes)
    num_bytes = _try_step(settings, device, num_processes)
    if isinstance(settings.pretrained, str):
        _warn_of_leak(settings, Path(settings.pretrained))
    if settings.sync_batch_norm and num_processes == 1:
        print("warning: sync_batch_norm=True has no effect: one process has the whole batch", file=sys.stderr)
    if not settings.all_data:
        print(fold_table(data.folds, data.table.patient_ids, data.table.labels, data.table.label_columns))
    return data, device, num_bytes


def _where(device: torch.device, num_processes: int) -> str:
    return device_name(device) + (f", {num_processes} processes," if num_processes > 1 else "")


def _train_in_turn(run: _Run, processes: Processes) -> None:
    """One model after another, each by all processes."""
    waiting = processes.broadcast(run.waiting() if processes.is_first else [])
    for number, member in enumerate(waiting):
        run.train(member, processes, num_models_left=len(waiting) - number - 1)
        if processes.is_first and not run.settings.all_data:
            _join_folds(run.settings, run.data)  # so that what is finished can be evaluated while the rest trains


def _train_in_parallel(run: _Run, team: Team) -> None:
    """A model for each process, and the next one for whichever is done with its own."""
    team.meet()  # the first one has entered the run folder
    if not run.settings.run_folder.is_dir():
        raise UserError(
            f"{run.settings.run_folder}: not to be seen from this machine; folds_parallel=True needs a "
            "saved_models_folder that all machines share"
        )
    with silent(team.rank > 0):
        waiting = run.waiting()
    team.meet()  # all have seen the same before one begins
    while (number := team.take("model")) < len(waiting):
        num_left = (len(waiting) - number - 1) // team.count
        run.train(waiting[number], ALONE, num_models_left=num_left)
    team.meet()


def _train_seed(settings: Settings, data: RunData, seed: int, around: Surroundings) -> None:
    """Train a model on all images."""
    folder = settings.run_folder / f"seed{seed}"
    of_seed = dataclasses.replace(settings, seed=seed)
    loader = create_train_loader(of_seed, all_samples(of_seed, data), around.device, around.processes)
    train_on_all(of_seed, loader, around, folder)
    if around.processes.is_first:
        plot_curves(read_epochs(folder), None, f"{settings.run_name}, seed {seed}", folder / "curves.png")
        print(f"seed {seed}: trained on all {len(data.rows)} images -> {folder / 'final.pt'}")


def _train_fold(settings: Settings, data: RunData, fold: int, around: Surroundings) -> None:
    """Train a model on the other folds' images, and predict this one's."""
    folder = settings.run_folder / f"fold{fold}"
    train_samples, valid_samples = split_samples(settings, data, fold)
    result = train_fold(
        settings,
        fold,
        create_train_loader(settings, train_samples, around.device, around.processes),
        create_valid_loader(settings, valid_samples, around.device, around.processes),
        around,
        folder,
    )
    if around.processes.is_first:
        plot_curves(read_epochs(folder), result.epoch, f"{settings.run_name}, fold {fold}", folder / "curves.png")
        _write(settings, data, data.folds == fold, result.probabilities, folder / "predictions.csv")
        print(f"fold {fold}: best macro AUC {result.macro_auc:.4f} in epoch {result.epoch}")


def _is_trained(settings: Settings, member: int) -> bool:
    """Whether this fold's or seed's folder holds what is written last, after as many epochs as the settings ask for.

    Makes the folder if it does not stand.
    """
    what, last_file = ("seed", "curves.png") if settings.all_data else ("fold", "predictions.csv")
    folder = settings.run_folder / f"{what}{member}"
    progress = read_progress(folder)
    if (folder / last_file).exists():
        if progress is None or is_over(settings, progress["epoch"], progress["best_epoch"]):
            print(f"{what} {member}: already trained, in {folder}")
            return True
        print(f"{what} {member}: was trained for {progress['epoch']} epochs, goes on to {settings.num_epochs}")
        # Out of the way, since its being there says that all is done.
        name = Path(last_file)
        (folder / name).rename(folder / f"{name.stem}.epoch{progress['epoch']}{name.suffix}")
    elif folder.exists() and progress is None:
        print(f"{what} {member}: was not finished, starts again from its first epoch")
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


def _try_step(settings: Settings, device: torch.device, num_processes: int) -> int:
    """Some models refuse some image sizes, batch norm a batch of one, some optimizers a plain step: better now than
    after the first epoch.

    Returns:
        The bytes of model, averaged weights and optimizer.
    """
    model = create_classifier(settings, mean=0.5, std=0.25).to(device)
    print(model.origin)
    if settings.sync_batch_norm and num_processes > 1:
        convert_batch_norm(model, device)  # only to see whether it can be
    num_images = min(settings.batch_size // num_processes, 2)
    settings = dataclasses.replace(settings, accumulation_steps=1)
    step = TrainStep(settings, model, num_batches=1, device=device)
    images = torch.zeros((num_images, IN_CHANS, *settings.image_shape), dtype=torch.uint8)
    try:
        with clear_ends(settings, "the first try"):
            step(images, torch.zeros((num_images, len(settings.label_columns))))
    except (RuntimeError, ValueError, AssertionError) as error:
        raise UserError(
            f"backbone_model={settings.backbone_model}, optimizer={settings.optimizer} cannot learn from {num_images} "
            f"images of {settings.image_size} px: {one_line(error)}; change image_size, batch_size, backbone_model or "
            "optimizer"
        ) from error
    of_weights = sum(value.nbytes for value in model.state_dict().values())
    of_optimizer = sum(
        value.nbytes
        for state in step.optimizer.state.values()
        for value in state.values()
        if isinstance(value, torch.Tensor)
    )
    return int(of_weights * (1 if step.ema is None else 2) + of_optimizer)


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
