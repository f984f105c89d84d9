"""After an epoch: the validation fold is predicted and scored."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from pytorch_pfn_extras.reporting import report
from pytorch_pfn_extras.training.extension import Extension
from torch import Tensor

from catheters.data.batch import Batch, send
from catheters.data.loader import BatchesInOrder, Loader
from catheters.errors import UserError
from catheters.evaluation.metrics import LabelMetrics, macro_mean, score_labels
from catheters.models.classifier import Classifier
from catheters.models.outputs import Outputs
from catheters.runtime.precision import autocast
from catheters.runtime.progress import track
from catheters.training.guards import remedies
from catheters.training.losses import total
from catheters.training.step import TrainStep

StopIfAsked = Callable[[], None]
"""Raises where a signal asks the process to stop; all ranks call it equally often."""


class Validation(Extension):
    """After each epoch predicts the whole validation fold.

    Attributes:
        scores: of the last epoch, `val/loss`, `val/macro_auc` and `val/auc/<label>`, of several losses
            `val/loss/<name>`; with EMA weights also `val/raw/...` of the raw weights.
        metrics: (K,) of each label in the last epoch, of the weights that are scored and kept.
        probabilities: (n, K) float32, what it predicted, in the order of the validation images.
    """

    name = "validation"
    trigger = (1, "epoch")

    def __init__(
        self,
        step: TrainStep,
        loader: Loader,
        labels: tuple[str, ...],
        folder: Path,
    ) -> None:
        """Validate the model of a step.

        Args:
            step: holds the model, the losses and where they run.
            loader: batches of the fold's images, in order; each rank has its share of them.
            labels: in the order of the model's columns.
            folder: the model's, for messages.
        """
        self._step = step
        self._loader = loader
        self._labels = labels
        self._folder = folder
        self.scores: Mapping[str, float] = {}
        self.metrics: Sequence[LabelMetrics] = ()
        self.probabilities: npt.NDArray[np.float32] = np.empty((0, len(labels)), np.float32)

    @property
    def macro_auc(self) -> float:
        """That of the last epoch, which says what the best is."""
        return self.scores["val/macro_auc"]

    def __call__(self, manager: Any) -> None:
        """Score the model as it is; where a signal asks the process to stop meanwhile, the manager's snapshots do that.

        Raises:
            UserError: an output, the loss or the score is NaN or infinite; the best checkpoint so far is kept.
        """
        self.probabilities, self.metrics, scores = self._score(self._step.scored_model, "val", manager)
        if self._step.ema is not None:
            scores |= self._score(self._step.model, "val/raw", manager)[2]
        self.scores = scores
        report(scores)

    def _score(
        self, model: Classifier, prefix: str, manager: Any
    ) -> tuple[npt.NDArray[np.float32], list[LabelMetrics], dict[str, float]]:
        snapshots = manager.get_extension("snapshots")
        outputs, batch = predict(model, self._loader, self._step, lambda: snapshots.stop_if_asked(manager))
        losses = self._step.losses(outputs, batch)
        loss = float(total(losses))
        probabilities: npt.NDArray[np.float32] = model.probabilities(outputs).cpu().numpy()
        wrong = None
        if not math.isfinite(loss):
            wrong = f"the validation loss is {loss}"
        elif not outputs.are_finite:
            wrong = "the model outputs NaN or infinity"
        if wrong is not None:
            raise UserError(
                f"{self._folder.name}, after epoch {manager.epoch}, iteration {manager.iteration}: {wrong} "
                f"{remedies(self._step.last_learning_rate, self._folder)}"
            )
        metrics = score_labels(batch.labels(), probabilities, self._labels)
        macro_auc = macro_mean([metric.roc_auc for metric in metrics])
        assert math.isfinite(macro_auc), "folds that cannot be scored are refused before"
        terms = {f"{prefix}/loss/{name}": float(value) for name, value in losses.items()} if len(losses) > 1 else {}
        aucs = {f"{prefix}/auc/{metric.label}": metric.roc_auc for metric in metrics}
        return probabilities, metrics, {f"{prefix}/loss": loss, **terms, f"{prefix}/macro_auc": macro_auc, **aucs}


@torch.inference_mode()
def predict(model: Classifier, loader: Loader, step: TrainStep, stop_if_asked: StopIfAsked) -> tuple[Outputs, Batch]:
    """Predict every image, in order; each is predicted once, by one of the ranks.

    Returns:
        Float32 outputs of all N images, and all that is known of them but the images themselves, on the device, on
        every rank.
    """
    model.eval()
    step.processes.share_buffers(model)
    batches = loader.batch_sampler
    assert isinstance(batches, BatchesInOrder)
    outputs: list[Outputs] = []
    known: list[Batch] = []

    def predict_batch(batch: Batch) -> None:
        with autocast(step.device, step.dtype):
            of_batch = model(send(batch.images, step.device))
        outputs.append(of_batch.in_float32())
        known.append(batch.without_images())

    for batch in track(loader, "predicting", len(loader), unit="batch", leave=False):
        stop_if_asked()
        predict_batch(batch)
    if not outputs:  # a rank that has no image: its tensors are those of one, without its row
        predict_batch(Batch.collate([loader.dataset[0, 0]]))
        outputs, known = [outputs[0].map(_no_row)], [known[0].map(_no_row)]
    for _ in range(batches.max_length - len(loader)):
        stop_if_asked()  # as often as those that have a batch more

    def gather(rows: Tensor) -> Tensor:
        return step.processes.gather_rows(rows.to(step.device), batches.counts)

    of_process = Batch.concatenate(known)
    of_all = dataclasses.replace(of_process.map(gather), images=of_process.images)
    return Outputs.concatenate(outputs).map(gather), of_all


def _no_row(rows: Tensor) -> Tensor:
    return rows[:0]
