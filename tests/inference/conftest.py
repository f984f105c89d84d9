"""Models to look into."""

import dataclasses
from pathlib import Path

import pytest
import torch

from catheters.checkpoints.checkpoint import Checkpoint
from catheters.checkpoints.parts import build_classifier, build_preprocessing
from catheters.config.settings import Settings
from catheters.evaluation.ensemble import EnsembleSpec
from catheters.inference.loading import LoadedMember, Models
from catheters.labels import RANZCR_HEADS
from catheters.models.heads import LinearHead


def make_checkpoint(seed: int = 0, **changes: object) -> Checkpoint:
    """Random weights, as training would keep them."""
    settings = Settings(**{"backbone_model": "test_resnet", "pretrained": False, "image_size": 128, **changes})  # type: ignore[arg-type]
    if settings.classifier == "attention":
        settings = dataclasses.replace(settings, heads=dict(RANZCR_HEADS))
    torch.manual_seed(seed)
    model = build_classifier(settings, 0.5, 0.25).eval()
    last = model.head.linear if isinstance(model.head, LinearHead) else model.head.outputs
    with torch.no_grad():
        spread = model(make_images()).logits.std()
        for parameter in last.parameters():
            parameter.div_(spread)  # predictions that differ from one half, and from each other
    return Checkpoint(
        file=Path(f"{seed}.pt"),
        model=model,
        settings=settings,
        preprocessing=build_preprocessing(settings),
        feature_space=None,
        line_settings=settings,
    )


def make_models(*checkpoints: Checkpoint) -> Models:
    return Models(
        members=(LoadedMember(name="run", checkpoints=checkpoints),),
        spec=EnsembleSpec(method="mean", weights={"run": 1.0}),
        labels=checkpoints[0].settings.label_columns,
        calibrator=None,
        thresholds=None,
    )


def make_images() -> torch.Tensor:
    """(3, 1, 128, 128) uint8: blurred noise."""
    noise = torch.rand((3, 1, 8, 8), generator=torch.Generator().manual_seed(0))
    return (torch.nn.functional.interpolate(noise, size=128, mode="bilinear") * 255).to(torch.uint8)


@pytest.fixture
def images() -> torch.Tensor:
    """The same."""
    return make_images()
