"""Names of tensors in files of other libraries, as timm's models have them, at the size of the model."""

import re
import sys
import warnings
from collections.abc import Mapping

import torch
from torch import Tensor, nn

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
    if adapt is None:
        return dict(weights)
    try:
        with warnings.catch_warnings(action="ignore"):  # of timm's own resampling, about torch's next versions
            adapted: dict[str, Tensor] = adapt(dict(weights), backbone)
    except Exception:  # filters meet files of other models in many ways; what does not fit is named by the caller
        return dict(weights)
    return adapted
