"""The classifier: normalisation inside, logits in label order."""

import dataclasses

import pytest
import torch

from catheters.labels import RANZCR_HEADS
from catheters.models.classifier import create_classifier
from catheters.models.heads import LinearHead
from catheters.settings import Settings
from tests.models.test_backbone import FAMILIES


@pytest.mark.parametrize("classifier", ["linear", "attention"])
@pytest.mark.parametrize("backbone_model", FAMILIES)
def test_forward_and_backward_of_every_family(settings: Settings, backbone_model: str, classifier: str) -> None:
    torch.manual_seed(0)
    settings = dataclasses.replace(
        settings, backbone_model=backbone_model, classifier=classifier, heads=dict(RANZCR_HEADS)
    )
    model = create_classifier(settings, 0.5, 0.25)
    images = torch.randint(0, 256, (2, 1, 64, 64), dtype=torch.uint8)
    logits = model(images)
    assert logits.shape == (2, 11)
    logits.sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


def test_normalisation_by_hand(settings: Settings) -> None:
    model = create_classifier(settings, mean=0.4, std=0.2).eval()
    images = torch.randint(0, 256, (2, 1, 32, 32), dtype=torch.uint8)
    with torch.inference_mode():
        features = model.backbone((images.double() / 255 - 0.4).div(0.2).float())
        assert isinstance(model.head, LinearHead)
        expected = features @ model.head.linear.weight.T + model.head.linear.bias
        assert torch.allclose(model(images), expected, atol=1e-5)


def test_drop_rate(settings: Settings) -> None:
    model = create_classifier(dataclasses.replace(settings, drop_rate=0.5), 0.5, 0.25)
    assert isinstance(model.head, LinearHead)
    assert model.head.dropout.p == 0.5
