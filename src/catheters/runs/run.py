"""A whole run: every chosen fold or seed, in one run folder."""

import dataclasses
from collections.abc import Mapping, Sequence
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from catheters.checkpoints.checkpoint import add_feature_space
from catheters.checkpoints.finished import check_finished, forget_finished, is_finished, write_finished
from catheters.checkpoints.snapshots import read_progress
from catheters.config.settings import Settings
from catheters.data.loader import Loader
from catheters.data.tables.folds import fold_table
from catheters.errors import SettingsError, UserError, counted
from catheters.runs.build import build_context, build_new_step
from catheters.runs.data_checks import num_training_images
from catheters.runs.datasets import all_samples, create_train_loader, create_valid_loader, plain_samples, split_samples
from catheters.runs.earlier_runs.first_stage import FirstStageRun, bytes_of
from catheters.runs.earlier_runs.weights import with_weights_of
from catheters.runs.failures import explain_failures
from catheters.runs.out_of_fold import join_folds, print_scores, write_fold
from catheters.runs.out_of_fold_lines import write_fold_lines
from catheters.runs.preflight import prepare_run
from catheters.runs.profiling import profile_training
from catheters.runs.provenance import describe_environment
from catheters.runs.run_data import RunData
from catheters.runs.run_folder import (
    check_space,
    enter_run_folder,
    explain_removed_folder,
    move_aside,
    only_process,
)
from catheters.runtime.console import say, silent, warn
from catheters.runtime.device import device_name
from catheters.runtime.distributed import ALONE, Processes, TorchrunProcesses, joined_torchrun, process_group
from catheters.training.context import TrainContext
from catheters.training.extensions.epochs import has_stalled
from catheters.training.extensions.log import read_epochs
from catheters.training.loop import train_fold, train_on_all
from catheters.training.manager import AnyExtension, check_extensions
from catheters.training.step import without_needless_warnings
from catheters.viz.curves import plot_curves

