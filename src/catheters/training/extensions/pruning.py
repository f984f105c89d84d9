"""Pruning: a trial of an Optuna study tells its score after each epoch, and stops where others are better."""

from collections.abc import Mapping
from typing import Any

import optuna
from pytorch_pfn_extras.training.extension import Extension


class Pruning(Extension):
    """Reports the best macro ROC AUC so far after each epoch, and asks to stop where the study's pruner says so.

    It is the score that a trial ends with, so trials are compared at equal epochs by what they would be worth there.
    After the last epoch nothing is left to be saved, and the pruner is not asked.
    """

    name = "pruning"
    trigger = (1, "epoch")

    def __init__(self, trial: optuna.Trial, num_epochs: int) -> None:
        """Report to a trial.

        Args:
            trial: that is trained; a process that resumes it has it anew.
            num_epochs: of the training.
        """
        self._trial = trial
        self._num_epochs = num_epochs
        self._best = 0.0
        self._num_reported = max(trial.study.trials[trial.number].intermediate_values, default=0)
        self.asks_to_stop = False

    def __call__(self, manager: Any) -> None:
        """Report the score of the finished epoch, and ask."""
        self._best = max(self._best, float(manager.observation["val/macro_auc"]))
        if manager.epoch > self._num_reported:  # else by a process that was killed before its snapshot was whole
            self._trial.report(self._best, manager.epoch)
        self.asks_to_stop = manager.epoch < self._num_epochs and self._trial.should_prune()

    def state_dict(self) -> dict[str, Any]:
        """The best score so far."""
        return {"best": self._best}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self._best = state["best"]
