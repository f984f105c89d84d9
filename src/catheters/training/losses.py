"""Losses over (B, K) logits and 0/1 targets."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from catheters.settings import Settings, look_up


def _bce(settings: Settings, pos_weight: Tensor) -> nn.Module:
    return nn.BCEWithLogitsLoss(pos_weight=pos_weight)


LOSSES: dict[str, Callable[[Settings, Tensor], nn.Module]] = {"bce": _bce}


def create_loss(settings: Settings) -> nn.Module:
    """The loss that the settings name: (B, K) logits, (B, K) targets -> mean over all elements.

    `bce` is binary cross-entropy on each label by itself, since an X-ray can have several labels of one device;
    `pos_weight` multiplies the positives' term.

    Raises:
        SettingsError: no such loss.
    """
    create = look_up(LOSSES, settings.loss_func, "loss_func")
    pos_weight = torch.tensor([settings.pos_weight.get(label, 1.0) for label in settings.label_columns])
    return create(settings, pos_weight)
