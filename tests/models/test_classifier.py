"""The classifier: normalisation inside, logits in label order."""

import dataclasses

import pytest
import torch

from catheters.checkpoints.parts import build_classifier
from catheters.config.settings import Settings
from catheters.errors import SettingsError
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


def test_a_model_is_the_same_wherever_it_is_made(settings: Settings) -> None:
    """Checkpoints are loaded where nothing is learnt; a vision transformer's parts are found by a gradient."""
    of_lines = dataclasses.replace(
        settings, backbone_model="test_vit", classifier="attention", lines="pooled", annotation_table="x", image_size=64
    )
    learnt = []
    for is_inference in (False, True):
        with torch.inference_mode(is_inference):
            model = build_classifier(of_lines, 0.5, 0.25)
        learnt.append([name for name, parameter in model.named_parameters() if parameter.requires_grad])
        model(torch.zeros((2, 1, 64, 64), dtype=torch.uint8)).logits.sum().backward()
    assert learnt[0] == learnt[1]


@pytest.mark.parametrize("changes", [{"classifier": "attention"}, {"lines": "auxiliary", "annotation_table": "x"}])
def test_patches_that_do_not_divide_the_image(settings: Settings, changes: dict[str, str]) -> None:
    changed = dataclasses.replace(settings, backbone_model="test_vit", image_size=100, **changes)
    with pytest.raises(SettingsError, match="would not see the last 4; 96 or 112 is a multiple of 16"):
        build_classifier(changed, 0.5, 0.25)
