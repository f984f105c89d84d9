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
from pytorch_pfn_extras.training.extensions import LogReport, observe_value
from torch import Tensor, nn

from catheters.data.loader import Loader
from catheters.errors import UserError
from catheters.evaluation.metrics import macro_mean, score_labels
from catheters.models.classifier import create_classifier
from catheters.progress import track
from catheters.settings import Settings
from catheters.training.checkpoint import save_checkpoint
from catheters.training.guards import check_answers, check_losses, remedies
from catheters.training.step import TrainStep, autocast, choose_device

CHECK_EVERY = 50
"""Batches after which the losses are looked at: reading each one at once would make a GPU wait."""


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
        folder: gets `best.pt`, with averaged weights also `best_raw.pt`, and `log.json`.

    Raises:
        UserError: the loss is NaN or infinite; what the folder holds is kept.
    """
    seed = int(np.random.SeedSequence((settings.seed, fold)).generate_state(1)[0])
    step = _create_step(settings, seed, len(train_loader), mean, std)

    def save_best(epoch: int, macro_auc: float, raw_macro_auc: float) -> None:
        scores = {"fold": fold, "epoch": epoch, "macro_auc": macro_auc}
        if step.ema is not None:
            save_checkpoint(folder / "best_raw.pt", step.model, settings, {**scores, "macro_auc": raw_macro_auc})
        save_checkpoint(folder / "best.pt", step.scored_model, settings, scores)

    validation = Validation(step, valid_loader, settings.label_columns, save_best)
    manager, log = _create_manager(settings, step, len(train_loader), folder, [validation])
    for epoch in range(1, settings.num_epochs + 1):
        started = time.perf_counter()
        what = f"fold {fold} epoch {epoch}/{settings.num_epochs}"
        train_epoch(train_loader, step, manager, what)  # the manager runs the validation after the last batch
        step.schedule.end_epoch(validation.macro_auc)
        _print_epoch(what, log.log[-1], time.perf_counter() - started, is_best=validation.best_epoch == epoch)
        if settings.early_stop and epoch - validation.best_epoch >= settings.early_stop:
            print(f"fold {fold}: no better macro AUC in {settings.early_stop} epochs, stopped early")
            break

    return FoldResult(
        epoch=validation.best_epoch,
        macro_auc=validation.best_macro_auc,
        probabilities=validation.best_probabilities,
        log=log.log,
    )


def train_on_all(
    settings: Settings, train_loader: Loader, mean: float, std: float, folder: Path
) -> Sequence[Mapping[str, Any]]:
    """Train every epoch without validation and keep the last weights.

    Args:
        settings: the run's settings, with the seed of this model.
        train_loader: batches of all images, shuffled.
        mean: grey mean of the images, in 0..1.
        std: their standard deviation, in 0..1.
        folder: gets `log.json`, `last.pt` after each epoch, which becomes `final.pt` after the last, and with averaged
            weights `final_raw.pt`.

    Returns:
        One entry an epoch, as in `log.json`.

    Raises:
        UserError: the loss or an answer is NaN or infinite; what the folder holds is kept.
    """
    step = _create_step(settings, settings.seed, len(train_loader), mean, std)
    manager, log = _create_manager(settings, step, len(train_loader), folder, [])
    last_file = folder / "last.pt"
    for epoch in range(1, settings.num_epochs + 1):
        started = time.perf_counter()
        what = f"seed {settings.seed} epoch {epoch}/{settings.num_epochs}"
        train_epoch(train_loader, step, manager, what)
        check_answers(step, train_loader, what, folder)
        save_checkpoint(last_file, step.scored_model, settings, {"seed": settings.seed, "epoch": epoch})
        _print_epoch(what, log.log[-1], time.perf_counter() - started, is_best=False)
    if step.ema is not None:
        scores = {"seed": settings.seed, "epoch": settings.num_epochs}
        save_checkpoint(folder / "final_raw.pt", step.model, settings, scores)
    last_file.rename(folder / "final.pt")
    return log.log


def _create_step(settings: Settings, seed: int, num_batches: int, mean: float, std: float) -> TrainStep:
    device = choose_device(settings.device)
    torch.manual_seed(seed)
    return TrainStep(settings, create_classifier(settings, mean, std).to(device), num_batches, device)


def _create_manager(
    settings: Settings, step: TrainStep, num_batches: int, folder: Path, extensions: Sequence[Extension]
) -> tuple[ExtensionsManager, LogReport]:
    log = LogReport(filename="log.json", postprocess=_null_for_nan)
    manager = ExtensionsManager(
        step.model,
        step.optimizer,
        settings.num_epochs,
        iters_per_epoch=num_batches,
        extensions=[*extensions, observe_value("lr", lambda _: step.learning_rate), log],
        out_dir=str(folder),
    )
    return manager, log


class Batches(Protocol):
    """What an epoch goes through: a number of ((B, 1, H, W) uint8, (B, K) float32) batches."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Any]: ...


