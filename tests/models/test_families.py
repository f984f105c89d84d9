"""Every family of timm under both classifiers: learning, prediction, heatmap, export, weights at another size.

Or the program says beforehand that it cannot: see REFUSED.
"""

import dataclasses
import re
from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor

from catheters.checkpoints.checkpoint import Checkpoint
from catheters.checkpoints.parts import build_classifier, build_preprocessing
from catheters.config.settings import Settings
from catheters.data.batch import Batch
from catheters.errors import UserError
from catheters.inference.export import export
from catheters.inference.heatmaps import check_maps_of, grad_cam
from catheters.models.heads import LinearHead
from catheters.runs.build import build_step
from catheters.runs.preflight import try_step
from tests.conftest import REPOSITORY
from tests.inference.conftest import make_models
from tests.models.timm_families import FAMILIES, name_of_small_model

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
CLASSIFIERS = ("linear", "attention")
SIZES = (64, 96)
"""Image size that a family learns at, and the one that its weights are loaded at."""
OTHER_SIZES = {
    "crossvit": (240, 480),  # patches of 12 and of 16 px, of the image and of one 14/15 as large
    "deepseek_vit": (70, 112),  # patches of 14 px
    "efficientformer": (224, 256),  # its attention knows 7 x 7 places
    "eva": (70, 112),
    "inception_resnet_v2": (96, 128),  # convolutions without padding leave nothing of a smaller image
    "inception_v3": (96, 128),
    "inception_v4": (96, 128),
}
REFUSED: dict[tuple[str, str], str] = {
    ("byoanet", "load"): r"not weights of .*pos_embed\.height_rel is \(7, 16\), the model's \(11, 16\)",
    ("coat", "heatmap, linear"): "CoaT has neither a feature map nor tokens .* train it with classifier='attention'",
    ("csatv2", "train"): "timm cannot make it: CSATv2 is designed for 3-channel RGB input",
    ("efficientformer", "load"): "images of 256 .*The size of tensor a .* must match the size of tensor b",
    ("efficientformer_v2", "load"): r"not weights of .*attention_biases is \(8, 4\), the model's \(8, 9\)",
    ("gemma4_vit", "export"): "cannot be written as ONNX .*Nodes in a graph must be topologically sorted",
    ("levit", "load"): r"not weights of .*attention_biases is \(4, 16\), the model's \(4, 36\)",
    ("mlp_mixer", "load"): r"not weights of .*linear_tokens\.weight is \(16, 16\), the model's \(36, 36\)",
    ("nest", "load"): r"not weights of .*pos_embed is \(1, 16, 16, 96\), the model's \(1, 16, 36, 96\)",
    ("vision_transformer_sam", "load"): r"not weights of .*attn\.rel_pos_h is \(7, 32\), the model's \(11, 32\)",
}
"""Family, what it cannot do -> what the program says before a run. All others can do everything."""
TOO_SLOW = "130 layers or more, which torch's exporter takes tens of seconds for on a busy machine"
NOT_EXPORTED: dict[str, str] = dict.fromkeys(
    (
        "byoanet",
        "convmixer",
        "crossvit",
        "efficientformer_v2",
        "efficientvim",
        "efficientvit_mit",
        "efficientvit_msra",
        "fastvit",
        "focalnet",
        "gcvit",
        "ghostnet",
        "hardcorenas",
        "hgnet",
        "hrnet",
        "iformer",
        "inception_next",
        "inception_resnet_v2",
        "inception_v3",
        "inception_v4",
        "maxxvit",
        "metaformer",
        "mobilenetv3",
        "mobilenetv5",
        "mobilevit",
        "mvitv2",
        "nasnet",
        "nest",
        "nextvit",
        "pnasnet",
        "pvt_v2",
        "rdnet",
        "regnet",
        "repghost",
        "repvit",
        "rexnet",
        "shvit",
        "swiftformer",
        "vision_transformer_relpos",
        "volo",
        "xception",
        "xception_aligned",
    ),
    TOO_SLOW,
)
"""Family -> why the matrix does not write it as ONNX; `test_export.py` writes a ReXNet."""
OF_TOKENS = (
    "beit",
    "convit",
    "deepseek_vit",
    "deit",
    "eva",
    "gemma4_vit",
    "hiera",
    "levit",
    "mlp_mixer",
    "naflexvit",
    "pit",
    "qwen3_vit",
    "tnt",
    "twins",
    "vgg",
    "vision_transformer",
    "vision_transformer_hybrid",
    "vitamin",
    "xcit",
)
"""Families whose map for attention heads is no output of the backbone, so that both classifiers are exported."""


