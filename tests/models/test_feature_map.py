"""Feature maps of all kinds of timm models under attention heads: what they are, what learns, what is said."""

import dataclasses

import pytest
import timm
import torch
from torch import Tensor, nn

from catheters.checkpoints.parts import build_classifier
from catheters.config.settings import Settings
from catheters.data.batch import Batch
from catheters.errors import SettingsError
from catheters.models.backbone import create_backbone
from catheters.models.classifier import Classifier
from catheters.models.feature_map import find_feature_map
from catheters.runs.build import build_step

CPU = torch.device("cpu")
# name, channels of the map, places along a side at 64 px
MODELS = [
    ("rexnet_100", 1280, 2),
    ("mobilenetv3_small_050", 1024, 2),  # its last convolution stands after the pooling
    ("test_mambaout", 256, 2),  # (B, h, w, C)
    ("test_vit", 64, 4),  # tokens
    ("efficientvit_b0", 128, 2),  # pools whatever is asked for
    ("levit_128s", 384, 1),  # keeps what it makes of parameters in evaluation mode
    ("efficientvim_m1", 320, 1),  # several tensors
]
SLOW = [
    ("hgnetv2_b0", 2048, 2),
    ("ghostnet_100", 1280, 2),
    ("beit_base_patch16_224", 768, 4),
    ("coat_tiny", 152, 2),
    ("pit_ti_224", 256, 2),
    ("vgg11", 512, 2),  # a map of one place after its dense layers
]


def settings_of(name: str, image_size: int = 64) -> Settings:
    return Settings(
        backbone_model=name,
        pretrained=False,
        image_size=image_size,
        classifier="attention",
        label_columns=("a", "b"),
        heads={"one": ("a",), "two": ("b",)},
        batch_size=2,
        channels_last=False,
        device="cpu",
    )


def random_images(num_images: int, size: int = 64) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (num_images, 1, size, size), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize(
    ("name", "num_channels", "side"), [*MODELS, *(pytest.param(*values, marks=pytest.mark.slow) for values in SLOW)]
)
def test_attention_heads_learn_from_any_model(name: str, num_channels: int, side: int) -> None:
    """A map of the right shape; a gradient for every parameter that learns, and none for those that are frozen."""
    settings = settings_of(name)
    torch.manual_seed(0)
    model = build_classifier(settings, 0.5, 0.25)
    assert model.training
    step = build_step(settings, model, 2, CPU)
    images, targets = random_images(2), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert torch.isfinite(step(Batch(images=images, targets=targets)).loss)
    by_timm = timm.create_model(name, pretrained=False, num_classes=0, **fixed_size(name))
    still = {f"backbone.{key}" for key, value in by_timm.named_parameters() if not value.requires_grad}
    frozen = {key for key, value in model.named_parameters() if not value.requires_grad} - still
    for key in frozen:
        model.get_parameter(key).requires_grad_(True)
    model(images).logits.square().sum().backward()
    without = {key for key, value in model.named_parameters() if value.grad is None} - still
    assert without == frozen
    with torch.inference_mode():
        assert model.eval().features(images).seen.shape == (2, num_channels, side, side)


def fixed_size(name: str) -> dict[str, int]:
    config = timm.get_pretrained_cfg(name)
    return {"img_size": 64} if config is not None and config.fixed_input_size else {}


def reference_map(model: Classifier, pixels: Tensor) -> Tensor:
    """What timm's own classification averages, or of tokens those with a place, put where they belong."""
    backbone = model.backbone
    features = backbone.forward_features(pixels)  # type: ignore[operator]
    if features.ndim == 3:
        side = 64 // backbone.patch_embed.patch_size[0]  # type: ignore[index, operator, union-attr]
        tokens = features[:, backbone.num_prefix_tokens :]  # type: ignore[misc]
        return torch.stack([channel.unflatten(1, (side, side)) for channel in tokens.unbind(2)], dim=1)
    map_of_head: Tensor = backbone.forward_head(features)  # type: ignore[operator]
    return map_of_head if map_of_head.shape[1] > map_of_head.shape[3] else map_of_head.permute(0, 3, 1, 2)


@pytest.mark.parametrize(
    "name", ["rexnet_100", "efficientnet_b0", "mobilenetv3_small_050", "test_mambaout", "test_vit"]
)
def test_the_map_is_that_of_timms_last_features(name: str) -> None:
    torch.manual_seed(0)
    model = build_classifier(settings_of(name), 0.5, 0.25).eval()
    images = random_images(2)
    with torch.inference_mode():
        expected = reference_map(model, model.normalise(images))
        assert torch.equal(model.features(images).seen, expected)


@pytest.mark.parametrize("name", ["rexnet_100", "seresnet50", "efficientnet_b0", "resnest14d", "test_convnext"])
def test_maps_of_version_0_2_0_stay(name: str) -> None:
    """There the heads read what a backbone without pooling returned, of `num_features` channels."""
    settings = settings_of(name)
    torch.manual_seed(3)
    model = build_classifier(settings, 0.5, 0.25)
    after = torch.rand(4)
    torch.manual_seed(3)
    backbone = create_backbone(name, pretrained=False, image_shape=settings.image_shape, is_pooled=False)[0]
    assert model.head.hidden_weight.shape == (2, backbone.num_features, backbone.num_features)
    for (key, value), expected in zip(model.backbone.state_dict().items(), backbone.state_dict().values(), strict=True):
        assert torch.equal(value, expected), key
    images = random_images(2)
    with torch.inference_mode():
        expected_logits = model.eval().head(backbone.eval()(model.normalise(images)))
        assert torch.equal(model(images).logits, expected_logits)
    assert {key.partition(".")[0] for key in model.state_dict()} == {"backbone", "head", "mean", "std"}
    torch.manual_seed(3)
    build_classifier(settings, 0.5, 0.25)
    assert torch.equal(torch.rand(4), after)


@pytest.mark.parametrize("name", ["test_vit", "test_mambaout", "efficientvit_b0"])
def test_gradient_checkpointing_changes_no_gradient(name: str) -> None:
    gradients = []
    for grad_checkpointing in (False, True):
        torch.manual_seed(0)
        settings = dataclasses.replace(settings_of(name), grad_checkpointing=grad_checkpointing)
        model = build_classifier(settings, 0.5, 0.25)
        model.features(random_images(2)).seen.square().mean().backward()
        gradients.append({key: value.grad for key, value in model.backbone.named_parameters() if value.requires_grad})
    assert gradients[0].keys() == gradients[1].keys()
    for key, expected in gradients[0].items():
        assert torch.allclose(gradients[1][key], expected, rtol=1e-4, atol=1e-6), key


class WithoutMap(nn.Module):
    """A model of two features that no place belongs to."""

    num_features = 2

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64 * 64, 2)

    def forward(self, pixels: Tensor) -> Tensor:
        features: Tensor = self.linear(pixels.flatten(1))
        return features


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (64, "backbone_model=none on images of 64 x 64 px: .*it has no feature map for attention heads; set classif"),
        (32, "backbone_model=none on images of 32 x 32 px: .*shapes cannot be multiplied.*; change image_size or back"),
    ],
)
def test_a_model_without_a_map(size: int, message: str) -> None:
    model = WithoutMap()
    with pytest.raises(SettingsError, match=message) as error:
        find_feature_map(model, "none", (size, size))
    assert "\n" not in str(error.value)
    assert model.training
