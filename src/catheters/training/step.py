"""One training step, and where and in which precision it runs."""

import torch
from timm.utils import ModelEmaV3
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from catheters.errors import UserError
from catheters.models.classifier import Classifier
from catheters.settings import Settings
from catheters.training.losses import create_loss
from catheters.training.mixup import Mixup
from catheters.training.optimizers import create_optimizer
from catheters.training.schedules import create_schedule

AMP_DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}


def choose_device(name: str) -> torch.device:
    """The device of the setting `device`.

    Raises:
        UserError: there is no such GPU.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(f"device={name}: this machine has {torch.cuda.device_count()} CUDA GPUs; set device=auto")
    return device


def amp_dtype(settings: Settings, device: torch.device) -> torch.dtype | None:
    """Type of mixed precision, or None for full precision, which a CPU always gets: there it is slower."""
    if not settings.use_amp or device.type == "cpu":
        return None
    return AMP_DTYPES[settings.amp_dtype]


class TrainStep:
    """Forward, backward, optimizer, schedule and averaged weights, for one batch."""

    def __init__(self, settings: Settings, model: Classifier, num_batches: int, device: torch.device) -> None:
        """Create what a model needs to learn.

        One gradient scaler serves all of it: a new one would search for its scale anew.

        Args:
            settings: the run's settings.
            model: (B, 1, H, W) uint8 -> (B, K) logits, on `device`.
            num_batches: batches of an epoch, a multiple of `accumulation_steps`.
            device: where the batches go.

        `last_learning_rate` is the rate of the step before, which made the weights what they are.

        Raises:
            SettingsError: a loss, optimizer or schedule that does not exist or cannot be made so.
        """
        self.model = model
        self.loss_func = create_loss(settings).to(device)
        self.optimizer = create_optimizer(settings, model)
        self.schedule = create_schedule(settings, self.optimizer, num_batches // settings.accumulation_steps)
        self.device = device
        self.dtype = amp_dtype(settings, device)
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.dtype == torch.float16)
        self.ema = (
            ModelEmaV3(model, decay=settings.ema_decay, use_warmup=True) if settings.ema_decay is not None else None
        )
        self._mixup = Mixup(settings.mixup_alpha, settings.seed) if settings.mixup_alpha > 0 else None
        self._clip_grad_norm = settings.clip_grad_norm
        self._accumulation_steps = settings.accumulation_steps
        self._num_batches_seen = 0
        self.last_learning_rate = self.learning_rate

    @property
    def scored_model(self) -> Classifier:
        """The model that is validated and kept: the one of averaged weights where there is one."""
        model: Classifier = self.model if self.ema is None else self.ema.module
        return model

    @property
    def learning_rate(self) -> float:
        """The rate of the next step, of the parameters that learn fastest."""
        return float(max(group["lr"] for group in self.optimizer.param_groups))

    def __call__(self, images: Tensor, targets: Tensor) -> Tensor:
        """Learn from one batch; every `accumulation_steps` of them the weights move.

        Args:
            images: (B, 1, H, W) uint8.
            targets: (B, K) float32.

        Returns:
            The batch's loss, a detached scalar still on the device: reading it would make the CPU wait.
        """
        images = images.to(self.device, non_blocking=True)
        targets = targets.to(self.device, non_blocking=True)
        if self._mixup is not None:
            images, targets = self._mixup(images, targets, self._num_batches_seen)
        with autocast(self.device, self.dtype):
            loss: Tensor = self.loss_func(self.model(images), targets)
        self.scaler.scale(loss / self._accumulation_steps).backward()  # type: ignore[no-untyped-call]
        self._num_batches_seen += 1
        if self._num_batches_seen % self._accumulation_steps == 0:
            self._move()
        return loss.detach()

    def _move(self) -> None:
        self.last_learning_rate = self.learning_rate
        if self._clip_grad_norm is not None:
            self.scaler.unscale_(self.optimizer)
            clip_grad_norm_(self.model.parameters(), self._clip_grad_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.schedule.step()
        if self.ema is not None:
            self.ema.update(self.model, step=self._num_batches_seen // self._accumulation_steps)


def autocast(device: torch.device, dtype: torch.dtype | None) -> torch.autocast:
    """Mixed precision of this type on this device, or nothing for None."""
    return torch.autocast(device.type, dtype=dtype, enabled=dtype is not None)


def device_name(device: torch.device) -> str:
    """What a person calls the device."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "the CPU"
