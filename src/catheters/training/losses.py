"""Losses over (B, K) logits and 0/1 targets."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from catheters.settings import Settings, look_up

LOSSES: dict[str, Callable[[Tensor], nn.Module]] = {
    "bce": lambda pos_weight: nn.BCEWithLogitsLoss(pos_weight=pos_weight),
}
"""Name -> what makes the loss, given the (K,) weights of the positives."""


def create_loss(settings: Settings) -> nn.Module:
    """The loss that the settings name: (B, K) logits, (B, K) targets -> mean over all elements.

    `bce` is binary cross-entropy on each label by itself, since an X-ray can have several labels of one device;
    `pos_weight` multiplies the positives' term.

    Raises:
        SettingsError: no such loss.
    """
    create = look_up(LOSSES, settings.loss_func, "loss_func")
    pos_weight = torch.tensor([settings.pos_weight.get(label, 1.0) for label in settings.label_columns])
    return create(pos_weight)
