"""The line decoder: from a backbone's feature pyramid to maps of lines and of their tips.

A feature pyramid network (Lin et al. 2017, "Feature Pyramid Networks for Object Detection"): each level is brought to
one width and added to the enlarged level above it. It is small, since it trains beside the backbone at each step.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

DECODER_CHANNELS = 48
FIRST_PROBABILITY = 0.02
"""What an untrained decoder says of each pixel: about the share of them that a line covers."""


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """What the decoder makes of B images.

    Attributes:
        features: (B, D, h, w).
        line_logits: (B, T, h, w), one map per device type.
        tip_logits: (B, T, h, w).
        landmark_logits: (B, P, h, w); None where no landmark is learnt.
    """

    features: Tensor
    line_logits: Tensor
    tip_logits: Tensor
    landmark_logits: Tensor | None = None


class LineDecoder(nn.Module):
    """Levels of a pyramid to line and tip logits at the resolution of `map_shape`."""

    def __init__(
        self, num_channels: Sequence[int], num_types: int, map_shape: tuple[int, int], num_landmarks: int = 0
    ) -> None:
        """Create the decoder.

        Args:
            num_channels: of each level, from the largest map to the smallest.
            num_types: T, device types.
            map_shape: (h, w) of what it gives.
            num_landmarks: P.
        """
        super().__init__()
        self.map_shape = map_shape
        self.laterals = nn.ModuleList(nn.Conv2d(channels, DECODER_CHANNELS, 1) for channels in num_channels)
        self.smooth = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(DECODER_CHANNELS, DECODER_CHANNELS, 3, padding=1, bias=False),
                nn.BatchNorm2d(DECODER_CHANNELS),
                nn.ReLU(inplace=True),
            )
            for _ in num_channels
        )
        self.lines = nn.Conv2d(DECODER_CHANNELS, num_types, 1)
        self.tips = nn.Conv2d(DECODER_CHANNELS, num_types, 3, padding=1)
        self.landmarks = nn.Conv2d(DECODER_CHANNELS, num_landmarks, 3, padding=1) if num_landmarks else None
        first_logit = float(torch.logit(torch.tensor(FIRST_PROBABILITY)))
        for output in (self.lines, self.tips, self.landmarks):
            if output is not None and output.bias is not None:
                nn.init.constant_(output.bias, first_logit)

    def forward(self, levels: Sequence[Tensor]) -> Decoded:
        """Levels from the largest map to the smallest, (B, C_i, h_i, w_i)."""
        above: Tensor | None = None
        for number in reversed(range(len(levels))):
            level = self.laterals[number](levels[number])
            shape = self.map_shape if number == 0 else level.shape[2:]
            if level.shape[2:] != shape:
                level = interpolate(level, size=shape, mode="bilinear", align_corners=False)
            if above is not None:
                level = level + interpolate(above, size=shape, mode="bilinear", align_corners=False)
            above = self.smooth[number](level)
        assert above is not None, "a pyramid has a level"
        return Decoded(
            features=above,
            line_logits=self.lines(above),
            tip_logits=self.tips(above),
            landmark_logits=None if self.landmarks is None else self.landmarks(above),
        )
