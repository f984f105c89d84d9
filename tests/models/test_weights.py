"""Weights from a file: timm's, ours and other programs'; what is taken is said, what does not fit is refused."""

import argparse
import dataclasses
import pickle
from collections import defaultdict, deque
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch

from catheters.checkpoints.checkpoint import load_checkpoint, save_checkpoint
from catheters.checkpoints.parts import build_classifier
from catheters.config.settings import Settings
from catheters.errors import UserError
from catheters.labels import RANZCR_HEADS
from catheters.models.weight_files import read_weight_file
from tests.models.test_backbone import FAMILIES, create


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
    backbone = create("test_resnet", str(file), 64)
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
        create("test_resnet", str(tmp_path / "absent.pth"), 64)
    (tmp_path / "text.pth").write_text("no weights")
    with pytest.raises(UserError, match=r"text\.pth: not a file of weights"):
        create("test_resnet", str(tmp_path / "text.pth"), 64)


@pytest.mark.parametrize("name", FAMILIES)
def test_best_pt_into_single_and_multi_head(settings: Settings, tmp_path: Path, name: str) -> None:
    """Pretraining on other labels, then both kinds of classifier: the whole backbone, and nothing of the head."""
    other = dataclasses.replace(settings, backbone_model=name, label_columns=("Mass", "Nodule"), image_size=64)
    torch.manual_seed(1)
    source = build_classifier(other, 0.4, 0.2)
    save_checkpoint(tmp_path / "best.pt", source, other, {}, {"fold": 0, "epoch": 1, "macro_auc": 0.5})
    expected = source.backbone.state_dict()
    settings = dataclasses.replace(
        settings, backbone_model=name, pretrained=str(tmp_path / "best.pt"), heads=dict(RANZCR_HEADS)
    )
    torch.manual_seed(2)
    for classifier in ("linear", "attention"):
        model = build_classifier(dataclasses.replace(settings, classifier=classifier), 0.5, 0.25)
        for key, value in model.backbone.state_dict().items():
            assert torch.equal(value, expected[key]), key
        assert float(model.mean) == 0.5
        assert model.origin == (
            f"{name}: {len(expected)} of its {len(expected)} tensors taken from {tmp_path / 'best.pt'}; "
            "not taken: mean (1), std (1), head.linear (2)"
        )


@pytest.mark.parametrize(
    "heads", [dict(RANZCR_HEADS), {"all": Settings().label_columns}], ids=["8 maps", "2 maps, 3 channels as of RGB"]
)
def test_best_pt_of_a_run_that_sees_maps(settings: Settings, tmp_path: Path, heads: dict[str, Any]) -> None:
    """The image is seen as there, the maps are left out; so are the weights of the first stage, which go with it."""
    finder = dataclasses.replace(
        settings, heads=heads, lines="auxiliary", line_stride=2, annotation_table="train_annotations.csv"
    )
    seeing = dataclasses.replace(settings, heads=heads, lines="input", first_stage=str(tmp_path / "first"))
    scores = {"fold": 0, "epoch": 1, "macro_auc": 0.5}
    torch.manual_seed(1)
    save_checkpoint(tmp_path / "first.pt", build_classifier(finder, 0.4, 0.2), finder, {}, scores)
    source, first = build_classifier(seeing, 0.4, 0.2), load_checkpoint(tmp_path / "first.pt")
    save_checkpoint(tmp_path / "best.pt", source, seeing, {}, scores, [first])
    torch.manual_seed(2)
    plain = dataclasses.replace(settings, pretrained=str(tmp_path / "best.pt"), heads={})
    num_maps = 2 * len(heads)
    for changes in ({}, {"heads": heads, "lines": "input", "first_stage": "other"}):
        model = build_classifier(dataclasses.replace(plain, **changes), 0.5, 0.25)
        weights, expected = model.backbone.state_dict(), source.backbone.state_dict()
        stem = next(iter(expected))
        assert expected[stem].shape[1] == 1 + num_maps and expected[stem][:, 1:].any()
        assert torch.equal(weights[stem][:, :1], expected[stem][:, :1])
        assert not weights[stem][:, 1:].any()
        assert all(torch.equal(weights[name], expected[name]) for name in expected if name != stem)
        assert model.origin == (
            f"test_resnet: {len(expected)} of its {len(expected)} tensors taken from {tmp_path / 'best.pt'} (of "
            f"{stem} the image's channel, not those of {num_maps} maps); not taken: mean (1), std (1), "
            f"head.linear (2), first_stage ({len(first.model.state_dict())})"
        )


