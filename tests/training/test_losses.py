"""Losses against float64 values worked out from the definition."""

import math

import pytest
import torch

from catheters.settings import Settings, SettingsError
from catheters.training.losses import create_loss


def test_bce_with_pos_weight_by_definition() -> None:
    settings = Settings(label_columns=("a", "b"), pos_weight={"b": 2.0})
    logits = [[0.3, -1.2], [2.0, 0.7]]
    targets = [[1.0, 0.0], [0.0, 1.0]]
    expected = 0.0
    for logit_row, target_row in zip(logits, targets, strict=True):
        for weight, logit, target in zip((1.0, 2.0), logit_row, target_row, strict=True):
            probability = 1 / (1 + math.exp(-logit))
            expected -= (weight * target * math.log(probability) + (1 - target) * math.log(1 - probability)) / 4
    loss = create_loss(settings)(torch.tensor(logits), torch.tensor(targets))
    assert float(loss) == pytest.approx(expected, rel=1e-6)


def test_unknown_loss() -> None:
    with pytest.raises(SettingsError, match="loss_func: 'bcee' is not known; did you mean 'bce'"):
        create_loss(Settings(loss_func="bcee"))
