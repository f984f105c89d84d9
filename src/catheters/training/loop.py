"""Training of one fold, from batches to the best checkpoint."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from pytorch_pfn_extras.reporting import report
from pytorch_pfn_extras.training import ExtensionsManager
from pytorch_pfn_extras.training.extension import PRIORITY_EDITOR, Extension
from pytorch_pfn_extras.training.extensions import LogReport
from torch import Tensor, nn

from catheters.data.loader import Loader
from catheters.errors import UserError
from catheters.evaluation.metrics import macro_mean, score_labels
from catheters.models.classifier import create_classifier
from catheters.progress import track
from catheters.settings import Settings
from catheters.training.checkpoint import save_checkpoint
from catheters.training.losses import create_loss
from catheters.training.optimizers import create_optimizer
from catheters.training.schedules import create_schedule
from catheters.training.step import TrainStep, amp_dtype, autocast, choose_device


@dataclass(frozen=True, kw_only=True)
class FoldResult:
    """What the best epoch of a fold gave on its validation images.

    Attributes:
        epoch: the best epoch, from 1.
        macro_auc: its macro ROC AUC.
        probabilities: (n, K) float32, in the order of the validation images.
        log: one entry an epoch, as in `log.json`.
    """

    epoch: int
    macro_auc: float
    probabilities: npt.NDArray[np.float32]
    log: Sequence[Mapping[str, Any]]


def train_fold(
    settings: Settings, fold: int, train_loader: Loader, valid_loader: Loader, mean: float, std: float, folder: Path
) -> FoldResult:
    """Train until the last epoch, or until `early_stop` epochs brought nothing better.

    Args:
        settings: the run's settings.
        fold: the validation fold.
        train_loader: batches of the other folds, shuffled.
        valid_loader: batches of this fold, in order.
        mean: grey mean of the images, in 0..1.
        std: their standard deviation, in 0..1.
        folder: gets `best.pt` and `log.json`.
    """
    device = choose_device(settings.device)
    torch.manual_seed(int(np.random.SeedSequence((settings.seed, fold)).generate_state(1)[0]))
    model = create_classifier(settings, mean, std).to(device)
    loss_func = create_loss(settings).to(device)
    optimizer = create_optimizer(settings, model.parameters())
    schedule = create_schedule(settings, optimizer, len(train_loader))
    step = TrainStep(model, loss_func, optimizer, schedule, device, amp_dtype(settings, device))

    def save_best(epoch: int, macro_auc: float) -> None:
        save_checkpoint(folder / "best.pt", model, settings, fold=fold, epoch=epoch, macro_auc=macro_auc)

    validation = Validation(step, valid_loader, settings.label_columns, save_best)
    log = LogReport(filename="log.json", postprocess=_null_for_nan)
    manager = ExtensionsManager(
        model,
        optimizer,
        settings.num_epochs,
        iters_per_epoch=len(train_loader),
        extensions=[validation, log],
        out_dir=str(folder),
    )
    for epoch in range(1, settings.num_epochs + 1):
        started = time.perf_counter()
        what = f"fold {fold} epoch {epoch}/{settings.num_epochs}"
        train_epoch(train_loader, step, manager, what)  # the manager runs the validation after the last batch
        _print_epoch(what, log.log[-1], validation, time.perf_counter() - started)
        if settings.early_stop and epoch - validation.best_epoch >= settings.early_stop:
            print(f"fold {fold}: no better macro AUC in {settings.early_stop} epochs, stopped early")
            break

    return FoldResult(
        epoch=validation.best_epoch,
        macro_auc=validation.best_macro_auc,
        probabilities=validation.best_probabilities,
        log=log.log,
    )


class Batches(Protocol):
    """What an epoch goes through: a number of ((B, 1, H, W) uint8, (B, K) float32) batches."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Any]: ...


