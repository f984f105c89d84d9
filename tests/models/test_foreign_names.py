"""Weights as other libraries name them, and at other image sizes: DINOv2 of transformers, timm's own files."""

import math
import warnings
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn

from catheters.errors import UserError
from catheters.models.backbone import create_backbone
from tests.models.test_backbone import create
from tests.models.timm_families import name_of_small_model


def as_transformers(weights: dict[str, Tensor], prefix: str = "") -> dict[str, Tensor]:
    """DINOv2's tensors of timm under the names that the library transformers gives them."""
    renamed = {f"{prefix}embeddings.mask_token": torch.zeros(1, weights["cls_token"].shape[-1])}
    names = {
        "cls_token": "embeddings.cls_token",
        "pos_embed": "embeddings.position_embeddings",
        "patch_embed.proj.weight": "embeddings.patch_embeddings.projection.weight",
        "patch_embed.proj.bias": "embeddings.patch_embeddings.projection.bias",
        "norm.weight": "layernorm.weight",
        "norm.bias": "layernorm.bias",
    }
    for key, value in weights.items():
        if key in names:
            renamed[prefix + names[key]] = value
            continue
        _, number, rest = key.split(".", 2)
        layer = f"{prefix}encoder.layer.{number}."
        if rest.startswith("attn.qkv."):
            kind = rest.removeprefix("attn.qkv.")
            for part, tensor in zip(("query", "key", "value"), value.chunk(3), strict=True):
                renamed[f"{layer}attention.attention.{part}.{kind}"] = tensor
        elif rest.startswith("attn.proj."):
            renamed[f"{layer}attention.output.dense.{rest.removeprefix('attn.proj.')}"] = value
        elif rest in ("ls1.gamma", "ls2.gamma"):
            renamed[f"{layer}layer_scale{rest[2]}.lambda1"] = value
        else:
            renamed[layer + rest] = value
    return renamed


@pytest.fixture(scope="module")
def dinov2() -> nn.Module:
    """As it is published, at 518 px, but with few blocks and random weights."""
    torch.manual_seed(0)
    model = timm.create_model("vit_small_patch14_dinov2", num_classes=0, depth=2)
    assert model.pos_embed.shape == (1, 1 + 37 * 37, 384)
    nn.init.normal_(model.pos_embed)
    return model


@pytest.mark.parametrize("prefix", ["", "dinov2.", "student.backbone."])
def test_dinov2_of_transformers(dinov2: nn.Module, tmp_path: Path, prefix: str) -> None:
    """Such as RAD-DINO: every tensor at its place, the three of attention joined, RGB summed to grey."""
    weights = dinov2.state_dict()
    torch.save(as_transformers(weights, prefix), tmp_path / "model.bin")
    taken = create_small(tmp_path / "model.bin", 518).state_dict()
    assert taken.keys() == weights.keys()
    for name, value in taken.items():
        expected = weights[name].sum(dim=1, keepdim=True) if name == "patch_embed.proj.weight" else weights[name]
        torch.testing.assert_close(value, expected, rtol=0, atol=1e-6)


def create_small(file: Path, size: int) -> nn.Module:
    """The same model with one channel, at another size."""
    from catheters.models.weights import load_weights

    backbone = timm.create_model("vit_small_patch14_dinov2", num_classes=0, depth=2, in_chans=1, img_size=size)
    line = load_weights(backbone, "vit_small_patch14_dinov2", str(file))
    assert ("pos_embed resampled to this image size" in line) == (size != 518)
    return backbone


@pytest.mark.parametrize(("size", "error"), [(224, 0.01), (56, 0.03)])  # 4 x 4 places are means over many
def test_position_embeddings_at_another_size(dinov2: nn.Module, tmp_path: Path, size: int, error: float) -> None:
    """A smooth embedding stays what it was at the same place of the image; the class token's stays as it is."""
    weights = dinov2.state_dict()
    y, x = (np.mgrid[:37, :37] + 0.5) / 37
    smooth = np.stack([np.sin(2 * x), np.cos(3 * y), x * y, x - y], axis=-1)
    weights["pos_embed"] = weights["pos_embed"].clone()
    weights["pos_embed"][0, 1:, :4] = torch.from_numpy(smooth.reshape(-1, 4)).float()
    torch.save(as_transformers(weights), tmp_path / "model.bin")
    resampled = create_small(tmp_path / "model.bin", size).get_parameter("pos_embed").detach()
    side = size // 14
    assert resampled.shape == (1, 1 + side * side, 384)
    assert torch.equal(resampled[0, 0], weights["pos_embed"][0, 0])
    y, x = (np.mgrid[:side, :side] + 0.5) / side
    expected = np.stack([np.sin(2 * x), np.cos(3 * y), x * y, x - y], axis=-1).reshape(-1, 4)
    inside = ((np.abs(x - 0.5) < 0.4) & (np.abs(y - 0.5) < 0.4)).ravel()
    np.testing.assert_allclose(resampled[0, 1:, :4].numpy()[inside], expected[inside], atol=error)


