"""The line decoder and the pooled head, on the pyramid of any timm family."""

import dataclasses
import math

import pytest
import torch

from catheters.checkpoints.parts import build_classifier
from catheters.config.settings import Settings
from catheters.errors import SettingsError
from catheters.labels import RANZCR_HEADS, RANZCR_LABELS
from catheters.models.line_decoder import DECODER_CHANNELS, Decoded
from catheters.models.pooled_head import MAX_TIPS, PooledHead, encode_places, find_peaks
from catheters.models.pyramid import find_pyramid
from tests.models.test_backbone import FAMILIES
from tests.models.test_feature_map import WithoutMap

OTHERS = ("convnext_atto", "vit_tiny_patch16_224", "mobilenetv4_conv_small", "swin_tiny_patch4_window7_224", "vgg11")
"""Maps from stride 4 on, of one size, of other channels than the last features, in another order, from stride 1 on."""


def with_lines(settings: Settings, **changes: object) -> Settings:
    usual = {"lines": "pooled", "image_size": 64, "annotation_table": "train_annotations.csv"}
    return dataclasses.replace(settings, **{**usual, **changes})


def images_of(settings: Settings, number: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (number, 1, *settings.image_shape), dtype=torch.uint8, generator=generator)


@pytest.mark.slow
@pytest.mark.parametrize("classifier", ["linear", "attention"])
@pytest.mark.parametrize("backbone_model", [*FAMILIES, *OTHERS])
def test_every_family_has_lines(settings: Settings, backbone_model: str, classifier: str) -> None:
    """Maps of the asked size; the classifier's own logits are those of the model without a decoder, bit for bit."""
    size = 224 if "224" in backbone_model else 64
    settings = with_lines(
        settings, backbone_model=backbone_model, classifier=classifier, image_size=size, lines="auxiliary"
    )
    torch.manual_seed(0)
    model = build_classifier(settings, 0.5, 0.25).eval()
    torch.manual_seed(0)
    plain = build_classifier(dataclasses.replace(settings, lines=None), 0.5, 0.25).eval()
    images = images_of(settings)
    with torch.inference_mode():
        outputs, without, expected = model(images, with_lines=True), model(images), plain(images)
    assert outputs.line_logits is not None and outputs.tip_logits is not None
    assert outputs.line_logits.shape == outputs.tip_logits.shape == (2, 4, size // 4, size // 4)
    assert torch.equal(outputs.logits, expected.logits)
    assert torch.equal(without.logits, expected.logits)
    assert without.line_logits is None and without.tip_logits is None  # nor is the decoder run


@pytest.mark.parametrize("line_stride", [2, 4, 8])
def test_maps_of_odd_images(settings: Settings, line_stride: int) -> None:
    settings = with_lines(settings, image_size=(70, 101), line_stride=line_stride)
    model = build_classifier(settings, 0.5, 0.25)
    outputs = model(images_of(settings))
    assert outputs.line_logits.shape[2:] == (math.ceil(70 / line_stride), math.ceil(101 / line_stride))
    assert outputs.tip_pixels.shape == (2, 4, MAX_TIPS)
    assert outputs.position_logits.shape == (2, 11, MAX_TIPS)


def test_a_pooled_model_needs_its_decoder_in_each_pass(settings: Settings) -> None:
    """Its logits are the same with and without lines among the outputs, and others than the global ones."""
    settings = with_lines(settings)
    model = build_classifier(settings, 0.5, 0.25).eval()
    images = images_of(settings)
    with torch.inference_mode():
        logits = model(images).logits
        assert torch.equal(model(images, with_lines=True).logits, logits)
        outputs = model(images, with_lines=True)
        assert torch.equal(outputs.global_logits, model.head(model.features(images).seen))
        assert not torch.equal(outputs.global_logits, logits)
        model.train()
        assert model(images).line_logits is not None


def test_noisy_or_by_hand() -> None:
    """One tip that has a label, one that may have it, one that is none; in float64 by the formula."""
    head = PooledHead([[0, 2]], (8, 8)).eval()
    tip_logits = torch.full((1, 1, 8, 8), -9.0)
    tip_logits[0, 0, 1, 2], tip_logits[0, 0, 6, 6] = 3.0, 0.5
    decoded = Decoded(
        features=torch.randn(1, DECODER_CHANNELS, 8, 8), line_logits=torch.zeros(1, 1, 8, 8), tip_logits=tip_logits
    )
    logits = torch.tensor([[-1.0, 0.7, 0.2]])
    with torch.inference_mode():
        result = head(logits, decoded)
    assert result.pixels[0, 0, :2].tolist() == [1 * 8 + 2, 6 * 8 + 6]
    tips = torch.sigmoid(torch.tensor([3.0, 0.5]).double())
    for column in (0, 2):
        labels = torch.sigmoid(result.position_logits[0, column, :2].double())
        absent = (1 - tips * labels).prod()
        # The third candidate is as good as no tip: sigmoid(-9) is 0.0001.
        assert torch.sigmoid(result.logits[0, column].double()) == pytest.approx(float(1 - absent), abs=2e-4)
    assert result.logits[0, 1] == pytest.approx(0.7)  # a label of no device type


@pytest.mark.parametrize("tip", [-1e4, 1e4])
def test_certain_maps_give_finite_gradients(tip: float) -> None:
    head = PooledHead([[0]], (8, 8))
    features = torch.randn(1, DECODER_CHANNELS, 8, 8, requires_grad=True)
    tips = torch.full((1, 1, 8, 8), tip, requires_grad=True)
    result = head(torch.zeros(1, 1), Decoded(features=features, line_logits=tips, tip_logits=tips))
    assert result.logits.isfinite().all()
    gradients = torch.autograd.grad(result.logits.sum(), (features, tips))
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_peaks() -> None:
    """The highest points of their surroundings; a shoulder beside a peak is none."""
    logits = torch.full((1, 2, 20, 50), -5.0)
    logits[0, 0, 4, 10], logits[0, 0, 4, 11], logits[0, 0, 15, 40] = 2.0, 1.9, 1.0
    pixels, values = find_peaks(logits, 2)
    assert pixels[0, 0].tolist() == [4 * 50 + 10, 15 * 50 + 40]
    assert values[0, 0].tolist() == [2.0, 1.0]
    assert values[0, 1].tolist() == [-5.0, -5.0]  # of a flat map every point is one


def test_places_are_told_apart() -> None:
    """x and y from edge to edge, and the finest wave with 8 periods across."""
    encoded = encode_places((40, 60)).view(40, 60, -1)
    assert encoded[0, 0, :2].tolist() == pytest.approx([-1 + 1 / 60, -1 + 1 / 40])
    assert encoded[39, 59, :2].tolist() == pytest.approx([1 - 1 / 60, 1 - 1 / 40])
    finest = encoded[0, :, -4].numpy()  # sine of x, which rises through 0 at the edges and 7 times between them
    assert ((finest[:-1] < 0) & (finest[1:] >= 0)).sum() == 7


def test_backbones_without_maps_are_refused() -> None:
    with pytest.raises(
        SettingsError, match=r"backbone_model=none on .*no feature pyramid for the line decoder; set lines=N"
    ):
        find_pyramid(WithoutMap(), "none", (64, 64), (16, 16))


def test_device_types_are_those_of_heads_or_ranzcrs(settings: Settings) -> None:
    assert settings.device_types == RANZCR_HEADS
    own = {"tubes": RANZCR_LABELS[:7], "lines": RANZCR_LABELS[7:]}
    model = build_classifier(with_lines(settings, heads=own), 0.5, 0.25)
    assert model(images_of(with_lines(settings))).line_logits.shape[1] == 2
