"""After an epoch: the checkpoint of the best weights is kept, or just the last one."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from pytorch_pfn_extras.training.extension import Extension
from torch.utils.data import Dataset

from catheters.data.batch import Sample
from catheters.models.classifier import Classifier
from catheters.training.context import TrainContext
from catheters.training.guards import check_outputs
from catheters.training.step import TrainStep
from catheters.training.validation import Validation


class BestCheckpoint(Extension):
    """Keeps the weights and predictions of the best epoch by macro ROC AUC.

    Attributes:
        checkpoint_names: the files that it writes.
        num_epochs: how many are scored.
        best_epoch: the best of them, from 1; 0 before the first.
        best_macro_auc: its score.
        best_probabilities: (n, K) float32, its predictions, in the order of the validation images.
    """

    name = "best_checkpoint"
    trigger = (1, "epoch")

    def __init__(self, step: TrainStep, validation: Validation, context: TrainContext, fold: int) -> None:
        """Keep the best model of a step.

        Args:
            step: holds the model.
            validation: has scored it before.
            context: its folder gets `best.pt`, with EMA weights also `best_raw.pt`.
            fold: the validation fold.
        """
        self._step = step
        self._validation = validation
        self._context = context
        self._fold = fold
        self.checkpoint_names = ("best.pt",) if step.ema is None else ("best.pt", "best_raw.pt")
        self.num_epochs = 0
        self.best_epoch = 0
        self.best_macro_auc = -math.inf
        self.best_probabilities: npt.NDArray[np.float32] = validation.probabilities

    @property
    def scores(self) -> Mapping[str, float]:
        """Those of the last epoch, see `Validation`."""
        return self._validation.scores

    def __call__(self, manager: Any) -> None:
        """Keep the weights as they are if none were better."""
        self.num_epochs += 1
        scores = self.scores
        macro_auc = scores["val/macro_auc"]
        if macro_auc > self.best_macro_auc:
            if self._step.ema is not None:
                self._save("best_raw.pt", self._step.model, scores["val/raw/macro_auc"])
            self._save("best.pt", self._step.scored_model, macro_auc)
            self.best_epoch = self.num_epochs
            self.best_macro_auc = macro_auc
            self.best_probabilities = self._validation.probabilities

    def _save(self, name: str, model: Classifier, macro_auc: float) -> None:
        if self._step.processes.is_first:
            scores = {"fold": self._fold, "epoch": self.num_epochs, "macro_auc": macro_auc}
            self._context.save(self._context.folder / name, model, scores)

    def state_dict(self) -> dict[str, Any]:
        """Scores and predictions so far."""
        return {
            "num_epochs": self.num_epochs,
            "best_epoch": self.best_epoch,
            "best_macro_auc": self.best_macro_auc,
            "best_probabilities": torch.from_numpy(self.best_probabilities),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.num_epochs = state["num_epochs"]
        self.best_epoch = state["best_epoch"]
        self.best_macro_auc = state["best_macro_auc"]
        self.best_probabilities = state["best_probabilities"].numpy()


class LastCheckpoint(Extension):
    """Without validation: after each epoch checks that the model's outputs are finite, and keeps its weights.

    Attributes:
        checkpoint_names: the files that it writes.
        num_epochs: how many epochs are done.
    """

    name = "last_checkpoint"
    trigger = (1, "epoch")
    checkpoint_names = ("last.pt",)

    def __init__(self, step: TrainStep, images: Dataset[Sample], context: TrainContext, seed: int) -> None:
        """Keep the model of a step.

        Args:
            step: holds the model.
            images: the training images, one of which is predicted.
            context: its folder gets `last.pt`, and at the end `final.pt`, with EMA weights also `final_raw.pt`.
            seed: of this model.
        """
        self._step = step
        self._images = images
        self._context = context
        self._seed = seed
        self.num_epochs = 0

    @property
    def best_epoch(self) -> int:
        """The last epoch, for want of a better judge."""
        return self.num_epochs

    def __call__(self, manager: Any) -> None:
        """Write `last.pt`.

        Raises:
            UserError: the model outputs NaN or infinity; the weights of the epoch before are kept.
        """
        epoch = f"{self._context.what} epoch {self.num_epochs + 1}/{self._context.num_epochs}"
        self._step.processes.share_buffers(self._step.scored_model)
        check_outputs(self._step, self._images, epoch, self._context.folder)
        self.num_epochs += 1
        self._save("last.pt", self._step.scored_model)

    def finalize(self, manager: Any) -> None:
        """Write `final.pt`."""
        if self._step.ema is not None:
            self._save("final_raw.pt", self._step.model)
        self._save("final.pt", self._step.scored_model)
        if self._step.processes.is_first:
            (self._context.folder / "last.pt").unlink(missing_ok=True)

    def _save(self, name: str, model: Classifier) -> None:
        if self._step.processes.is_first:
            scores = {"seed": self._seed, "epoch": self.num_epochs}
            self._context.save(self._context.folder / name, model, scores)

    def state_dict(self) -> dict[str, Any]:
        """How many epochs are done."""
        return {"num_epochs": self.num_epochs}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.num_epochs = state["num_epochs"]
