"""The feature map of any timm model: (B, 1, H, W) -> (B, C, h, w), for attention heads and for heatmaps."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from catheters.errors import SettingsError, UserError, one_line
from catheters.models.backbone import IN_CHANS

LISTS_OF_LAYERS = ("blocks", "stages", "layers", "network", "transformers")
"""What timm's transformers call the layers that tokens go through."""
WRAPPED = "encoder"
"""What timm's classifiers call the transformer that they wrap, where that one has the layers."""


@dataclass(frozen=True, kw_only=True)
class FeatureMap:
    """How to have a backbone's last feature map.

    Attributes:
        source: forward: what a backbone without pooling returns, (B, C, h, w); channels_last: the same as (B, h, w, C);
            intermediates: its last intermediate features, for those that return tokens, several tensors, or pool.
        is_normed: of intermediates, whether the backbone's last norm is applied to them.
        num_channels: C.
    """

    source: Literal["forward", "channels_last", "intermediates"]
    is_normed: bool = False
    num_channels: int

    def __call__(self, backbone: nn.Module, pixels: Tensor) -> Tensor:
        """(B, 1 + M, H, W) normalised pixels, with the M maps of a first stage if it sees any -> (B, C, h, w)."""
        if self.source == "intermediates":
            return _intermediates(backbone, pixels, is_normed=self.is_normed)
        return self.in_order(backbone(pixels))

    def in_order(self, features: Tensor) -> Tensor:
        """What the backbone returns, as (B, C, h, w)."""
        return features.permute(0, 3, 1, 2) if self.source == "channels_last" else features


def find_feature_map(
    backbone: nn.Module, name: str, image_shape: tuple[int, int], num_input_maps: int = 0
) -> FeatureMap:
    """Find out by one black image what the feature map is; no generator or running average moves.

    What a backbone returns is taken as it is where that is a map of `num_features` channels, as version 0.2.0 did, so
    that its checkpoints stay what they are; also where it is a map of as many places as the last intermediate features,
    whatever its channels. Else these features are taken, and parameters that have no part in them are frozen.

    Args:
        backbone: a timm model without classifier, and without pooling where it can be left out.
        name: timm's name of it, for messages.
        image_shape: H, W.
        num_input_maps: that it sees beside the image.

    Raises:
        SettingsError: the model cannot read such images, or has no feature map.
    """
    pixels = next(backbone.parameters()).new_zeros((1, IN_CHANS + num_input_maps, *image_shape))
    with at_rest(backbone), torch.no_grad():
        features = try_timm(lambda: backbone(pixels), name, image_shape, "change image_size or backbone_model")
        is_map = isinstance(features, Tensor) and features.ndim == 4
        are_last = is_map and has_channels_last(backbone)
        if is_map and not are_last and features.shape[1] == backbone.num_features:
            return FeatureMap(source="forward", num_channels=features.shape[1])
        has_none = "it has no feature map for attention heads; set classifier='linear' or change backbone_model"
        intermediates, is_normed = try_timm(lambda: _try_intermediates(backbone, pixels), name, image_shape, has_none)
        if are_last and features.shape[1:3] == intermediates.shape[2:]:
            return FeatureMap(source="channels_last", num_channels=features.shape[3])
        if is_map and features.shape[2:] == intermediates.shape[2:]:
            return FeatureMap(source="forward", num_channels=features.shape[1])
    _freeze_others(backbone, pixels, is_normed=is_normed)
    return FeatureMap(source="intermediates", is_normed=is_normed, num_channels=intermediates.shape[1])


def has_channels_last(backbone: nn.Module) -> bool:
    """Whether maps of this timm model are (B, h, w, C)."""
    return getattr(backbone, "output_fmt", "NCHW") == "NHWC"


