"""The first stage of a model that sees predicted lines: other models, whose maps are further channels of the image."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from catheters.models.outputs import Outputs

if TYPE_CHECKING:
    from catheters.models.classifier import Classifier

MIN_PROBABILITY = 1e-6
"""So that a mean of probabilities has a logit."""


def maps_of(outputs: Outputs) -> Tensor:
    """(B, 2 T, h, w) in 0..1: the maps of lines, then those of tips, one each per device type."""
    assert outputs.line_logits is not None and outputs.tip_logits is not None, "a first stage finds lines"
    return torch.sigmoid(torch.cat([outputs.line_logits, outputs.tip_logits], 1).float())


class FirstStage(nn.Module):
    """Models that find lines, none of which has seen what they are asked about. They learn no more."""

    def __init__(self, members: Sequence["Classifier"]) -> None:
        """Take the mean of these models' maps; in evaluation mode for good."""
        super().__init__()
        self.members = nn.ModuleList(members)
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> "FirstStage":
        """Stay in evaluation mode, whatever the second stage does."""
        return super().train(False)

    def forward(self, images: Tensor) -> Outputs:
        """(B, 1, H, W) uint8, or float32 in 0..255 -> lines and tips as the members find them, on average.

        Where there are several members nothing tells of positions, which each of them has at other places.
        """
        of_members = [member(images, with_lines=True) for member in self.members]
        if len(of_members) == 1:
            outputs: Outputs = of_members[0]
            return outputs
        names = ("line_logits", "tip_logits", "landmark_logits")
        means = {name: _mean_logits([getattr(outputs, name) for outputs in of_members]) for name in names}
        return Outputs(logits=torch.stack([outputs.logits for outputs in of_members]).mean(0), **means)


def _mean_logits(logits: Sequence[Tensor | None]) -> Tensor | None:
    """Of the mean probability; None where a model has none."""
    known = [torch.sigmoid(of_model.float()) for of_model in logits if of_model is not None]
    return torch.logit(torch.stack(known).mean(0), eps=MIN_PROBABILITY) if len(known) == len(logits) else None


def as_channels(maps: Tensor, image_shape: tuple[int, int]) -> Tensor:
    """(B, C, h, w) in 0..1 -> (B, C, H, W) in 0..255 as a cache of bytes, enlarged by OpenCV, has them."""
    enlarged = interpolate((maps * 255).round(), size=image_shape, mode="bilinear", align_corners=False)
    return enlarged.round()
