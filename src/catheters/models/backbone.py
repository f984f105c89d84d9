"""Backbones: any timm model, reading one grey channel."""

import pickle
from pathlib import Path
from typing import cast

import timm
from torch import nn

from catheters.errors import UserError
from catheters.settings import SettingsError, unknown_name

IN_CHANS = 1
"""Grey images from end to end; timm folds a pretrained RGB stem into one channel."""


def create_backbone(name: str, pretrained: bool | str, image_size: int) -> nn.Module:
    """A timm model without its classifier: (B, 1, H, W) -> (B, C), C being its `head_hidden_size`.

    Args:
        name: timm's name of the model.
        pretrained: True: timm's weights, downloaded once; False: random; a path: a file of timm weights.
        image_size: height and width of the images, for the models that need to know.

    Raises:
        UserError: the name or the file is wrong, or the weights cannot be had. Never a silent random start.
    """
    if not timm.is_model(name):
        raise SettingsError(f"backbone_model: {unknown_name(name, 'a timm model', timm.list_models())}")
    config = timm.get_pretrained_cfg(name)
    arguments = {"in_chans": IN_CHANS, "num_classes": 0}
    if config is not None and config.fixed_input_size:
        arguments["img_size"] = image_size
    if pretrained is False:
        return cast("nn.Module", timm.create_model(name, pretrained=False, **arguments))
    if pretrained is True:
        return _download(name, arguments)
    return _load_file(name, pretrained, arguments)


def _download(name: str, arguments: dict[str, int]) -> nn.Module:
    config = timm.get_pretrained_cfg(name)
    if config is None or not config.has_weights:
        raise UserError(f"backbone_model={name} with pretrained=True: timm has no weights for it; set pretrained=False")
    try:
        return cast("nn.Module", timm.create_model(name, pretrained=True, **arguments))
    except OSError as error:  # no network, no such host, a broken download: all of huggingface_hub's and urllib's
        reason = str(error).partition("\n")[0].partition(". ")[0]
        raise UserError(
            f"pretrained=True: the weights of {name} could not be downloaded ({reason}); connect to the network, set "
            "pretrained to a file of timm weights, or set pretrained=False to start from random weights"
        ) from error


def _load_file(name: str, file: str, arguments: dict[str, int]) -> nn.Module:
    if not Path(file).is_file():
        raise UserError(f"pretrained={file}: no such file; a .pth or .safetensors file of timm weights is expected")
    try:
        return cast(
            "nn.Module", timm.create_model(name, pretrained=True, pretrained_cfg_overlay={"file": file}, **arguments)
        )
    except (RuntimeError, ValueError, KeyError, OSError, pickle.UnpicklingError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"pretrained={file}: not weights of {name}: {reason[:300]}") from error