@contextlib.contextmanager
def tokens_as_map(backbone: nn.Module, pixels: Tensor, passed_through: nn.Module) -> Iterator[None]:
    """Let the tokens that a transformer's last layer reads pass through a module as a (B, C, h, w) map.

    Those before the layer, since of those after it the class token alone may count. Tokens that stand for no place stay
    as they are.

    Args:
        backbone: a timm model, in evaluation mode.
        pixels: (B, 1, H, W) normalised, which the backbone reads within the context.
        passed_through: (B, C, h, w) -> the same.

    Raises:
        UserError: the backbone has no such tokens.
    """
    with torch.no_grad():
        places = tuple(_try_intermediates(backbone, pixels[:1])[0].shape[2:])
    was_passed = False

    def pass_through(_: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...] | None:
        nonlocal was_passed
        for position, tokens in enumerate(arguments):
            changed = _pass(tokens, len(pixels), cast("tuple[int, int]", places), passed_through)
            if changed is not None:
                was_passed = True
                return (*arguments[:position], changed, *arguments[position + 1 :])
        return None

    layer = _last_layer(backbone)
    handle = None if layer is None else layer.register_forward_pre_hook(pass_through)
    try:
        yield
    finally:
        if handle is not None:
            handle.remove()
    if not was_passed:
        raise UserError(
            f"{type(backbone).__name__} has neither a feature map nor tokens for a heatmap under a linear head; leave "
            "heatmaps out, or train it with classifier='attention'"
        )


def _pass(tokens: object, num_images: int, places: tuple[int, int], passed_through: nn.Module) -> Tensor | None:
    """(B, n + h w, C) tokens or a map of either order through a module as (B, C, h, w), and back; None for others."""
    if not isinstance(tokens, Tensor) or len(tokens) != num_images:
        return None
    if tokens.ndim == 4 and tokens.shape[2:] == places:
        return cast(Tensor, passed_through(tokens))
    if tokens.ndim == 4 and tokens.shape[1:3] == places:
        return cast(Tensor, passed_through(tokens.permute(0, 3, 1, 2))).permute(0, 2, 3, 1)
    num_others = tokens.shape[1] - places[0] * places[1] if tokens.ndim == 3 else -1
    if num_others < 0:
        return None
    as_map = tokens[:, num_others:].transpose(1, 2).reshape(num_images, -1, *places)
    passed: Tensor = passed_through(as_map)
    return torch.cat([tokens[:, :num_others], passed.flatten(2).transpose(1, 2)], dim=1)


def _last_layer(backbone: nn.Module) -> nn.Module | None:
    transformers = (backbone, getattr(backbone, WRAPPED, None))
    lists = (getattr(transformer, name, None) for transformer in transformers for name in LISTS_OF_LAYERS)
    layer: Any = next((layers for layers in lists if layers is not None), None)
    while isinstance(layer, nn.ModuleList | nn.Sequential) or hasattr(layer, "blocks"):
        layer = layer[-1] if isinstance(layer, nn.ModuleList | nn.Sequential) else layer.blocks
    return layer if isinstance(layer, nn.Module) else None


def _intermediates(backbone: nn.Module, pixels: Tensor, *, is_normed: bool) -> Tensor:
    norm = {"norm": True} if is_normed else {}
    maps: list[Tensor] = backbone.forward_intermediates(  # type: ignore[operator]
        pixels, indices=1, intermediates_only=True, output_fmt="NCHW", **norm
    )
    return maps[-1]


def _try_intermediates(backbone: nn.Module, pixels: Tensor) -> tuple[Tensor, bool]:
    """The last intermediate features, and whether they are normed, which some models refuse."""
    try:
        return _intermediates(backbone, pixels, is_normed=True), True
    except (AssertionError, TypeError):
        return _intermediates(backbone, pixels, is_normed=False), False


def try_timm(call: Any, name: str, image_shape: tuple[int, int], advice: str) -> Any:
    """Call what is timm's, where models fail in ways of their own."""
    try:
        return call()
    except Exception as error:
        height, width = image_shape
        raise SettingsError(
            f"backbone_model={name} on images of {height} x {width} px: {one_line(error)}; {advice}"
        ) from error


def _freeze_others(backbone: nn.Module, pixels: Tensor, *, is_normed: bool) -> None:
    """Let parameters that have no part in the intermediates learn nothing, rather than wait for gradients."""
    parameters = [parameter for parameter in backbone.parameters() if parameter.requires_grad]
    # At rest again: in evaluation mode some models keep what they make of parameters, without gradients in this case.
    with at_rest(backbone), torch.enable_grad():
        total = _intermediates(backbone, pixels, is_normed=is_normed).sum()
        gradients = torch.autograd.grad(total, parameters, allow_unused=True)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        if gradient is None:
            parameter.requires_grad_(False)


@contextlib.contextmanager
def at_rest(backbone: nn.Module) -> Iterator[None]:
    """In evaluation mode; the mode before it and the generator are put back afterwards."""
    is_training = backbone.training
    backbone.eval()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        backbone.train()  # which is where models drop what they kept
        backbone.train(is_training)
