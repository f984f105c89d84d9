"""The pooled head: labels from what lies around each predicted tip, and where in the image that is."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, max_pool2d

from catheters.models.line_decoder import DECODER_CHANNELS, Decoded

MAX_TIPS = 3
"""Candidates per device type: RANZCR CLiP has up to 3 central venous catheters in an image."""
HIDDEN_FEATURES = 64
DROP_RATE = 0.2
NUM_FREQUENCIES = 4
"""Of the Fourier features of a place: the finest wave has 8 periods across the image."""
WINDOW_SHARE = 0.04
"""Width of the window in which a tip is the highest point, as a share of the map's."""
NO_PEAK = -30.0
"""Logit where a map has fewer peaks than candidates."""
MAX_PROBABILITY = 1 - 1e-6
MIN_LOG_ABSENT = -1e-7
"""Where float32 ends."""


@dataclass(frozen=True, kw_only=True)
class TipLabels:
    """What a pooled head makes of B images.

    Attributes:
        logits: (B, K), columns in label order.
        pixels: (B, T, M) flat positions in the tip maps of each device type's candidates.
        position_logits: (B, K, M) that a tip there has the label; the candidates are those of the label's device type.
    """

    logits: Tensor
    pixels: Tensor
    position_logits: Tensor


class PooledHead(nn.Module):
    """Probabilities of labels from those of tips.

    The highest peaks of a device type's tip map are its candidates. A small network per device type reads the decoder's
    features around a candidate, and its place, and gives it a logit per label. An image has a label where one of its
    tips has it: 1 - (1 - t_1 l_1) ... (1 - t_M l_M), a noisy-or (Pearl 1988, "Probabilistic Reasoning in Intelligent
    Systems", section 4.3.2), with t that a candidate is a tip, l that a tip there has the label. A label of no device
    type has the global logit.
    """

    coordinates: Tensor

    def __init__(self, type_columns: Sequence[Sequence[int]], map_shape: tuple[int, int]) -> None:
        """Create the head.

        Args:
            type_columns: for each of T device types the columns of its labels.
            map_shape: (h, w) of the decoder's maps.
        """
        super().__init__()
        self.type_columns = tuple(map(tuple, type_columns))
        coordinates = encode_places(map_shape)
        self.features = nn.Linear(DECODER_CHANNELS, HIDDEN_FEATURES)
        self.places = nn.Linear(coordinates.shape[1], HIDDEN_FEATURES, bias=False)
        self.dropout = nn.Dropout(DROP_RATE)
        self.networks = nn.ModuleList(
            nn.Sequential(
                nn.ReLU(),
                nn.Linear(HIDDEN_FEATURES, HIDDEN_FEATURES),
                nn.ReLU(),
                nn.Linear(HIDDEN_FEATURES, len(columns)),
            )
            for columns in type_columns
        )
        self.register_buffer("coordinates", coordinates, persistent=False)

    def forward(self, logits: Tensor, decoded: Decoded) -> TipLabels:
        """(B, K) global logits, and the decoder's maps."""
        pixels, tip_logits = find_peaks(decoded.tip_logits.float(), MAX_TIPS)  # (B, T, M)
        are_tips = torch.sigmoid(tip_logits)
        hidden = self._describe(pixels, decoded)
        of_labels = list(logits.float().unbind(1))
        position_logits = [tip_logits[:, 0].new_full((), NO_PEAK).expand(logits.shape[0], MAX_TIPS)] * len(of_labels)
        for number, (network, columns) in enumerate(zip(self.networks, self.type_columns, strict=True)):
            of_tips = network(hidden[:, number]).float()  # (B, M, labels)
            have_labels = are_tips[:, number, :, None] * torch.sigmoid(of_tips)
            log_absent = torch.log1p(-have_labels.clamp(max=MAX_PROBABILITY)).sum(1)  # (B, labels)
            for place, column in enumerate(columns):
                position_logits[column] = of_tips[:, :, place]
                absent = log_absent[:, place].clamp(max=MIN_LOG_ABSENT)
                of_labels[column] = torch.log(-torch.expm1(absent)) - absent  # the logit of 1 - exp(absent)
        return TipLabels(
            logits=torch.stack(of_labels, 1), pixels=pixels, position_logits=torch.stack(position_logits, 1)
        )

    def _describe(self, pixels: Tensor, decoded: Decoded) -> Tensor:
        """(B, T, M) flat positions -> (B, T, M, F): what lies around them, and where they are."""
        flat = pixels.flatten(1)  # (B, T M)
        around = avg_pool2d(decoded.features, 3, stride=1, padding=1, count_include_pad=False).flatten(2)
        seen = around.gather(2, flat[:, None].expand(-1, around.shape[1], -1)).transpose(1, 2)  # (B, T M, D)
        hidden: Tensor = self.features(self.dropout(seen)) + self.places(self.coordinates[flat])
        return hidden.view(*pixels.shape, -1)


def encode_places(map_shape: tuple[int, int]) -> Tensor:
    """(h w, F) x and y of each pixel in -1..1, and sines and cosines of them.

    Tancik et al. 2020, "Fourier Features Let Networks Learn High Frequency Functions in Low Dimensional Domains": the
    bands of a position are a few hundredths of the image wide.
    """
    height, width = map_shape
    y, x = torch.meshgrid(
        (torch.arange(height) * 2 + 1) / height - 1, (torch.arange(width) * 2 + 1) / width - 1, indexing="ij"
    )
    encoded = [x, y]
    for power in range(NUM_FREQUENCIES):
        for place in (x, y):
            encoded += [torch.sin(math.pi * 2**power * place), torch.cos(math.pi * 2**power * place)]
    return torch.stack(encoded, 2).flatten(0, 1)


def find_peaks(logits: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """The highest peaks of maps, each the highest point of a window around it.

    Args:
        logits: (B, T, h, w).
        number: M.

    Returns:
        (B, T, M) flat positions, and logits there, the highest first.
    """
    size = max(3, 2 * round(WINDOW_SHARE * logits.shape[3] / 2) + 1)
    is_peak = logits == max_pool2d(logits, size, stride=1, padding=size // 2)
    peak_logits, pixels = logits.masked_fill(~is_peak, NO_PEAK).flatten(2).topk(number, dim=2)
    return pixels, peak_logits