def create_settings(family: str, classifier: str, size: int) -> Settings:
    return Settings(
        backbone_model=name_of_small_model(family),
        pretrained=False,
        image_size=size,
        classifier=classifier,  # type: ignore[arg-type]
        batch_size=2,
        channels_last=False,
        device="cpu",
    )


def create_images(num_images: int, size: int) -> Tensor:
    """(B, 1, size, size) uint8: blurred noise."""
    noise = torch.rand((num_images, 1, 8, 8), generator=torch.Generator().manual_seed(0))
    return (torch.nn.functional.interpolate(noise, size=size, mode="bilinear") * 255).to(torch.uint8)


def sizes_of(family: str) -> tuple[int, int]:
    return OTHER_SIZES.get(family, SIZES)


def create_checkpoint(family: str, classifier: str) -> Checkpoint:
    """Random weights, as training would keep them, whose predictions differ from one half and from each other."""
    size = sizes_of(family)[0]
    settings = create_settings(family, classifier, size)
    torch.manual_seed(0)
    model = build_classifier(settings, 0.5, 0.25).eval()
    last = model.head.linear if isinstance(model.head, LinearHead) else model.head.outputs
    with torch.no_grad():
        spread = model(create_images(3, size)).logits.std()
        for parameter in last.parameters():
            parameter.div_(spread)
    return Checkpoint(
        file=Path("best.pt"),
        model=model,
        settings=settings,
        preprocessing=build_preprocessing(settings),
        feature_space=None,
        line_settings=settings,
    )


def refuses(family: str, what: str) -> bool:
    return (family, what) in REFUSED


ALL = pytest.mark.parametrize(
    ("family", "classifier"),
    [(family, classifier) for family in FAMILIES for classifier in CLASSIFIERS if not refuses(family, "train")],
)


def test_every_family_of_timm_has_a_place() -> None:
    """A family that is new in timm needs a small model in `timm_families.py`, and rows in REFUSED."""
    modules = [module for module in timm.list_modules() if module != "timm_families"]
    assert sorted(FAMILIES) == sorted(modules)
    for family, (name, _) in FAMILIES.items():
        assert name in timm.list_models(module=family)
    assert {family for family, _ in REFUSED} | set(NOT_EXPORTED) <= set(FAMILIES)


@pytest.mark.parametrize("classifier", CLASSIFIERS)
@pytest.mark.parametrize("family", [family for family, what in REFUSED if what == "train"])
def test_families_that_cannot_read_grey_images_say_so(family: str, classifier: str) -> None:
    with pytest.raises(UserError, match=REFUSED[family, "train"]) as error:
        try_step(create_settings(family, classifier, sizes_of(family)[0]), CPU, 1)
    assert "\n" not in str(error.value)


def test_an_image_size_that_timm_meets_with_an_index_error() -> None:
    """MViTv2 has tables of relative positions for 64 px that are too short for 70."""
    match = "backbone_model=mvitv2_tiny, optimizer=.* cannot learn from 2 images of 70 px: index 15 is out of bounds"
    with pytest.raises(UserError, match=match):
        try_step(create_settings("mvitv2", "linear", 70), CPU, 1)


