"""Training in Python: `result = catheters.train(settings)`, what `train.py` and `multi_train.py` do."""

import functools
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from catheters.config.loading import settings_warnings
from catheters.config.settings import Settings
from catheters.errors import SettingsError, UserError
from catheters.io.torch_files import read_torch_file
from catheters.runs.stages import train_in_stages
from catheters.runtime.console import warn
from catheters.runtime.host import process_rank
from catheters.training.manager import AnyExtension

_training = threading.Lock()


@dataclass(frozen=True, kw_only=True)
class ModelResult:
    """One trained model of a run.

    Attributes:
        number: of the validation fold; with `all_data=True` the seed.
        epoch: the epoch of the weights that were kept, from 1: the best, or with `all_data=True` the last.
        macro_auc: macro ROC AUC of that epoch on the validation fold; None with `all_data=True`.
        checkpoint: the weights, with all that `catheters.load` needs.
        predictions: probabilities of the validation fold's images, as CSV; None with `all_data=True`.
    """

    number: int
    epoch: int
    macro_auc: float | None
    checkpoint: Path
    predictions: Path | None


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """A run whose chosen folds, or seeds, are trained.

    Attributes:
        folder: the run folder; `catheters.load(result.folder)` predicts with it.
        checkpoints: fold, or with `all_data=True` seed, -> its weights, for those that the settings choose, in their
            order; only rank 0 knows them.
        predictions: the out-of-fold predictions of all folds that are finished, as CSV; None with `all_data=True`.
    """

    folder: Path
    checkpoints: Mapping[int, Path]
    predictions: Path | None

    @functools.cached_property
    def models(self) -> tuple[ModelResult, ...]:
        """The trained models; their checkpoints are read when this is first asked for."""
        return tuple(_read_model(number, checkpoint) for number, checkpoint in self.checkpoints.items())


def train(settings: Settings, extensions: Sequence[AnyExtension] = (), *, fresh: bool = False) -> RunResult:
    """Train the folds, or seeds, that the settings choose, except those that the run folder already holds.

    The same call again resumes a run that was stopped, and gives the same bits as an uninterrupted run. The same
    settings give the same bits from the command line. Started by torchrun, all ranks call it.

    It may be called in a notebook and in a thread, but one at a time in a process: torch's random generator is the
    process's. Ctrl-C stops it with a KeyboardInterrupt; a command defers it until a snapshot is written.

    Args:
        settings: made by `load_settings`, or `Settings(run_name=..., ...)`.
        extensions: of pytorch-pfn-extras, which run after each batch behind the built-in ones; see
            docs/how-to/extend.md.
        fresh: move an earlier run of the same name aside and start over.

    Raises:
        UserError: a setting, the data or the run folder is not as it has to be, said before any work starts; training
            cannot continue; or another training runs in this process, or in this run folder.
    """
    if not isinstance(settings, Settings):
        raise SettingsError(
            f"settings: {type(settings).__name__} was given, catheters.Settings is expected; "
            "catheters.load_settings('config.py') reads a file"
        )
    if settings.run_name is None:
        raise SettingsError("run_name is not set; Settings(run_name='...') names the run folder")
    if not _training.acquire(blocking=False):
        raise UserError(
            "this process trains another model already; wait until it has finished, or use a second process"
        )
    if process_rank() == 0:
        for warning in settings_warnings(settings):
            warn(warning)
    try:
        train_in_stages(settings, fresh=fresh, extensions=extensions)
    finally:
        _training.release()
    if process_rank() > 0:
        return RunResult(folder=settings.run_folder, checkpoints={}, predictions=None)
    folder = settings.run_folder
    if settings.all_data:
        checkpoints = {seed: folder / f"seed{seed}" / "final.pt" for seed in settings.seeds_to_train}
        return RunResult(folder=folder, checkpoints=checkpoints, predictions=None)
    checkpoints = {fold: folder / f"fold{fold}" / "best.pt" for fold in settings.folds_to_train}
    return RunResult(folder=folder, checkpoints=checkpoints, predictions=folder / "predictions.csv")


def _read_model(number: int, checkpoint: Path) -> ModelResult:
    content = read_torch_file(checkpoint)
    predictions = checkpoint.with_name("predictions.csv")
    return ModelResult(
        number=number,
        epoch=content["epoch"],
        macro_auc=content.get("macro_auc"),
        checkpoint=checkpoint,
        predictions=predictions if "fold" in content else None,
    )
