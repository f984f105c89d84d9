"""Backbones: any timm model, reading one grey channel."""

import warnings
from typing import Any, cast

import timm
from timm.layers import PatchEmbed
from torch import nn

from catheters.errors import SettingsError, UserError, one_line, unknown_name
from catheters.models.weight_sources import fetch_from_hub
from catheters.models.weights import load_weights
from catheters.runtime.memory import is_out_of_memory

IN_CHANS = 1
"""Grey images from end to end; a pretrained RGB stem is summed into one channel."""


def create_backbone(
    name: str,
    *,
    pretrained: bool | str,
    image_shape: tuple[int, int],
    is_pooled: bool,
    drop_path_rate: float = 0.0,
    grad_checkpointing: bool = False,
    num_input_maps: int = 0,
) -> tuple[nn.Module, str]:
    """A timm model without its classifier, and a line on where its weights are from.

    Pooled it is (B, 1, H, W) -> (B, C), C being its `head_hidden_size`; else what it returns is its own matter, see
    `catheters.models.feature_map`.

    Args:
        name: timm's, of the model.
        pretrained: True: timm's weights; False: random ones; or a file of weights, see `find_weights`.
        image_shape: (height, width) of the images, in pixels.
        is_pooled: whether the features are averaged over the image; if not, they are still by models that cannot do
            without.
        drop_path_rate: of stochastic depth, in 0..1.
        grad_checkpointing: whether features are computed again in the backward pass, which takes less memory.
        num_input_maps: that it sees beside the image, as further channels. Of pretrained weights those start at 0, so
            that the image is seen as without them.

    Raises:
        UserError: a name, an option or a file is wrong, or the weights cannot be had. Never a silent random start.
    """
    check_name(name)
    arguments = _arguments(name, image_shape, drop_path_rate)
    in_chans = IN_CHANS + num_input_maps
    if pretrained is False:
        arguments["in_chans"] = in_chans
    create = _download if pretrained is True else _create
    if not is_pooled:
        try:
            backbone = create(name, {**arguments, "global_pool": ""})
        except SettingsError:  # constructors that insist on pooling say so in many ways
            backbone = create(name, arguments)
        else:
            arguments["global_pool"] = ""
    else:
        backbone = create(name, arguments)
    origin = f"{name}: timm's pretrained weights" if pretrained is True else f"{name}: random weights"
    if isinstance(pretrained, str):
        origin = load_weights(backbone, name, pretrained)
    if pretrained is not False and num_input_maps:
        backbone = _widen(backbone, _create(name, {**arguments, "in_chans": in_chans}), name)
    if grad_checkpointing:
        try:
            cast("Any", backbone).set_grad_checkpointing(True)
        except (AttributeError, AssertionError):
            raise SettingsError(f"grad_checkpointing=True: {name} has none; set it to False") from None
    return backbone, origin


def check_name(name: str) -> None:
    """Raise a SettingsError where timm has no model of that name."""
    if not timm.is_model(name):
        raise SettingsError(f"backbone_model: {unknown_name(name, 'a timm model', timm.list_models())}")


def check_patches(backbone: nn.Module, name: str, image_shape: tuple[int, int]) -> None:
    """Refuse images of which a vision transformer would not see the lower and right edge.

    Args:
        backbone: a timm model.
        name: timm's name of it.
        image_shape: (height, width) of the images, in pixels.

    Raises:
        SettingsError: its patches do not divide the images.
    """
    patches = getattr(backbone, "patch_embed", None)
    if not isinstance(patches, PatchEmbed) or patches.dynamic_img_pad:
        return
    for size, patch in zip(image_shape, patches.patch_size, strict=True):
        if size % patch:
            raise SettingsError(
                f"image_size={size}: {name} sees patches of {patch} px and would not see the last {size % patch}; "
                f"{size - size % patch} or {size - size % patch + patch} is a multiple of {patch}"
            )


def _arguments(
    name: str, image_shape: tuple[int, int], drop_path_rate: float
) -> dict[str, int | float | str | tuple[int, int]]:
    arguments: dict[str, int | float | str | tuple[int, int]] = {"in_chans": IN_CHANS, "num_classes": 0}
    if drop_path_rate:
        arguments["drop_path_rate"] = drop_path_rate
    try:
        config = timm.get_pretrained_cfg(name)
    except RuntimeError as error:  # an unknown tag, as in `resnet50.tag`
        raise SettingsError(f"backbone_model={name}: {one_line(error)}") from error
    if config is not None and config.fixed_input_size:
        arguments["img_size"] = image_shape
    return arguments


def _create(
    name: str, arguments: dict[str, int | float | str | tuple[int, int]], *, pretrained: bool = False
) -> nn.Module:
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message=".*in_chans=", category=UserWarning)  # it reads colours alone
            return cast("nn.Module", timm.create_model(name, pretrained=pretrained, **arguments))
    except (RuntimeError, ValueError, AssertionError, TypeError, UserWarning) as error:
        if is_out_of_memory(error):
            raise
        raise SettingsError(f"backbone_model={name}: timm cannot make it: {one_line(error)}") from error


def _widen(backbone: nn.Module, wider: nn.Module, name: str) -> nn.Module:
    """The wider model with the weights of one that sees the image alone; those of its further channels are 0."""
    weights = backbone.state_dict()
    for key, value in wider.state_dict().items():
        if value.shape != weights[key].shape:
            if value.ndim != 4 or weights[key].shape[1] != IN_CHANS:
                raise SettingsError(
                    f"backbone_model={name}: its first layer is no convolution of the image, so pretrained weights "
                    "cannot be kept beside further channels; set pretrained=False, or another lines or backbone_model"
                )
            widened = value.new_zeros(value.shape)
            widened[:, :IN_CHANS] = weights[key]
            weights[key] = widened
    wider.load_state_dict(weights)
    return wider


def _download(name: str, arguments: dict[str, int | float | str | tuple[int, int]]) -> nn.Module:
    config = timm.get_pretrained_cfg(name)
    if config is not None and config.hf_hub_id:
        fetch_from_hub(config.hf_hub_id, "pretrained=True")  # timm finds it in the cache
    try:
        return _create(name, arguments, pretrained=True)
    except OSError as error:  # no network, no such host, a broken download: all of huggingface_hub's and urllib's
        reason = one_line(error).partition(". ")[0]
        raise UserError(
            f"pretrained=True: the weights of {name} could not be downloaded ({reason}); connect to the network, set "
            "pretrained to a file of weights, or set pretrained=False to start from random weights"
        ) from error
