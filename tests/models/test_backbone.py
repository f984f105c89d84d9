"""Backbones: four families and others, pretrained weights from a file, and no silent random start."""

import pickle
from pathlib import Path

import pytest
import timm
import torch

from catheters.errors import UserError
from catheters.models.backbone import create_backbone

FAMILIES = ["rexnet_100", "seresnet50", "efficientnet_b0", "resnest14d"]


@pytest.mark.parametrize("name", [*FAMILIES, "resnet10t", "vit_tiny_patch16_224"])
def test_one_grey_channel_in_features_out(name: str) -> None:
    size = 64
    backbone = create_backbone(name, False, size).eval()
    with torch.inference_mode():
        features = backbone(torch.randn(2, 1, size, size))
    assert features.shape == (2, backbone.head_hidden_size)


def test_unknown_name() -> None:
    with pytest.raises(UserError, match="backbone_model: 'resnest50' is not a timm model; did you mean 'resnest50d'"):
        create_backbone("resnest50", False, 64)


def test_no_network_is_one_line_and_no_random_start() -> None:
    with pytest.raises(UserError, match="pretrained=True: the weights of resnest14d could not be downloaded") as error:
        create_backbone("resnest14d", True, 64)
    assert "pretrained=False" in str(error.value)
    assert "\n" not in str(error.value)


def test_model_without_weights() -> None:
    assert not timm.get_pretrained_cfg("seresnet18").has_weights
    with pytest.raises(UserError, match="No pretrained weights exist for seresnet18"):
        create_backbone("seresnet18", True, 64)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_weights_from_a_file(tmp_path: Path, suffix: str) -> None:
    """RGB ImageNet-like weights: the stem is summed over colours, the classifier dropped, the rest taken as it is."""
    source = timm.create_model("test_resnet", num_classes=7)
    file = tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save(source.state_dict(), file)
    else:
        from safetensors.torch import save_file

        save_file(source.state_dict(), file)
    backbone = create_backbone("test_resnet", str(file), 64)
    expected = source.state_dict()
    taken = backbone.state_dict()
    stem = next(name for name, value in expected.items() if value.ndim == 4)
    assert expected[stem].shape[1] == 3
    for name, value in taken.items():
        if name == stem:
            assert torch.allclose(value, expected[name].sum(dim=1, keepdim=True), atol=1e-6)
        else:
            assert torch.equal(value, expected[name]), name


def test_wrong_weight_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        create_backbone("test_resnet", str(tmp_path / "absent.pth"), 64)
    (tmp_path / "text.pth").write_text("no weights")
    with pytest.raises(UserError, match=r"text\.pth: not a file of weights"):
        create_backbone("test_resnet", str(tmp_path / "text.pth"), 64)


@pytest.mark.parametrize(
    ("source", "target"), [("test_efficientnet", "test_resnet"), ("resnet18", "resnet34"), ("resnet34", "resnet18")]
)
def test_weights_of_another_model_are_refused(tmp_path: Path, source: str, target: str) -> None:
    """timm by itself takes what fits and leaves the rest random: resnet18's 119 of resnet34's 216 tensors, say."""
    torch.save(timm.create_model(source).state_dict(), tmp_path / "other.pth")
    with pytest.raises(UserError, match=rf"other\.pth: not weights of {target}: \d+ of \d+ differ; "):
        create_backbone(target, str(tmp_path / "other.pth"), 64)


def test_weights_under_other_names_are_refused(tmp_path: Path) -> None:
    weights = timm.create_model("test_resnet").state_dict()
    torch.save({f"backbone.{name}": value for name, value in weights.items()}, tmp_path / "renamed.pth")
    with pytest.raises(UserError, match=r"renamed\.pth: not weights of test_resnet"):
        create_backbone("test_resnet", str(tmp_path / "renamed.pth"), 64)


def test_unknown_tag() -> None:
    with pytest.raises(UserError, match=r"backbone_model=resnet18\.nope: Invalid pretrained tag"):
        create_backbone("resnet18.nope", False, 64)


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('the pickle ran')",)


def test_pickle_bomb_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bomb.pth").write_bytes(pickle.dumps({"state_dict": Bomb()}, protocol=2))
    with pytest.raises(UserError, match=r"bomb\.pth: not a file of weights"):
        create_backbone("test_resnet", str(tmp_path / "bomb.pth"), 64)