def train_epoch(loader: Batches, step: TrainStep, manager: ExtensionsManager, what: str) -> None:
    """One pass over the batches of `loader`; `what` names it beside the progress bar."""
    step.model.train()
    for images, targets in track(loader, what, len(loader), unit="batch", leave=False):
        with manager.run_iteration():
            report({"train/loss": step(images, targets)})


class Validation(Extension):
    """After each epoch, predicts the whole validation fold; remembers the best epoch by macro ROC AUC."""

    trigger = (1, "epoch")
    priority = PRIORITY_EDITOR  # before the log, which writes what this reports
    needs_model_state = True

    def __init__(
        self,
        step: TrainStep,
        loader: Loader,
        label_columns: tuple[str, ...],
        save_best: Callable[[int, float], None],
    ) -> None:
        """Validate the model of a step.

        Args:
            step: holds the model, the loss and where they run.
            loader: batches of the validation fold, in order.
            label_columns: names of the K labels.
            save_best: called with the epoch, from 1, and its macro AUC whenever that is the best so far.
        """
        self._step = step
        self._loader = loader
        self._label_columns = label_columns
        self._save_best = save_best
        self.best_epoch = 0
        self.best_macro_auc = -math.inf
        self.best_probabilities: npt.NDArray[np.float32]

    def __call__(self, manager: Any) -> None:
        """Report `val/loss`, `val/macro_auc`, `val/auc/<label>` and `lr`.

        Raises:
            UserError: the loss is NaN or infinite; the best checkpoint so far is kept.
        """
        logits, targets = predict(self._step.model, self._loader, self._step.device, self._step.dtype)
        loss = float(self._step.loss_func(logits, targets.to(logits.device)))
        learning_rate = self._step.schedule.get_last_lr()[0]
        if not math.isfinite(loss):
            raise UserError(
                f"{manager.out}: the validation loss is {loss} after epoch {manager.epoch} (learning rate "
                f"{learning_rate:.2e}); lower init_lr or warmup_multiplier, or set use_amp=False"
            )
        probabilities = torch.sigmoid(logits).cpu().numpy()
        metrics = score_labels(targets.numpy().astype(np.uint8), probabilities, self._label_columns)
        macro_auc = macro_mean([metric.roc_auc for metric in metrics])
        report({"val/loss": loss, "val/macro_auc": macro_auc, "lr": learning_rate})
        report({f"val/auc/{metric.label}": metric.roc_auc for metric in metrics})
        if macro_auc > self.best_macro_auc:
            self.best_epoch = manager.epoch
            self.best_macro_auc = macro_auc
            self.best_probabilities = probabilities
            self._save_best(manager.epoch, macro_auc)


@torch.inference_mode()
def predict(model: nn.Module, loader: Loader, device: torch.device, dtype: torch.dtype | None) -> tuple[Tensor, Tensor]:
    """Logits and targets of every image of the loader, in its order.

    Returns:
        (N, K) float32 logits on the device, (N, K) float32 targets on the CPU.
    """
    model.eval()
    logits = []
    targets = []
    for images, batch_targets in track(loader, "predicting", len(loader), unit="batch", leave=False):
        with autocast(device, dtype):
            batch_logits = model(images.to(device, non_blocking=True))
        logits.append(batch_logits.float())
        targets.append(batch_targets)
    return torch.cat(logits), torch.cat(targets)


def _null_for_nan(entry: Any) -> None:
    """JSON has no NaN; an AUC that is undefined stands in the log as null."""
    entry.update({key: None for key, value in entry.items() if math.isnan(value)})


def _print_epoch(what: str, entry: Any, validation: Validation, seconds: float) -> None:
    mark = "  best so far" if validation.best_epoch == entry["epoch"] else ""
    print(
        f"{what}  loss {entry['train/loss']:.4f}  val loss {entry['val/loss']:.4f}  "
        f"macro AUC {entry['val/macro_auc']:.4f}  lr {entry['lr']:.2e}  {seconds:.0f} s{mark}",
        flush=True,
    )
