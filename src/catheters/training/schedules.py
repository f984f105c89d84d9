"""Learning-rate schedules.

A schedule is a pure function from the iteration to the learning rate, and a line in `SCHEDULES`. An iteration is one
step of the optimizer.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau
from warmup_scheduler import GradualWarmupScheduler


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The lengths of a schedule's phases, in iterations, and its learning rates.

    Attributes:
        num_warmup_steps: warm-up, from `init_lr` to `peak_lr`.
        num_cosine_steps: the one cosine, from `peak_lr` to `min_lr`.
        num_restart_steps: each of the cosines with restarts.
        num_steps: the whole run.
        num_held_steps: the learning rate changes after so many, and stays the same between.
        init_lr: the learning rate that warm-up starts from.
        peak_lr: the peak learning rate, after warm-up.
        min_lr: the lowest learning rate after it.
    """

    num_warmup_steps: int
    num_cosine_steps: int
    num_restart_steps: int
    num_steps: int
    num_held_steps: int = 1
    init_lr: float
    peak_lr: float
    min_lr: float


def cosine(plan: Plan, iteration: int) -> float:
    """Down once, then `min_lr`: Loshchilov and Hutter 2017, "SGDR", eq. 5, without restarts."""
    return _half_cosine(plan.peak_lr, plan.min_lr, min(iteration / max(plan.num_cosine_steps, 1), 1.0))


def cosine_restarts(plan: Plan, iteration: int) -> float:
    """Down again and again: "SGDR", eq. 5, every cosine as long as the first."""
    return _half_cosine(plan.peak_lr, plan.min_lr, iteration % plan.num_restart_steps / plan.num_restart_steps)


def one_cycle(plan: Plan, iteration: int) -> float:
    """The way down of one_cycle, to `min_lr` in the run's last iteration."""
    num_steps_down = max(plan.num_steps - plan.num_warmup_steps, 1)
    return _half_cosine(plan.peak_lr, plan.min_lr, min((iteration + 1) / num_steps_down, 1.0))


def constant(plan: Plan, iteration: int) -> float:
    """The peak learning rate."""
    return plan.peak_lr


SCHEDULES: Mapping[str, Callable[[Plan, int], float]] = {
    "cosine": cosine,
    "cosine_restarts": cosine_restarts,
    "one_cycle": one_cycle,
    "constant": constant,
    "plateau": constant,  # and lower after epochs without a better score
}
"""Name -> the learning rate at an iteration, which counts from 0 after the end of warm-up."""


class Schedule(GradualWarmupScheduler):  # type: ignore[misc]  # the package has no types
    """Linear warm-up by warmup-scheduler, then one of `SCHEDULES`, exactly from the peak on.

    "plateau" falls from there after epochs, as torch's ReduceLROnPlateau decides.

    warmup-scheduler 0.3 hands over to its `after_scheduler` one step late, at a learning rate above the peak, and
    starts at 0 where the multiplier is 1. Here what follows is computed from the iteration in closed form, and such
    a warm-up starts at one change's worth of the peak. One-cycle has a warm-up of its own, half a cosine (Smith and
    Topin 2018, "Super-Convergence", in the form of torch's OneCycleLR; the momentum stays).

    Parameter groups whose initial learning rate is not the plan's get every learning rate in proportion.
    """

    def __init__(self, name: str, optimizer: torch.optim.Optimizer, plan: Plan, plateau: Mapping[str, Any]) -> None:
        """Schedule an optimizer whose learning rates are the initial ones.

        Args:
            name: one of `SCHEDULES`.
            optimizer: what to schedule.
            plan: lengths and learning rates.
            plateau: `patience` and `factor` of torch's ReduceLROnPlateau.
        """
        self._rate = SCHEDULES[name]
        self._is_one_cycle = name == "one_cycle"
        self._is_plateau = name == "plateau"
        self._plan = plan
        self._scales = [group["lr"] / plan.init_lr for group in optimizer.param_groups]
        super().__init__(optimizer, plan.peak_lr / plan.init_lr, plan.num_warmup_steps)
        self._plateau: ReduceLROnPlateau | None = None
        if name == "plateau":
            # A score counts as better as early stopping counts it: by any amount.
            lowest = self._of_groups(plan.min_lr)
            self._plateau = ReduceLROnPlateau(optimizer, mode="max", threshold=0.0, min_lr=lowest, eps=0.0, **plateau)

    last_epoch: int  # torch's name for the number of steps taken

    def get_lr(self) -> list[float]:
        """The learning rates of the coming iteration, one per parameter group."""
        steps_taken = self.last_epoch
        iteration = steps_taken - steps_taken % self._plan.num_held_steps
        num_warmup_steps = self._plan.num_warmup_steps
        if iteration < num_warmup_steps:
            if self._is_one_cycle:
                progress = iteration / max(num_warmup_steps - 1, 1)
                return self._of_groups(_half_cosine(self._plan.init_lr, self._plan.peak_lr, progress))
            if self.multiplier > 1:
                self.last_epoch = iteration
                rates: list[float] = super().get_lr()
                self.last_epoch = steps_taken
                return rates
            num_held_steps = self._plan.num_held_steps
            return self._of_groups(
                self._plan.peak_lr * (iteration + num_held_steps) / (num_warmup_steps + num_held_steps)
            )
        if self._is_plateau and steps_taken > num_warmup_steps:
            return [group["lr"] for group in self.optimizer.param_groups]
        return self._of_groups(self._rate(self._plan, iteration - num_warmup_steps))

    def end_epoch(self, score: float) -> None:
        """Let "plateau" know the epoch's score, higher being better; the others go by iterations alone."""
        if self._plateau is not None and self.last_epoch >= self._plan.num_warmup_steps:
            self._plateau.step(score)

    def state_dict(self) -> dict[str, Any]:
        """Where the schedule stands, as plain data that `torch.load(weights_only=True)` reads."""
        return {
            "last_epoch": self.last_epoch,
            "plateau": None if self._plateau is None else self._plateau.state_dict(),
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Resume from there, with an optimizer whose state has been loaded: it holds the learning rates themselves."""
        self.last_epoch = state_dict["last_epoch"]
        if self._plateau is not None:
            self._plateau.load_state_dict(state_dict["plateau"])

    def _of_groups(self, learning_rate: float) -> list[float]:
        return [learning_rate * scale for scale in self._scales]


def _half_cosine(start: float, end: float, progress: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2
