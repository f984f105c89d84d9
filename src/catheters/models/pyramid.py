"""The feature pyramid of any timm model: maps of several sizes, for the line decoder."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from catheters.errors import SettingsError
from catheters.models.backbone import IN_CHANS
from catheters.models.feature_map import FeatureMap, at_rest, try_timm


@dataclass(frozen=True, kw_only=True)
class Features:
    """What a backbone makes of B images.

    Attributes:
        seen: what the head sees, (B, C) for a linear head, (B, C, h, w) for attention heads.
        levels: the pyramid, from the largest map to the smallest; empty where nobody asked for it.
    """

    seen: Tensor
    levels: tuple[Tensor, ...] = ()


@dataclass(frozen=True, kw_only=True)
class FeaturePyramid:
    """How to have a backbone's maps.

    Attributes:
        indices: of timm's intermediate features, those that are levels.
        num_channels: of each.
    """

    indices: tuple[int, ...]
    num_channels: tuple[int, ...]

    def __call__(self, backbone: nn.Module, pixels: Tensor, feature_map: FeatureMap | None) -> Features:
        """(B, 1, H, W) normalised pixels -> features with levels; `feature_map` as the classifier has it."""
        norm = {"norm": True} if feature_map is not None and feature_map.is_normed else {}
        last, maps = backbone.forward_intermediates(  # type: ignore[operator]
            pixels, indices=list(self.indices), output_fmt="NCHW", **norm
        )
        if feature_map is not None and feature_map.source == "intermediates":
            return Features(seen=maps[-1], levels=tuple(maps))
        seen: Tensor = backbone.forward_head(last)  # type: ignore[operator]
        if feature_map is not None:
            seen = feature_map.in_order(seen)
        return Features(seen=seen, levels=tuple(maps))


def find_pyramid(
    backbone: nn.Module, name: str, image_shape: tuple[int, int], map_shape: tuple[int, int]
) -> FeaturePyramid:
    """Find out by one black image which maps there are; no generator or running average moves.

    Of maps of one size the last is taken; those much larger than the decoder's are left out.

    Args:
        backbone: a timm model without classifier.
        name: timm's name of it, for messages.
        image_shape: H, W.
        map_shape: (h, w) of the decoder's maps.

    Raises:
        SettingsError: the model cannot read such images, or has no maps.
    """
    pixels = next(backbone.parameters()).new_zeros((1, IN_CHANS, *image_shape))
    advice = "it has no feature pyramid for the line decoder; set lines=None or change backbone_model"

    def maps() -> Any:
        return backbone.forward_intermediates(pixels, output_fmt="NCHW", intermediates_only=True)  # type: ignore[operator]

    with at_rest(backbone), torch.no_grad():
        found = try_timm(maps, name, image_shape, advice)
    last_of = {tuple(level.shape[2:]): (index, level.shape[1]) for index, level in enumerate(found)}
    # Some models pad little, so that their maps are a little smaller or larger than the others'.
    kept = {shape: entry for shape, entry in last_of.items() if shape[0] <= 1.25 * map_shape[0]}
    if not kept:
        raise SettingsError(f"backbone_model={name}: {advice}")
    levels = [kept[shape] for shape in sorted(kept, reverse=True)]
    return FeaturePyramid(
        indices=tuple(index for index, _ in levels), num_channels=tuple(channels for _, channels in levels)
    )