MAX_FEATURE_IMAGES = 10_000
"""Images whose features are measured for a checkpoint: more take time and tell little."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage:
    """Which part of a run in stages a training is.

    Attributes:
        number: from 1.
        run_folder: of the whole run; the caller keeps other processes out of it.
    """

    number: int
    run_folder: Path


def train_run(
    settings: Settings, *, fresh: bool, extensions: Sequence[AnyExtension] = (), stage: Stage | None = None
) -> None:
    """Train the folds, or seeds, that the settings choose, except those that the run folder already holds.

    Started by torchrun, all ranks call it, and train each model together, or a model each with
    `folds_parallel`.

    Args:
        settings: the run's settings.
        fresh: move an earlier run of the same name, of a stage the whole run, aside and start over.
        extensions: the user's own, of pytorch-pfn-extras, which run in each model's training after the built-in ones;
            their state is kept in snapshots. The same objects serve one model after another: what one has to forget,
            `initialize` resets.
        stage: of a run in stages; None: a whole run.

    Raises:
        UserError: a setting, the data or the run folder is not as it has to be, said before any work starts; or
            training cannot continue.
        Interrupted: a signal asked for it, and a snapshot is written.
    """
    check_extensions(extensions)
    with without_needless_warnings(), joined_torchrun() as torchrun:
        is_first = torchrun.rank == 0
        num_processes = 1 if settings.folds_parallel else torchrun.count
        with silent(not is_first):
            settings, data, first_stage, device, num_bytes = prepare_run(settings, torchrun, num_processes, fresh=fresh)
        folder = settings.run_folder
        whole_folder = folder if stage is None else stage.run_folder
        with only_process(folder) if is_first and stage is None else nullcontext():
            environment = describe_environment(device, num_processes)
            if is_first and fresh and whole_folder.exists():
                check_space(settings, num_bytes, bytes_of(first_stage))  # before anything is moved
                say(f"moved the earlier run to {move_aside(whole_folder)}")
            run = _Run(
                settings=settings,
                data=data,
                device=device,
                environment={**environment, "data_fingerprint": data.fingerprint},
                num_bytes=num_bytes,
                first_stage=first_stage,
                extensions=extensions,
                title=whole_folder.name if stage is None else f"{whole_folder.name}, stage {stage.number}",
                runs_folder=whole_folder.parent,
            )
            if is_first:
                _check_growth(run)
                enter_run_folder(settings, data.fingerprint, environment)
                if not settings.all_data:
                    say(fold_table(data.folds, data.patient_ids, data.labels, settings.label_columns))
                say(f"{settings.backbone_model} on {_where(device, torchrun.count)} -> {folder}")
            if settings.folds_parallel and torchrun.count > 1:
                _train_in_parallel(run, torchrun)
            else:
                with silent(not is_first), process_group(torchrun, device) as processes:
                    _train_in_turn(run, processes, torchrun)
            if is_first and not settings.all_data:
                print_scores(settings, data, *join_folds(settings, data))


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Run:
    """What all models of a run share.

    `num_bytes` is what a model's state takes, `title` the run's name for people, with the stage if it is one of
    several, `runs_folder` where whole runs lie.
    """

    settings: Settings
    data: RunData
    device: torch.device
    environment: Mapping[str, Any]
    num_bytes: int
    first_stage: FirstStageRun | None
    extensions: Sequence[AnyExtension]
    title: str
    runs_folder: Path

    @property
    def kind(self) -> str:
        """What its models are of: a fold or a seed each."""
        return "seed" if self.settings.all_data else "fold"

    @property
    def numbers(self) -> tuple[int, ...]:
        """The folds to train, or the seeds."""
        return self.settings.seeds_to_train if self.settings.all_data else self.settings.folds_to_train

    @property
    def grey_values(self) -> tuple[float, float]:
        """Mean and standard deviation of the images, in 0..1: the settings', or the cache's own."""
        mean, std = self.settings.grey_mean, self.settings.grey_std
        return self.data.mean if mean is None else mean, self.data.std if std is None else std

    def folder(self, number: int) -> Path:
        """Of a fold or seed."""
        return self.settings.run_folder / f"{self.kind}{number}"

    def waiting(self) -> list[int]:
        """Those of `numbers` that are not trained yet; there has to be room for their snapshots."""
        waiting = [number for number in self.numbers if not _is_trained(self.settings, self.folder(number))]
        if waiting:
            check_space(self.settings, self.num_bytes, bytes_of(self.first_stage))
        elif self.settings.profile:
            warn("profile=True has no effect: every model of this run is trained")
        return waiting

    def profile(self, number: int, processes: Processes) -> None:
        """If the settings ask for it, find out where the time goes, with a model that is then forgotten."""
        if not self.settings.profile:
            return
        settings, data = self.settings, self.data
        samples = all_samples(settings, data) if settings.all_data else split_samples(settings, data, number)[0]
        with (
            explain_failures(settings, "profile=True"),
            closing(create_train_loader(settings, samples, self.device, processes)) as loader,
        ):
            of_model = with_weights_of(settings, number)
            step = build_new_step(of_model, settings.seed, len(loader), self.device, processes, self.grey_values)
            profile_training(settings, step, loader, settings.run_folder)

    def train(self, number: int, processes: Processes, num_models_left: int) -> None:
        """Train one of `numbers`."""
        name = f"{self.kind} {number}"
        with explain_failures(self.settings, name), explain_removed_folder(self.settings.run_folder, name):
            folder = self.folder(number)
            if processes.is_first:
                folder.mkdir(exist_ok=True)
                forget_finished(folder)
            train = self._train_seed if self.settings.all_data else self._train_fold
            train(number, folder, processes, num_models_left)

    def _context(self, what: str, number: int, folder: Path, num_models_left: int) -> TrainContext:
        """What the training of one of `numbers` needs of the run."""
        settings = dataclasses.replace(self.settings, seed=number) if self.settings.all_data else self.settings
        members = () if self.first_stage is None else self.first_stage.members(number)
        return build_context(
            settings,
            what,
            folder,
            self.environment,
            run_name=self.title,
            runs_folder=self.runs_folder,
            num_models_left=num_models_left,
            first_stage=members,
        )

    def _train_seed(self, seed: int, folder: Path, processes: Processes, num_models_left: int) -> None:
        """Train a model on all images."""
        settings, data = dataclasses.replace(self.settings, seed=seed), self.data
        context = self._context(f"seed {seed}", seed, folder, num_models_left)
        with closing(create_train_loader(settings, all_samples(settings, data), self.device, processes)) as loader:
            of_seed = with_weights_of(settings, seed)
            step = build_new_step(of_seed, seed, len(loader), self.device, processes, self.grey_values)
            train_on_all(step, loader, context, seed, self.extensions)
        if processes.is_first:
            self._measure_features(np.full(len(data.rows), True), folder / "final.pt", processes)
            plot_curves(read_epochs(folder), None, f"{self.title}, seed {seed}", folder / "curves.png")
            write_finished(folder)
            images = counted(num_training_images(settings, data), "image")
            say(f"seed {seed}: trained on all {images} -> {folder / 'final.pt'}")

    def _train_fold(self, fold: int, folder: Path, processes: Processes, num_models_left: int) -> None:
        """Train a model on the other folds' images, and predict this one's."""
        settings, data = self.settings, self.data
        context = self._context(f"fold {fold}", fold, folder, num_models_left)
        train_samples, valid_samples = split_samples(settings, data, fold)
        seed = int(np.random.SeedSequence((settings.seed, fold)).generate_state(1)[0])
        with (
            closing(create_train_loader(settings, train_samples, self.device, processes)) as train_loader,
            closing(create_valid_loader(settings, valid_samples, self.device, processes)) as valid_loader,
        ):
            of_fold = with_weights_of(settings, fold)
            step = build_new_step(of_fold, seed, len(train_loader), self.device, processes, self.grey_values)
            best = train_fold(step, train_loader, valid_loader, context, fold, self.extensions)
        if processes.is_first:
            self._measure_features(data.folds == fold, folder / "best.pt", processes)
            curves = folder / "curves.png"
            plot_curves(read_epochs(folder), best.best_epoch, f"{self.title}, fold {fold}", curves)
            write_fold(settings, data, fold, best.best_probabilities)
            if settings.learns_lines:
                with closing(self._plain_loader(data.folds == fold, processes)) as loader:
                    write_fold_lines(settings, data, fold, loader, self.device)
            write_finished(folder)
            say(f"fold {fold}: best macro AUC {best.best_macro_auc:.4f} in epoch {best.best_epoch}")

    def _measure_features(self, is_ordinary: npt.NDArray[np.bool_], file: Path, processes: Processes) -> None:
        """Keep in a checkpoint where its features of ordinary images lie, (N,) of them or a subset; rank 0 does."""
        rows = np.flatnonzero(is_ordinary)
        is_chosen = np.zeros(len(is_ordinary), dtype=np.bool_)
        is_chosen[rows[np.linspace(0, len(rows) - 1, min(len(rows), MAX_FEATURE_IMAGES)).astype(np.intp)]] = True
        with closing(self._plain_loader(is_chosen, processes)) as loader:
            add_feature_space(file, loader, self.data.patient_ids[is_chosen], self.device)

    def _plain_loader(self, is_chosen: npt.NDArray[np.bool_], processes: Processes) -> Loader:
        """The chosen images, (N,), as they are, in batches as large as in validation, where each rank has a share."""
        batch_size = self.settings.valid_batch_size or max(1, 2 * self.settings.images_per_batch // processes.count)
        by_batch = dataclasses.replace(self.settings, valid_batch_size=batch_size)
        return create_valid_loader(by_batch, plain_samples(self.settings, self.data, is_chosen), self.device)


def _where(device: torch.device, num_processes: int) -> str:
    return device_name(device) + (f", {num_processes} processes," if num_processes > 1 else "")


def _train_in_turn(run: _Run, processes: Processes, torchrun: TorchrunProcesses) -> None:
    """One model after another, each by all ranks."""
    waiting = processes.broadcast(run.waiting() if processes.is_first else [])
    if waiting:
        run.profile(waiting[0], processes)
    for position, number in enumerate(waiting):
        run.train(number, processes, num_models_left=len(waiting) - position - 1)
        if processes.is_first and not run.settings.all_data:
            join_folds(run.settings, run.data)  # so that what is finished can be evaluated while the rest trains
        # Rank 0 measures features, draws and traces lines alone. The others wait for it here, however long it takes:
        # in the next model's first exchange, or where the group is taken apart, they would give up after a time limit.
        torchrun.barrier()


def _train_in_parallel(run: _Run, torchrun: TorchrunProcesses) -> None:
    """One model per rank, and the next one for whichever rank is done with its own."""
    torchrun.barrier()  # rank 0 has entered the run folder
    if not run.settings.run_folder.is_dir():
        raise UserError(
            f"{run.settings.run_folder}: not to be seen from this machine; folds_parallel=True needs a "
            "saved_models_folder that all machines share"
        )
    waiting = torchrun.share("waiting", run.waiting() if torchrun.rank == 0 else [])
    if waiting and torchrun.rank == 0:
        run.profile(waiting[0], ALONE)
    while (position := torchrun.take("model")) < len(waiting):
        num_left = (len(waiting) - position - 1) // torchrun.count
        run.train(waiting[position], ALONE, num_models_left=num_left)
    torchrun.barrier()


def _is_trained(settings: Settings, folder: Path) -> bool:
    """Whether this fold or seed is finished, after as many epochs as the settings ask for.

    Raises:
        UserError: it is, and one of its files is missing or not what was written.
    """
    what = f"{folder.name[:4]} {folder.name[4:]}"
    progress = read_progress(folder)
    if is_long_enough(settings, folder):
        check_finished(folder)
        say(f"{what}: already trained, in {folder}")
        return True
    if is_finished(folder):
        assert progress is not None, "else it would be long enough"
        trained, wanted = counted(progress["epoch"], "epoch"), counted(settings.num_epochs, "epoch")
        say(f"{what}: was trained for {trained}, resumes, to {wanted}")
        forget_finished(folder)
        predictions = folder / "predictions.csv"
        if predictions.exists():
            predictions.rename(predictions.with_suffix(f".epoch{progress['epoch']}.csv"))
    elif folder.exists() and progress is None:
        say(f"{what}: was not finished, starts again from its first epoch")
    return False


def is_long_enough(settings: Settings, folder: Path) -> bool:
    """Whether a fold or seed is finished, and was trained as long as the settings ask for."""
    if not is_finished(folder):
        return False
    progress = read_progress(folder)
    return (
        progress is None
        or progress["num_epochs_when_asked_to_stop"] >= settings.num_epochs
        or _is_over(settings, progress["epoch"], progress["best_epoch"])
    )


def _is_over(settings: Settings, num_epochs: int, best_epoch: int) -> bool:
    """Whether a model is trained after so many epochs, the best of which is `best_epoch`."""
    return num_epochs >= settings.num_epochs or has_stalled(settings.early_stop, num_epochs, best_epoch)


def _check_growth(run: _Run) -> None:
    """Refuse to make a run longer where a finished model has no snapshot any more to resume from."""
    for folder in map(run.folder, run.numbers):
        if not is_finished(folder) or read_progress(folder) is not None:
            continue
        log = read_epochs(folder)
        num_epochs = max((entry["epoch"] for entry in log), default=0)
        best = max(log, key=lambda entry: entry.get("val/macro_auc") or entry["epoch"], default={"epoch": 0})
        if not _is_over(run.settings, num_epochs, best["epoch"]):
            raise SettingsError(
                f"{folder}: was trained for {counted(num_epochs, 'epoch')} and cannot be made longer, since its "
                "snapshot in last/ is gone; leave epochs and early_stop as they were, or choose another run_name"
            )
