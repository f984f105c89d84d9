"""Learning rate schedules, stepped once an iteration."""

import math
import warnings

import torch
from warmup_scheduler import GradualWarmupScheduler

from catheters.settings import Settings

# The gradient scaler may skip the first optimizer steps while it looks for its scale; the schedule goes on.
warnings.filterwarnings("ignore", message=r"Detected call of `lr_scheduler\.step\(\)` before")


class WarmupCosine(GradualWarmupScheduler):  # type: ignore[misc]  # the package has no types
    """Linear warm-up by warmup-scheduler, then a cosine that starts exactly at the peak.

    warmup-scheduler 0.3 hands over to its `after_scheduler` one step late, at a rate above the peak, and starts at rate
    0 where the multiplier is 1. Here the cosine is computed in closed form from the iteration (Loshchilov and Hutter
    2017, "SGDR", eq. 5), and such a warm-up starts at one step's worth of the peak.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        *,
        num_warmup_steps: int,
        num_cosine_steps: int,
        restarts: bool,
        multiplier: float,
        min_lr: float,
    ) -> None:
        """Schedule an optimizer whose rates are the initial ones.

        Args:
            optimizer: what to schedule.
            num_warmup_steps: iterations of warm-up; 0: the cosine starts at the initial rate.
            num_cosine_steps: iterations of the cosine, from the peak to the end.
            restarts: whether the cosine then starts anew, again and again; else the rate stays.
            multiplier: peak over initial rate; 1: warm-up runs from almost 0 to the initial rate.
            min_lr: rate that the cosine ends with.
        """
        self.num_warmup_steps = num_warmup_steps
        self.num_cosine_steps = num_cosine_steps
        self.restarts = restarts
        self.min_lr = min_lr
        super().__init__(optimizer, multiplier if num_warmup_steps else 1.0, num_warmup_steps)

    def get_lr(self) -> list[float]:
        """The rates of the coming iteration, one a parameter group."""
        iteration = self.last_epoch  # torch's name for the number of steps taken
        if iteration < self.num_warmup_steps:
            if self.multiplier > 1:
                rates: list[float] = super().get_lr()
                return rates
            fraction = (iteration + 1) / (self.num_warmup_steps + 1)
            return [base_lr * fraction for base_lr in self.base_lrs]
        progress = (iteration - self.num_warmup_steps) / max(self.num_cosine_steps, 1)
        progress = progress % 1.0 if self.restarts else min(progress, 1.0)
        return [
            self.min_lr + (base_lr * self.multiplier - self.min_lr) * (1 + math.cos(math.pi * progress)) / 2
            for base_lr in self.base_lrs
        ]


def create_schedule(settings: Settings, optimizer: torch.optim.Optimizer, iters_per_epoch: int) -> WarmupCosine:
    """Warm-up, then cosine, with restarts or without, over the epochs that the settings give."""
    return WarmupCosine(
        optimizer,
        num_warmup_steps=settings.warmup_epochs * iters_per_epoch,
        num_cosine_steps=(settings.restart_epochs or settings.cosine_epochs) * iters_per_epoch,
        restarts=settings.restart_epochs > 0,
        multiplier=settings.warmup_multiplier,
        min_lr=settings.min_lr,
    )
