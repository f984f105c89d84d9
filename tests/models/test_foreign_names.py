"""Weights as other libraries name them, and at other image sizes: DINOv2 of transformers, timm's own files."""

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn

from catheters.errors import UserError
from tests.models.test_backbone import create


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
    "name", ["test_vit", "swin_tiny_patch4_window7_224", "eva02_tiny_patch14_224", "hiera_tiny_224"]
)
def test_timms_own_weights_at_another_size(name: str, tmp_path: Path) -> None:
    """What depends on the image's size is resampled; everything else is taken as it is."""
    torch.manual_seed(0)
    source = timm.create_model(name, num_classes=5, **({"img_size": 160} if name != "hiera_tiny_224" else {}))
    torch.save(source.state_dict(), tmp_path / "theirs.pth")
    size = 224
    backbone = create(name, str(tmp_path / "theirs.pth"), size)
    expected = source.state_dict()
    same = [key for key, value in backbone.state_dict().items() if value.shape == expected[key].shape]
    assert len(same) > 0.8 * len(backbone.state_dict())
    assert all(torch.equal(backbone.state_dict()[key], expected[key]) for key in same if value_kept(key))


def value_kept(key: str) -> bool:
    """Whether a tensor is learnt, and no table of indices that follows the size."""
    return "relative_position_index" not in key and "attn_mask" not in key


def test_files_of_another_model_are_still_refused(dinov2: nn.Module, tmp_path: Path) -> None:
    torch.save(as_transformers(dinov2.state_dict()), tmp_path / "model.bin")
    with pytest.raises(UserError, match=r"model\.bin: not weights of test_vit: .* tensors differ from its"):
        create("test_vit", str(tmp_path / "model.bin"), 160)
