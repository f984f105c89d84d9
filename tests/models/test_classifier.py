"""The classifier: normalisation inside, logits in label order."""

import dataclasses

import torch

from catheters.checkpoints.parts import build_classifier
from catheters.config.settings import Settings
from catheters.models.heads import LinearHead


def test_normalisation_by_hand(settings: Settings) -> None:
    model = build_classifier(settings, mean=0.4, std=0.2).eval()
    images = torch.randint(0, 256, (2, 1, 32, 32), dtype=torch.uint8)
    with torch.inference_mode():
        features = model.backbone((images.double() / 255 - 0.4).div(0.2).float())
        assert isinstance(model.head, LinearHead)
        expected = features @ model.head.linear.weight.T + model.head.linear.bias
        assert torch.allclose(model(images).logits, expected, atol=1e-5)


def test_drop_rate(settings: Settings) -> None:
    model = build_classifier(dataclasses.replace(settings, drop_rate=0.5), 0.5, 0.25)
    assert isinstance(model.head, LinearHead)
    assert model.head.dropout.p == 0.5