@ALL
def test_one_step(family: str, classifier: str) -> None:
    """The product's step; then every parameter that is not frozen has a finite gradient."""
    size = sizes_of(family)[0]
    settings = create_settings(family, classifier, size)
    torch.manual_seed(0)
    model = build_classifier(settings, 0.5, 0.25)
    images, targets = create_images(2, size), torch.eye(2, len(settings.label_columns))
    assert torch.isfinite(build_step(settings, model, 2, CPU)(Batch(images=images, targets=targets)).loss)
    model.zero_grad()
    model(images).logits.square().sum().backward()
    for key, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, key
            assert torch.isfinite(parameter.grad).all(), key


@ALL
def test_predictions_and_heatmaps(family: str, classifier: str) -> None:
    """An image's prediction hangs on no other image. Grad-CAM is finite, and speaks for one label at least."""
    checkpoint = create_checkpoint(family, classifier)
    model, images = checkpoint.model, create_images(3, sizes_of(family)[0])
    with torch.inference_mode():
        together = model(images).logits
        alone = torch.cat([model(image[None]).logits for image in images])
        torch.testing.assert_close(torch.sigmoid(together), torch.sigmoid(alone), rtol=0, atol=1e-4)
    if refuses(family, f"heatmap, {classifier}"):
        with pytest.raises(UserError, match=REFUSED[family, f"heatmap, {classifier}"]):
            check_maps_of(checkpoint, CPU)
        return
    check_maps_of(checkpoint, CPU)
    maps = [grad_cam(model, images, column) for column in range(together.shape[1])]
    assert all(torch.isfinite(heat).all() and heat.ndim == 3 for heat in maps)
    assert max(heat.max() for heat in maps) > 0


@ALL
def test_weights_at_another_size(family: str, classifier: str, tmp_path: Path) -> None:
    """Of a model of one size, in one of another: all that does not stand for places is taken bit for bit."""
    weights = create_checkpoint(family, classifier).model.backbone.state_dict()
    torch.save(weights, tmp_path / "weights.pth")
    size = sizes_of(family)[1]
    settings = dataclasses.replace(create_settings(family, classifier, size), pretrained=str(tmp_path / "weights.pth"))
    if refuses(family, "load"):
        with pytest.raises(UserError, match=REFUSED[family, "load"]) as error:
            try_step(settings, CPU, 1)
        assert "\n" not in str(error.value)
        return
    model = build_classifier(settings, 0.5, 0.25).eval()
    learnt = dict(model.backbone.named_parameters())
    for key, value in learnt.items():
        if value.shape == weights[key].shape:
            assert torch.equal(value, weights[key]), key
        else:
            assert key.rpartition(".")[2].startswith(PLACES), key
    with torch.inference_mode():
        assert torch.isfinite(model(create_images(2, size)).logits).all()


PLACES = ("pos_embed", "patch_pos", "rel_pos", "relative_position", "attention_bias")
"""The beginnings of the names of what stands for places."""


@pytest.mark.parametrize(
    ("family", "classifier"),
    [
        (family, classifier)
        for family in FAMILIES
        for classifier in CLASSIFIERS
        if not refuses(family, "train") and family not in NOT_EXPORTED
        if classifier == "linear" or family in OF_TOKENS
    ],
)
def test_export(family: str, classifier: str, tmp_path: Path) -> None:
    """onnxruntime computes what torch does, of batches of 1 and 3; `export` refuses to write the file otherwise."""
    models, file = make_models(create_checkpoint(family, classifier)), tmp_path / "model.onnx"
    if refuses(family, "export"):
        with pytest.raises(UserError, match=REFUSED[family, "export"]) as error:
            export(models, file, half=False)
        assert "\n" not in str(error.value)
        assert not file.exists()
        return
    assert export(models, file, half=False).startswith("onnxruntime's probabilities differ from torch's by ")


def test_the_page_of_backbones_has_the_same_exceptions() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", (REPOSITORY / "docs/reference/backbones.md").read_text(), re.MULTILINE)
    assert rows == sorted({family for family, _ in REFUSED})