@pytest.mark.parametrize("prefix", ["model.", "module.", "net.encoder."])
@pytest.mark.parametrize("key", [None, "model", "state_dict"])
def test_foreign_state_dicts(tmp_path: Path, prefix: str, key: str | None) -> None:
    """Another program's file of an RGB model with 5 classes, some head of its own and an entry that is no tensor."""
    source = timm.create_model("test_resnet", num_classes=5)
    weights = {prefix + name: value for name, value in source.state_dict().items()}
    weights["criterion.weight"] = torch.ones(5)
    del weights[f"{prefix}bn1.num_batches_tracked"]
    weights[f"{prefix}layer1.index"] = torch.arange(3)
    torch.save({key: weights, "epoch": 7} if key else weights, tmp_path / "theirs.pth")
    settings = Settings(backbone_model="test_resnet", pretrained=str(tmp_path / "theirs.pth"), image_size=64)
    model = build_classifier(settings, 0.5, 0.25)
    expected = source.state_dict()
    for name, value in model.backbone.state_dict().items():
        if name == "conv1.0.weight":
            assert torch.allclose(value, expected[name].sum(dim=1, keepdim=True), atol=1e-6)
        elif name != "bn1.num_batches_tracked":
            assert torch.equal(value, expected[name]), name
    num_wanted = len(model.backbone.state_dict())
    assert f"{num_wanted} of its {num_wanted} tensors taken" in model.origin
    shown = prefix.removeprefix("module.")  # timm strips that of torch's DataParallel
    assert model.origin.endswith(f"not taken: {shown}fc (2), criterion (1), {shown}layer1 (1)")


def test_a_file_without_weights_by_name(tmp_path: Path) -> None:
    torch.save({"epoch": 3, "optimizer": {"lr": 0.1}}, tmp_path / "state.pth")
    with pytest.raises(UserError, match=r"state\.pth: no weights by name in it; .* it has: epoch, optimizer"):
        create("test_resnet", str(tmp_path / "state.pth"), 64)


@pytest.mark.parametrize(
    ("source", "target"), [("test_efficientnet", "test_resnet"), ("resnet18", "resnet34"), ("resnet34", "resnet18")]
)
def test_weights_of_another_model_are_refused(tmp_path: Path, source: str, target: str) -> None:
    """timm by itself takes what fits and leaves the rest random: resnet18's 119 of resnet34's 216 tensors, say."""
    torch.save(timm.create_model(source).state_dict(), tmp_path / "other.pth")
    with pytest.raises(UserError, match=rf"other\.pth: not weights of {target}: \d+ tensors differ from its \d+; "):
        create(target, str(tmp_path / "other.pth"), 64)


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('the pickle ran')",)


class Metric:
    """A class of another program's."""


def test_pickle_bomb_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bomb.pth").write_bytes(pickle.dumps({"state_dict": Bomb()}, protocol=2))
    with pytest.raises(UserError, match=r"bomb\.pth: not a file of weights"):
        create("test_resnet", str(tmp_path / "bomb.pth"), 64)
    torch.save({"state_dict": timm.create_model("test_resnet").state_dict(), "bomb": Bomb()}, tmp_path / "zip.pth")
    with pytest.raises(UserError, match=r"zip\.pth: not a file of weights alone: it holds exec, which could run code"):
        create("test_resnet", str(tmp_path / "zip.pth"), 64)


