"""Names of tensors in files of other libraries, as timm's models have them, at the size of the model."""

import math
import re
import sys
import warnings
from collections.abc import Mapping
from typing import cast

import torch
from timm.layers import resample_abs_pos_embed, resize_rel_pos_bias_table
from torch import Tensor, nn
from torch.nn import functional

TRANSFORMERS = "embeddings.patch_embeddings.projection.weight"
"""A tensor of a vision transformer that the library transformers has saved."""
RENAMED = (
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.(cls_token|mask_token|register_tokens)$", r"\1"),
    (r"^encoder\.layer\.(\d+)\.", r"blocks.\1."),
    (r"\.layer_scale([12])\.lambda1$", r".ls\1.gamma"),
    (r"\.attention\.output\.dense\.", ".attn.proj."),
    (r"\.mlp\.weights_in\.", ".mlp.w12."),
    (r"\.mlp\.weights_out\.", ".mlp.w3."),
    (r"^layernorm\.", "norm."),
)
"""Pattern of a name of DINOv2 in transformers -> the name in the files of its own authors, which timm knows."""
ABSOLUTE_POSITIONS = "pos_embed"
"""The beginning of the names of position embeddings."""
RELATIVE_POSITIONS = "relative_position_bias_table"
"""The end of the names of tables of relative positions within a window."""
PART_OF_ATTENTION = re.compile(r"\.attention\.attention\.(query|key|value)\.")


def by_own_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of DINOv2 as transformers saves them -> by the names of its authors; others as they are.

    Query, key and value become one tensor, in this order.

    Args:
        weights: name -> tensor; transformers' names may have a prefix.
    """
    prefix = next((name.removesuffix(TRANSFORMERS) for name in weights if name.endswith(TRANSFORMERS)), None)
    if prefix is None:
        return dict(weights)
    renamed: dict[str, Tensor] = {}
    for key, value in weights.items():
        if not key.startswith(prefix):
            renamed[key] = value
            continue
        name = key.removeprefix(prefix)
        if part := PART_OF_ATTENTION.search(name):
            if part[1] != "query":
                continue
            parts = [weights[key.replace(".query.", f".{other}.")] for other in ("query", "key", "value")]
            name, value = PART_OF_ATTENTION.sub(".attn.qkv.", name), torch.cat(parts)
        for pattern, own in RENAMED:
            name = re.sub(pattern, own, name)
        renamed[name] = value
    return renamed


def at_size_of(backbone: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights by timm's own filter of the model's family, where it has one.

    It knows the names of the files that the family's authors have published, and resamples position embeddings and
    patches that were learnt at another image size.

    Args:
        backbone: a timm model.
        weights: name -> tensor, without a prefix.
    """
    module = sys.modules[type(backbone).__module__]
    adapt = getattr(module, "checkpoint_filter_fn", None) or getattr(module, "_filter_fn", None)
    adapted = dict(weights)
    try:
        with warnings.catch_warnings(action="ignore"):  # of timm's own resampling, about torch's next versions
            if adapt is not None:
                adapted = adapt(adapted, backbone)
            return {key: _resampled(key, value, backbone) for key, value in adapted.items()}
    except Exception:  # filters meet files of other models in many ways; what does not fit is named by the caller
        return dict(weights)


def _resampled(key: str, value: Tensor, backbone: nn.Module) -> Tensor:
    """A tensor that stands for places, at the size of the model, where the filter of its family leaves it as it is.

    By the functions that timm's other families call: of absolute position embeddings, (1, n, C), class token first, and
    of tables of relative positions in square windows, ((2 w - 1)^2, heads). By torch's bicubic interpolation of
    embeddings that are a map, (1, C, h, w) or (1, h, w, C).
    """
    try:
        wanted = backbone.get_parameter(key)
    except AttributeError:
        return value
    if value.shape == wanted.shape or value.ndim != wanted.ndim:
        return value
    if key.startswith(ABSOLUTE_POSITIONS) and value.ndim == 4:
        if value.shape[1] == wanted.shape[1]:
            return functional.interpolate(value, wanted.shape[2:], mode="bicubic", antialias=True)
        if value.shape[3] == wanted.shape[3]:
            as_map = value.permute(0, 3, 1, 2)
            resized = functional.interpolate(as_map, wanted.shape[1:3], mode="bicubic", antialias=True)
            return resized.permute(0, 2, 3, 1)
    if value.shape[-1] != wanted.shape[-1]:
        return value
    if key.startswith(ABSOLUTE_POSITIONS) and value.ndim == 3:
        grid = _grid(backbone, wanted.shape[1])
        num_others = wanted.shape[1] - grid[0] * grid[1]
        return cast("Tensor", resample_abs_pos_embed(value, new_size=grid, num_prefix_tokens=num_others))
    if key.endswith(RELATIVE_POSITIONS) and value.ndim == 2:
        side = (math.isqrt(len(wanted)) + 1) // 2
        shape = tuple(wanted.shape)
        return cast("Tensor", resize_rel_pos_bias_table(value, new_window_size=(side, side), new_bias_shape=shape))
    return value


def _grid(backbone: nn.Module, num_tokens: int) -> list[int]:
    """Rows and columns of the places among a model's tokens: as it says, else the largest square."""
    of_patches = getattr(getattr(backbone, "patch_embed", None), "grid_size", None)
    grid = of_patches or getattr(backbone, "tokens_spatial_shape", None) or [math.isqrt(num_tokens)] * 2
    return list(grid)
