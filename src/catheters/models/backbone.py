"""Backbones: any timm model, reading one grey channel."""

import pickle
from pathlib import Path
from typing import cast

import timm
from safetensors import SafetensorError
from timm.models import adapt_input_conv, load_state_dict
from torch import nn

from catheters.errors import SettingsError, UserError, one_line, unknown_name

RGB_CHANS = 3
IN_CHANS = 1
"""Grey images from end to end; a pretrained RGB stem is summed into one channel."""


def create_backbone(name: str, pretrained: bool | str, image_size: int, *, is_pooled: bool = True) -> nn.Module:
    """A timm model without its classifier.

    Pooled it is (B, 1, H, W) -> (B, C), C being its `head_hidden_size`; else (B, 1, H, W) -> (B, C, h, w), C being its
    `num_features`.

    Args:
        name: timm's name of the model.
        pretrained: True: timm's weights, downloaded once; False: random; a path: a file of timm weights.
        image_size: height and width of the images, for the models that need to know.
        is_pooled: whether the features are averaged over the picture.

    Raises:
        UserError: the name or the file is wrong, or the weights cannot be had. Never a silent random start.
    """
    if not timm.is_model(name):
        raise SettingsError(f"backbone_model: {unknown_name(name, 'a timm model', timm.list_models())}")
    arguments = _arguments(name, image_size, is_pooled)
    if pretrained is True:
        return _download(name, arguments)
    backbone = _create(name, arguments, pretrained=False)
    if pretrained:
        _load_file(backbone, name, pretrained)
    return backbone


def _arguments(name: str, image_size: int, is_pooled: bool) -> dict[str, int | str]:
    arguments: dict[str, int | str] = {"in_chans": IN_CHANS, "num_classes": 0}
    if not is_pooled:
        arguments["global_pool"] = ""
    try:
        config = timm.get_pretrained_cfg(name)
    except RuntimeError as error:  # an unknown tag, as in `resnet50.tag`
        raise SettingsError(f"backbone_model={name}: {one_line(error)}") from error
    if config is not None and config.fixed_input_size:
        arguments["img_size"] = image_size
    return arguments


def _create(name: str, arguments: dict[str, int | str], *, pretrained: bool) -> nn.Module:
    try:
        return cast("nn.Module", timm.create_model(name, pretrained=pretrained, **arguments))
    except (RuntimeError, ValueError, AssertionError) as error:
        raise SettingsError(f"backbone_model={name}: timm cannot make it: {one_line(error)}") from error


def _download(name: str, arguments: dict[str, int | str]) -> nn.Module:
    try:
        return _create(name, arguments, pretrained=True)
    except OSError as error:  # no network, no such host, a broken download: all of huggingface_hub's and urllib's
        reason = one_line(error).partition(". ")[0]
        raise UserError(
            f"pretrained=True: the weights of {name} could not be downloaded ({reason}); connect to the network, set "
            "pretrained to a file of timm weights, or set pretrained=False to start from random weights"
        ) from error


def _load_file(backbone: nn.Module, name: str, file: str) -> None:
    """Fill `backbone` from a file of timm weights: every tensor, or an error.

    timm's own loading takes what fits and leaves the rest random where the classifier differs, as it does here.
    """
    if not Path(file).is_file():
        raise UserError(f"pretrained={file}: no such file; a .pth or .safetensors file of timm weights is expected")
    try:
        weights = load_state_dict(file, weights_only=True)
    except (
        RuntimeError,
        ValueError,
        AttributeError,
        KeyError,
        EOFError,
        pickle.UnpicklingError,
        SafetensorError,
    ) as error:
        raise UserError(f"pretrained={file}: not a file of weights ({one_line(error).partition('. ')[0]})") from error
    config = backbone.pretrained_cfg
    assert isinstance(config, dict), "timm's models carry their configuration"
    classifiers = tuple(f"{classifier}." for classifier in _names(config.get("classifier")))
    weights = {key: value for key, value in weights.items() if not key.startswith(classifiers)}
    wanted = backbone.state_dict()
    for stem in (f"{stem}.weight" for stem in _names(config.get("first_conv"))):
        if stem in weights and stem in wanted and weights[stem].shape[1] == RGB_CHANS > wanted[stem].shape[1]:
            weights[stem] = adapt_input_conv(IN_CHANS, weights[stem])
    wrong = [f"{key} is missing" for key in wanted if key not in weights]
    wrong += [f"{key} is not the model's" for key in weights if key not in wanted]
    wrong += [
        f"{key} is {tuple(weights[key].shape)}, the model's {tuple(wanted[key].shape)}"
        for key in wanted
        if key in weights and weights[key].shape != wanted[key].shape
    ]
    if wrong:
        raise UserError(f"pretrained={file}: not weights of {name}: {len(wrong)} of {len(wanted)} differ; {wrong[0]}")
    backbone.load_state_dict(weights)


def _names(value: str | tuple[str, ...] | None) -> tuple[str, ...]:
    """timm's configurations name one layer, several, or none."""
    return (value,) if isinstance(value, str) else tuple(value or ())