def foreign_checkpoints(weights: dict[str, torch.Tensor]) -> dict[str, object]:
    """What people save around weights."""
    other = {name: torch.zeros_like(value) for name, value in weights.items()}
    counts: defaultdict[str, int] = defaultdict(int)
    counts["seen"] += 3
    namespace = argparse.Namespace(lr=0.1, out=Path("runs"), betas=(0.9, 0.99))
    return {
        "timm": {"state_dict": weights, "args": namespace, "epoch": 3, "metric": np.float64(0.9)},
        "timm with an average": {"state_dict": other, "state_dict_ema": weights, "args": namespace},
        "kaggle": {"model": weights, "preds": np.arange(6.0).reshape(2, 3), "score": np.float32(0.97)},
        "model_state_dict": {"optimizer_state_dict": {"state": {0: {"m": torch.ones(3)}}}, "model_state_dict": weights},
        "net": {"net": weights, "acc": 0.5},
        "weights": {"weights": weights, "counts": counts, "history": deque([1.0, 2.0], maxlen=4)},
        "lightning": {
            "state_dict": {f"model.{name}": value for name, value in weights.items()},
            "hyper_parameters": {"root": Path("data"), "size": torch.Size([3, 4])},
            "callbacks": {"EarlyStopping": {"best_score": torch.tensor(0.5)}},
        },
        "in a list in a namespace": argparse.Namespace(models=[{"a": torch.ones(2)}, weights]),
    }


@pytest.mark.parametrize("is_zip", [True, False])
@pytest.mark.parametrize("name", foreign_checkpoints({}))
def test_what_people_save_around_weights(tmp_path: Path, name: str, is_zip: bool) -> None:
    """The largest dict of tensors is found, in torch's format of today and in the one before 1.6."""
    source = timm.create_model("test_resnet", num_classes=5, in_chans=1)
    file = tmp_path / "theirs.pth"
    torch.save(foreign_checkpoints(source.state_dict())[name], file, _use_new_zipfile_serialization=is_zip)
    expected = source.state_dict()
    for key, value in create("test_resnet", str(file), 64).state_dict().items():
        assert torch.equal(value, expected[key]), key
    assert read_weight_file(file).own is None


@pytest.mark.parametrize("kind", ["a class beside them", "a whole model"])
def test_what_cannot_be_read_says_how_to_save_it_anew(tmp_path: Path, kind: str) -> None:
    """The line of Python that the message ends with does it."""
    source = timm.create_model("test_resnet", num_classes=5, in_chans=1)
    file = tmp_path / "their's.pth"
    torch.save(source if kind == "a whole model" else {"state_dict": source.state_dict(), "metric": Metric()}, file)
    with pytest.raises(UserError, match="not a file of weights alone: it holds ") as error:
        create("test_resnet", str(file), 64)
    message = str(error.value)
    assert "\n" not in message
    assert ("timm.models" if kind == "a whole model" else "tests.models.test_weights.Metric") in message
    exec(message[message.index("import torch") :])
    expected = source.state_dict()
    backbone = create("test_resnet", str(tmp_path / "their's_weights.pth"), 64)
    for key, value in backbone.state_dict().items():
        assert torch.equal(value, expected[key]), key


def test_a_flipped_bit_is_refused(tmp_path: Path) -> None:
    source = timm.create_model("test_resnet", num_classes=5, in_chans=1)
    file = tmp_path / "weights.pth"
    torch.save(source.state_dict(), file)
    whole = bytearray(file.read_bytes())
    pixels = max((value for value in source.state_dict().values()), key=torch.Tensor.numel).numpy().tobytes()
    whole[whole.index(pixels) + 100] ^= 0x40
    file.write_bytes(whole)
    with pytest.raises(UserError, match=r"pretrained=.*weights\.pth: damaged \(.* is not what was written\)"):
        create("test_resnet", str(file), 64)
