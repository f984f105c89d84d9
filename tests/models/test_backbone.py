"""Backbones: four families and others, pretrained weights from a file, and no silent random start."""

import functools
from pathlib import Path

import pytest
import timm
import torch
from timm.layers import DropPath

from catheters.errors import SettingsError, UserError
from catheters.models.backbone import check_patches, create_backbone


def create(name: str, pretrained: bool | str, image_size: int) -> torch.nn.Module:
    return create_backbone(name, pretrained=pretrained, image_shape=(image_size, image_size), is_pooled=True)[0]


FAMILIES = ["rexnet_100", "seresnet50", "efficientnet_b0", "resnest14d"]


@pytest.mark.parametrize("name", [*FAMILIES, "resnet10t", "vit_tiny_patch16_224"])
def test_one_grey_channel_in_features_out(name: str) -> None:
    size = 64
    backbone = create(name, False, size).eval()
    with torch.inference_mode():
        features = backbone(torch.randn(2, 1, size, size))
    assert features.shape == (2, backbone.head_hidden_size)


def test_unknown_name() -> None:
    with pytest.raises(UserError, match="backbone_model: 'resnest50' is not a timm model; did you mean 'resnest50d'"):
        create("resnest50", False, 64)


def test_no_network_is_one_line_and_no_random_start() -> None:
    with pytest.raises(UserError, match=r"pretrained=True: the weights of timm/resnest14d\S+ could not be") as error:
        create("resnest14d", True, 64)
    assert "pretrained=False" in str(error.value)
    assert "\n" not in str(error.value)


def test_model_without_weights() -> None:
    assert not timm.get_pretrained_cfg("seresnet18").has_weights
    with pytest.raises(UserError, match="No pretrained weights exist for seresnet18"):
        create("seresnet18", True, 64)


def test_unknown_tag() -> None:
    with pytest.raises(UserError, match=r"backbone_model=resnet18\.nope: Invalid pretrained tag"):
        create("resnet18.nope", False, 64)


@pytest.mark.parametrize("name", FAMILIES)
def test_drop_path(name: str) -> None:
    create = functools.partial(
        create_backbone, pretrained=False, image_shape=(64, 64), is_pooled=True, drop_path_rate=0.2
    )
    backbone = create(name)[0]
    rates = [module.drop_prob for module in backbone.modules() if isinstance(module, DropPath)]
    assert 0.15 < max(rates) < 0.201
    with pytest.raises(UserError, match=r"backbone_model=vgg11: timm cannot make it: .*drop_path_rate"):
        create("vgg11")


@pytest.mark.parametrize("name", FAMILIES)
def test_gradient_checkpointing_changes_no_gradient(name: str) -> None:
    gradients = []
    for grad_checkpointing in (False, True):
        torch.manual_seed(0)
        backbone = create_backbone(
            name, pretrained=False, image_shape=(32, 32), is_pooled=False, grad_checkpointing=grad_checkpointing
        )[0]
        saved: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, s=saved: s.append(t.nbytes) or t, lambda t: t):
            features = backbone(torch.randn(2, 1, 64, 64))
        features.square().mean().backward()
        gradients.append((sum(saved), [parameter.grad for parameter in backbone.parameters()]))
    (memory, expected), (less_memory, got) = gradients
    assert less_memory < 0.5 * memory
    for one, other in zip(expected, got, strict=True):
        assert one is not None
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-7)


def test_gradient_checkpointing_that_is_not_there() -> None:
    with pytest.raises(UserError, match="grad_checkpointing=True: inception_v3 has none"):
        create_backbone("inception_v3", pretrained=False, image_shape=(96, 96), is_pooled=True, grad_checkpointing=True)


@pytest.mark.parametrize("name", ["test_resnet", "rexnet_100", "seresnet18", "efficientnet_b0", "resnest14d"])
def test_pretrained_weights_beside_maps(name: str, tmp_path: Path) -> None:
    """The image is seen as by the model without maps, whatever the maps hold, until training gives them weights."""
    torch.manual_seed(0)
    plain = create(name, False, 64).eval()
    file = tmp_path / "weights.pth"
    torch.save(plain.state_dict(), file)
    wider, _ = create_backbone(name, pretrained=str(file), image_shape=(64, 64), is_pooled=True, num_input_maps=8)
    image, maps = torch.randn(2, 1, 64, 64), torch.rand(2, 8, 64, 64)
    with torch.no_grad():
        expected, seen = plain(image), wider.eval()(torch.cat([image, maps], 1))
    torch.testing.assert_close(seen, expected, rtol=1e-4, atol=1e-5)


def test_patches_that_do_not_divide_an_image() -> None:
    """The last pixels would not be seen; convolutions see all of them."""
    for name, size, message in (
        ("vit_tiny_patch16_224", 230, "patches of 16 px and would not see the last 6; 224 or 240 is a multiple of 16"),
        ("vit_tiny_patch16_224", 224, None),
        ("test_resnet", 230, None),
        ("swin_s3_tiny_224", 230, "patches of 4 px and would not see the last 2; 228 or 232 is a multiple of 4"),
    ):
        backbone = create(name, False, size)
        if message is None:
            check_patches(backbone, name, (224, size))
        else:
            with pytest.raises(SettingsError, match=message):
                check_patches(backbone, name, (224, size))


def test_a_first_layer_that_takes_no_maps(tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    torch.save(create("tresnet_m", False, 64).state_dict(), file)  # it folds 4 x 4 pixels into channels first
    with pytest.raises(SettingsError, match="tresnet_m: its first layer is no convolution of the image"):
        create_backbone("tresnet_m", pretrained=str(file), image_shape=(64, 64), is_pooled=True, num_input_maps=8)
