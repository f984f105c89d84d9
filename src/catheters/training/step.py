"""One training step, and where and in which precision it runs."""

import torch
from torch import Tensor, nn

from catheters.errors import UserError
from catheters.settings import Settings

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
    """Forward, backward, optimizer and schedule, for one batch."""

    def __init__(
        self,
        model: nn.Module,
        loss_func: nn.Module,
        optimizer: torch.optim.Optimizer,
        schedule: torch.optim.lr_scheduler.LRScheduler,
        device: torch.device,
        dtype: torch.dtype | None,
    ) -> None:
        """Keep one gradient scaler for all of a fold: a new one would search for its scale anew.

        Args:
            model: (B, 1, H, W) uint8 -> (B, K) logits, on `device`.
            loss_func: logits, targets -> scalar, on `device`.
            optimizer: of the model's parameters.
            schedule: stepped after the optimizer, each iteration.
            device: where the batches go.
            dtype: mixed precision's type, or None.
        """
        self.model = model
        self.loss_func = loss_func
        self.optimizer = optimizer
        self.schedule = schedule
        self.device = device
        self.dtype = dtype
        self.scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)

    def __call__(self, images: Tensor, targets: Tensor) -> Tensor:
        """Learn from one batch.

        Args:
            images: (B, 1, H, W) uint8.
            targets: (B, K) float32.

        Returns:
            The loss, a detached scalar still on the device: reading it would make the CPU wait.
        """
        images = images.to(self.device, non_blocking=True)
        targets = targets.to(self.device, non_blocking=True)
        with autocast(self.device, self.dtype):
            loss: Tensor = self.loss_func(self.model(images), targets)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.schedule.step()
        return loss.detach()


def autocast(device: torch.device, dtype: torch.dtype | None) -> torch.autocast:
    """Mixed precision of this type on this device, or nothing for None."""
    return torch.autocast(device.type, dtype=dtype, enabled=dtype is not None)


def device_name(device: torch.device) -> str:
    """What a person calls the device."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "the CPU"
