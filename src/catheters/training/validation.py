"""After an epoch: the validation fold is predicted and the best weights are kept, or just the last ones."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from catheters.data.batch import Batch, Sample
from catheters.data.loader import BatchesInOrder, Loader
from catheters.errors import UserError
from catheters.evaluation.metrics import macro_mean, score_labels
from catheters.models.classifier import Classifier
from catheters.models.outputs import Outputs
from catheters.progress import track
from catheters.settings import Settings
from catheters.training.checkpoint import save_checkpoint
from catheters.training.guards import check_answers, remedies
from catheters.training.losses import total
from catheters.training.precision import autocast
from catheters.training.step import TrainStep

StopIfAsked = Callable[[], None]
"""Raises where a signal asks the process to end; all processes call it equally often."""


class Validation:
    """After each epoch predicts the whole validation fold; keeps the weights of the best epoch by macro ROC AUC.

    Attributes:
        checkpoint_names: the files that it writes.
        num_epochs: how many are validated.
        best_epoch: the best of them, from 1; 0 before the first.
        macro_auc: of the last of them.
        best_macro_auc: of the best.
        best_probabilities: (n, K) float32, the best epoch's predictions, in the order of the validation images.
    """

    def __init__(
        self,
        settings: Settings,
        fold: int,
        step: TrainStep,
        loader: Loader,
        environment: Mapping[str, Any],
        folder: Path,
    ) -> None:
        """Validate the model of a step.

        Args:
            settings: the run's settings.
            fold: the validation fold.
            step: holds the model, the loss and where they run.
            loader: batches of the fold's images, in order; of several processes each has its part.
            environment: goes into the checkpoints.
            folder: gets `best.pt`, with averaged weights also `best_raw.pt`.
        """
        self._settings = settings
        self._fold = fold
        self._step = step
        self._loader = loader
        self._environment = environment
        self._folder = folder
        self.checkpoint_names = ("best.pt",) if step.ema is None else ("best.pt", "best_raw.pt")
        self.num_epochs = 0
        self.best_epoch = 0
        self.macro_auc = math.nan
        self.best_macro_auc = -math.inf
        self.best_probabilities: npt.NDArray[np.float32] = np.empty((0, len(settings.label_columns)), np.float32)

    def end_epoch(self, iteration: int, stop_if_asked: StopIfAsked) -> dict[str, float]:
        """Score the model as it is.

        Returns:
            `val/loss`, `val/macro_auc` and `val/auc/<label>`; `val/raw/...` of the weights behind averaged ones.

        Raises:
            UserError: an answer, the loss or the score is NaN or infinite; the best checkpoint so far is kept.
        """
        macro_auc, probabilities, scores = self._score(self._step.scored_model, "val", iteration, stop_if_asked)
        raw_macro_auc = macro_auc
        if self._step.ema is not None:
            raw_macro_auc, _, raw_scores = self._score(self._step.model, "val/raw", iteration, stop_if_asked)
            scores |= raw_scores
        if macro_auc > self.best_macro_auc:
            self._save(macro_auc, raw_macro_auc)
            self.best_epoch = self.num_epochs + 1
            self.best_macro_auc = macro_auc
            self.best_probabilities = probabilities
        self.macro_auc = macro_auc
        self.num_epochs += 1
        return scores

    def _score(
        self, model: Classifier, prefix: str, iteration: int, stop_if_asked: StopIfAsked
    ) -> tuple[float, npt.NDArray[np.float32], dict[str, float]]:
        num_labels = len(self._settings.label_columns)
        outputs, batch = predict(model, self._loader, self._step, num_labels, stop_if_asked)
        loss = float(total(self._step.losses(outputs, batch)))
        probabilities: npt.NDArray[np.float32] = model.probabilities(outputs).cpu().numpy()
        wrong = None
        if not math.isfinite(loss):
            wrong = f"the validation loss is {loss}"
        elif not outputs.are_finite:
            wrong = "the model answers NaN or infinity"
        if wrong is not None:
            raise UserError(
                f"{self._folder.name}, after epoch {self.num_epochs + 1}, iteration {iteration}: {wrong} "
                f"{remedies(self._step.last_learning_rate, self._folder)}"
            )
        labels = self._settings.label_columns
        metrics = score_labels(batch.targets.cpu().numpy().astype(np.uint8), probabilities, labels)
        macro_auc = macro_mean([metric.roc_auc for metric in metrics])
        assert math.isfinite(macro_auc), "folds that cannot be scored are refused before"
        aucs = {f"{prefix}/auc/{metric.label}": metric.roc_auc for metric in metrics}
        return macro_auc, probabilities, {f"{prefix}/loss": loss, f"{prefix}/macro_auc": macro_auc, **aucs}

    def _save(self, macro_auc: float, raw_macro_auc: float) -> None:
        if not self._step.processes.is_first:
            return
        scores = {"fold": self._fold, "epoch": self.num_epochs + 1}
        models = [("best.pt", self._step.scored_model, macro_auc)]
        if self._step.ema is not None:
            models.insert(0, ("best_raw.pt", self._step.model, raw_macro_auc))
        for name, model, score in models:
            file = self._folder / name
            save_checkpoint(file, model, self._settings, self._environment, {**scores, "macro_auc": score})

    def state_dict(self) -> dict[str, Any]:
        """Scores and predictions so far."""
        return {
            "num_epochs": self.num_epochs,
            "best_epoch": self.best_epoch,
            "macro_auc": self.macro_auc,
            "best_macro_auc": self.best_macro_auc,
            "best_probabilities": torch.from_numpy(self.best_probabilities),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.num_epochs = state["num_epochs"]
        self.best_epoch = state["best_epoch"]
        self.macro_auc = state["macro_auc"]
        self.best_macro_auc = state["best_macro_auc"]
        self.best_probabilities = state["best_probabilities"].numpy()


class KeepLast:
    """Without validation: after each epoch makes sure that the model still answers, and keeps its weights.

    Attributes:
        checkpoint_names: the files that it writes.
        num_epochs: how many epochs are done.
    """

    checkpoint_names = ("last.pt",)

    def __init__(
        self, settings: Settings, step: TrainStep, images: Dataset[Sample], environment: Mapping[str, Any], folder: Path
    ) -> None:
        """Keep the model of a step.

        Args:
            settings: the run's settings, with the seed of this model.
            step: holds the model.
            images: the training images, one of which is predicted.
            environment: goes into the checkpoints.
            folder: gets `last.pt`, and at the end `final.pt`, with averaged weights also `final_raw.pt`.
        """
        self._settings = settings
        self._step = step
        self._images = images
        self._environment = environment
        self._folder = folder
        self.num_epochs = 0

    @property
    def best_epoch(self) -> int:
        """The last epoch, for want of a better judge."""
        return self.num_epochs

    def end_epoch(self, iteration: int, stop_if_asked: StopIfAsked) -> dict[str, float]:
        """Write `last.pt`; no scores.

        Raises:
            UserError: the model answers NaN or infinity; the weights of the epoch before are kept.
        """
        epoch = f"seed {self._settings.seed} epoch {self.num_epochs + 1}/{self._settings.num_epochs}"
        self._step.processes.share_buffers(self._step.scored_model)
        check_answers(self._step, self._images, epoch, self._folder)
        self.num_epochs += 1
        self._save("last.pt", self._step.scored_model)
        return {}

    def finish(self) -> None:
        """Write `final.pt`."""
        if self._step.ema is not None:
            self._save("final_raw.pt", self._step.model)
        self._save("final.pt", self._step.scored_model)
        if self._step.processes.is_first:
            (self._folder / "last.pt").unlink(missing_ok=True)

    def _save(self, name: str, model: Classifier) -> None:
        if self._step.processes.is_first:
            scores = {"seed": self._settings.seed, "epoch": self.num_epochs}
            save_checkpoint(self._folder / name, model, self._settings, self._environment, scores)

    def state_dict(self) -> dict[str, Any]:
        """How many epochs are done."""
        return {"num_epochs": self.num_epochs}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.num_epochs = state["num_epochs"]


@torch.inference_mode()
def predict(
    model: Classifier, loader: Loader, step: TrainStep, num_labels: int, stop_if_asked: StopIfAsked
) -> tuple[Outputs, Batch]:
    """Predict every image, in order; each is predicted once, by one of the processes.

    Returns:
        Float32 outputs of all N images, and all that is known of them but the images themselves, on the device, on
        every process.
    """
    model.eval()
    step.processes.share_buffers(model)
    batches = loader.batch_sampler
    assert isinstance(batches, BatchesInOrder)
    # A process may have no image at all.
    none = torch.empty((0, num_labels), device=step.device)
    outputs = [Outputs(logits=none)]
    known = [Batch(images=torch.empty(0, dtype=torch.uint8), targets=none.cpu())]
    for batch in track(loader, "predicting", len(loader), unit="batch", leave=False):
        stop_if_asked()
        with autocast(step.device, step.dtype):
            of_batch = model(batch.images.to(step.device, non_blocking=True))
        outputs.append(of_batch.map(Tensor.float))
        known.append(batch.without_images())
    for _ in range(batches.max_length - len(loader)):
        stop_if_asked()  # as often as those that have a batch more

    def gather(rows: Tensor) -> Tensor:
        return step.processes.gather_rows(rows.to(step.device), batches.counts)

    of_process = Batch.concatenate(known)
    of_all = dataclasses.replace(of_process.map(gather), images=of_process.images)
    return Outputs.concatenate(outputs).map(gather), of_all
