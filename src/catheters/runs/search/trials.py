"""Trials of a search: what each is trained by, and its training in a process of its own."""

import dataclasses
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from catheters.checkpoints.snapshots import read_progress
from catheters.config.settings import Settings
from catheters.errors import SettingsError, UserError
from catheters.evaluation.search.tables import value_text
from catheters.runs.comparison.queue import TakenJob
from catheters.runs.comparison.workers import JobSettings
from catheters.runs.search.study import SearchQueue, TrialJob
from catheters.runs.train import train
from catheters.training.extensions.log import read_epochs
from catheters.training.extensions.pruning import Pruning


@dataclass(frozen=True, kw_only=True)
class TrialSettings(JobSettings):
    """What a trial is trained by.

    Attributes:
        trial_id: of the study; whoever trains it reports to it.
        values: of the settings that vary.
    """

    trial_id: int
    values: Mapping[str, Any]

    @classmethod
    def of(cls, taken: TakenJob[TrialJob], base: Settings, values: Mapping[str, Any], folder: Path) -> "TrialSettings":
        """Those of a trial that is taken.

        Args:
            taken: the trial.
            base: settings of all trials, with folds and seed, whose runs lie in the search's folder.
            values: of the settings that vary.
            folder: of the search.

        Raises:
            SettingsError: the values are not allowed beside each other.
        """
        settings = dataclasses.replace(base, **values, run_name=taken.job.run)
        return cls(settings=settings, folder=folder, trial_id=taken.trial_id, values=values)

    def check_folder(self) -> None:
        """Refuse a run folder of other settings, as one is whose trial was proposed by a journal that is gone."""
        try:
            super().check_folder()
        except SettingsError:
            raise UserError(
                f"{self.settings.run_folder}: holds another run than this trial's{self.describe()}; give the search "
                "another --name, or move the folder away"
            ) from None

    @property
    def is_pruned(self) -> bool:
        """Whether its first fold was stopped, after which no other one is trained."""
        progress = read_progress(self._first_folder)
        return progress is not None and progress["num_epochs_when_asked_to_stop"] >= self.settings.num_epochs

    @property
    def _first_folder(self) -> Path:
        return self.settings.run_folder / f"fold{self.settings.folds_to_train[0]}"

    @property
    def fold_folders(self) -> tuple[Path, ...]:
        """Where the models of all its folds lie; of a pruned one the first."""
        return (self._first_folder,) if self.is_pruned else super().fold_folders

    @property
    def log_file(self) -> Path:
        """What its process prints."""
        return self.folder / "logs" / f"{self.settings.run_name}.log"

    @property
    def command(self) -> list[str]:
        """What trains it, once its config is written."""
        folds = map(str, self.settings.folds_to_train)
        module = "catheters.commands.search_trial"
        return [sys.executable, "-m", module, str(self.config_file), str(self.folder), str(self.trial_id), *folds]

    def facts(self) -> Mapping[str, float]:
        """Epochs and seconds of all folds together."""
        logs = [log for log in map(read_epochs, self.fold_folders) if log]
        return {
            "epochs": sum(len(log) for log in logs),
            "seconds": sum(log[-1]["speed"]["seconds"] for log in logs),
        }

    def describe(self) -> str:
        """The values, as the end of its line."""
        return f" ({', '.join(f'{name}={value_text(value)}' for name, value in self.values.items())})"


def train_trial(of_trial: TrialSettings) -> None:
    """Train a trial: its first fold until the study's pruner stops it, and if that does not, the others.

    Raises:
        UserError: as `train`.
    """
    settings = of_trial.settings
    queue = SearchQueue(of_trial.folder, settings.seed, warmup_epochs=settings.warmup_epochs)
    pruning = Pruning(queue.trial(of_trial.trial_id), settings.num_epochs)
    first, *others = settings.folds_to_train
    train(dataclasses.replace(settings, folds=(first,)), extensions=[pruning])
    if others and not of_trial.is_pruned:
        train(settings)
