"""Optimizers."""

from collections.abc import Iterable

import torch
from torch import nn

from catheters.errors import look_up
from catheters.settings import Settings

OPTIMIZERS: dict[str, type[torch.optim.Adam] | type[torch.optim.AdamW]] = {
    "Adam": torch.optim.Adam,
    "AdamW": torch.optim.AdamW,
}


def check_optimizer(settings: Settings) -> None:
    """Raise a SettingsError unless there is an optimizer of the name that the settings give."""
    look_up(OPTIMIZERS, settings.optimizer, "optimizer")


def create_optimizer(settings: Settings, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """The optimizer that the settings name, at `init_lr`.

    Raises:
        SettingsError: no such optimizer.
    """
    optimizer_class = look_up(OPTIMIZERS, settings.optimizer, "optimizer")
    return optimizer_class(parameters, lr=settings.init_lr, weight_decay=settings.weight_decay)