def train_epoch(loader: Batches, step: TrainStep, manager: ExtensionsManager, what: str) -> None:
    """One pass over the batches of `loader`; `what` names it beside the progress bar.

    Raises:
        UserError: a loss is NaN or infinite.
    """
    step.model.train()
    unchecked: list[tuple[float, Tensor]] = []  # learning rate and loss of each batch since the last look
    for number, (images, targets) in enumerate(track(loader, what, len(loader), unit="batch", leave=False), start=1):
        with manager.run_iteration():
            learning_rate = step.learning_rate
            loss = step(images, targets)
            report({"train/loss": loss})
            unchecked.append((learning_rate, loss))
            if len(unchecked) == CHECK_EVERY or number == len(loader):
                check_losses(unchecked, number - len(unchecked), what, Path(manager.out))
                unchecked = []


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
        save_best: Callable[[int, float, float], None],
    ) -> None:
        """Validate the model of a step.

        Args:
            step: holds the model, the loss and where they run.
            loader: batches of the validation fold, in order.
            label_columns: names of the K labels.
            save_best: called whenever the macro AUC is the best so far, with the epoch, from 1, that macro AUC, and the
                one of the raw weights, which is the same without averaged ones.
        """
        self._step = step
        self._loader = loader
        self._label_columns = label_columns
        self._save_best = save_best
        self.macro_auc = math.nan
        self.best_epoch = 0
        self.best_macro_auc = -math.inf
        self.best_probabilities: npt.NDArray[np.float32]

    def __call__(self, manager: Any) -> None:
        """Report `val/loss`, `val/macro_auc` and `val/auc/<label>`; `val/raw/...` of the weights behind averaged ones.

        Raises:
            UserError: the loss is NaN or infinite; the best checkpoint so far is kept.
        """
        self.macro_auc, probabilities = self._score(self._step.scored_model, "val", manager)
        raw_macro_auc = self.macro_auc
        if self._step.ema is not None:
            raw_macro_auc, _ = self._score(self._step.model, "val/raw", manager)
        if self.macro_auc > self.best_macro_auc:
            self.best_epoch = manager.epoch
            self.best_macro_auc = self.macro_auc
            self.best_probabilities = probabilities
            self._save_best(manager.epoch, self.macro_auc, raw_macro_auc)

    def _score(self, model: nn.Module, prefix: str, manager: Any) -> tuple[float, npt.NDArray[np.float32]]:
        logits, targets = predict(model, self._loader, self._step.device, self._step.dtype)
        loss = float(self._step.loss_func(logits, targets.to(logits.device)))
        if not math.isfinite(loss):
            folder = Path(manager.out)
            raise UserError(
                f"{folder.name}, after epoch {manager.epoch}, iteration {manager.iteration}: the validation loss is "
                f"{loss} {remedies(self._step.last_learning_rate, folder)}"
            )
        probabilities: npt.NDArray[np.float32] = torch.sigmoid(logits).cpu().numpy()
        metrics = score_labels(targets.numpy().astype(np.uint8), probabilities, self._label_columns)
        macro_auc = macro_mean([metric.roc_auc for metric in metrics])
        report({f"{prefix}/loss": loss, f"{prefix}/macro_auc": macro_auc})
        report({f"{prefix}/auc/{metric.label}": metric.roc_auc for metric in metrics})
        return macro_auc, probabilities


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


def _print_epoch(what: str, entry: Any, seconds: float, *, is_best: bool) -> None:
    parts = [what, f"loss {entry['train/loss']:.4f}"]
    if "val/loss" in entry:
        parts += [f"val loss {entry['val/loss']:.4f}", f"macro AUC {entry['val/macro_auc']:.4f}"]
    if "val/raw/macro_auc" in entry:
        parts.append(f"(raw weights {entry['val/raw/macro_auc']:.4f})")
    parts += [f"lr {entry['lr']:.2e}", f"{seconds:.0f} s"]
    print("  ".join([*parts, "best so far"] if is_best else parts), flush=True)