@pytest.mark.parametrize(
    ("family", "sizes"),
    [
        ("vision_transformer", (96, 160)),
        ("eva", (70, 112)),  # EVA-02; DINOv3 is of the same module, without embeddings that hang on the size
        ("swin_transformer", (64, 96)),
        ("swin_transformer_v2", (64, 96)),
        ("maxxvit", (64, 96)),
        ("convnext", (64, 96)),  # ConvNeXt V2 is of the same module
        ("beit", (64, 96)),
        ("deit", (64, 96)),
    ],
)
def test_weights_at_another_size_are_as_timm_loads_them(family: str, sizes: tuple[int, int], tmp_path: Path) -> None:
    """A file of timm's own kind, RGB stem and classifier in it: every tensor is what timm makes of it."""
    assert_as_timm(name_of_small_model(family), sizes, tmp_path / "theirs.pth")


@pytest.mark.parametrize("name", ["vit_tiny_patch16_dinov3_qkvb", "convnextv2_atto", "test_convnext2"])
def test_weights_by_name_are_as_timm_loads_them(name: str, tmp_path: Path) -> None:
    assert_as_timm(name, (64, 96), tmp_path / "theirs.pth")


def assert_as_timm(name: str, sizes: tuple[int, int], file: Path) -> None:
    config = timm.get_pretrained_cfg(name)
    assert config is not None
    learnt_at, size = ({"img_size": size} if config.fixed_input_size else {} for size in sizes)
    torch.manual_seed(0)
    source = timm.create_model(name, num_classes=5, **learnt_at)
    torch.save(source.state_dict(), file)
    overlay = {"file": str(file), "num_classes": 5, "pool_size": None}
    with warnings.catch_warnings(action="ignore"):  # of timm's resampling, about torch's next versions
        theirs = timm.create_model(name, True, pretrained_cfg_overlay=overlay, in_chans=1, num_classes=0, **size)
    expected, taken = theirs.state_dict(), create(name, str(file), sizes[1]).state_dict()
    assert taken.keys() == expected.keys()
    for key, value in taken.items():
        torch.testing.assert_close(value, expected[key], rtol=0, atol=1e-6, msg=key)


def test_embeddings_that_timms_filter_leaves_are_resampled(tmp_path: Path) -> None:
    """Hiera's, which have no class token: the bicubic interpolation of torch, of the same rows and columns."""
    name = name_of_small_model("hiera")
    torch.manual_seed(0)
    source = timm.create_model(name, num_classes=5, img_size=64)
    torch.save(source.state_dict(), tmp_path / "theirs.pth")
    backbone, origin = create_backbone(
        name, pretrained=str(tmp_path / "theirs.pth"), image_shape=(96, 128), is_pooled=True
    )
    learnt = source.pos_embed.detach().unflatten(1, (16, 16)).permute(0, 3, 1, 2)  # places of 4 px
    expected = torch.nn.functional.interpolate(learnt, (24, 32), mode="bicubic", antialias=True)
    torch.testing.assert_close(backbone.pos_embed.detach(), expected.flatten(2).transpose(1, 2))
    assert "(pos_embed resampled to this image size)" in origin


def test_tables_of_positions_in_a_window_are_resampled(tmp_path: Path) -> None:
    """GCViT's, whose windows follow the image: a table that is a plane over the offsets stays one."""
    name = "gcvit_xxtiny"
    torch.manual_seed(0)
    source = timm.create_model(name, num_classes=5, img_size=64)
    tables = {key: value for key, value in source.state_dict().items() if key.endswith("relative_position_bias_table")}
    weights = source.state_dict() | {key: plane(value.shape) for key, value in tables.items()}
    torch.save(weights, tmp_path / "theirs.pth")
    taken = create(name, str(tmp_path / "theirs.pth"), 128).state_dict()
    grown = [key for key, value in tables.items() if taken[key].shape != value.shape]
    assert grown
    for key in grown:
        side = math.isqrt(len(taken[key]))
        table = taken[key].unflatten(0, (side, side))
        torch.testing.assert_close(table, -table.flip(0, 1), rtol=0, atol=1e-4)  # odd, as the plane is
        assert (table.diff(dim=0) > -1e-5).all()  # beyond the windows learnt in, timm keeps the last value
        assert (table.diff(dim=1) > -1e-5).all()
        torch.testing.assert_close(table[-1, -1], torch.full_like(table[-1, -1], 1.5))


def plane(shape: torch.Size) -> Tensor:
    """((2 w - 1)^2, heads): row offset plus half the column offset, in windows."""
    offsets = torch.linspace(-1, 1, math.isqrt(shape[0]))
    return (offsets[:, None] + offsets / 2).flatten()[:, None].repeat(1, shape[1])


def test_files_of_another_model_are_still_refused(dinov2: nn.Module, tmp_path: Path) -> None:
    torch.save(as_transformers(dinov2.state_dict()), tmp_path / "model.bin")
    with pytest.raises(UserError, match=r"model\.bin: not weights of test_vit: .* tensors differ from its"):
        create("test_vit", str(tmp_path / "model.bin"), 160)
