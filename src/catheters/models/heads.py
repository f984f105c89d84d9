"""Heads: from a backbone's features to one logit a label."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

ATTENTION_CHANNELS = (64, 32, 16, 1)
"""Widths of the 3x3 convolutions that make a head's attention map, after the features' own."""
ATTENTION_DROP_RATE = 0.5
"""Dropout before an attention head's last layer, as in docs/reference/published.md."""


class LinearHead(nn.Module):
    """Dropout and one linear layer over pooled features."""

    def __init__(self, num_features: int, num_labels: int, drop_rate: float) -> None:
        """Take (B, num_features) to (B, num_labels)."""
        super().__init__()
        self.dropout = nn.Dropout(drop_rate)
        self.linear = nn.Linear(num_features, num_labels)

    def forward(self, features: Tensor) -> Tensor:
        """(B, C) -> (B, K) logits."""
        logits: Tensor = self.linear(self.dropout(features))
        return logits


class AttentionHeads(nn.Module):
    """One head per device type, each with an attention map of its own over the feature map, all computed side by side.

    A head is: 3x3 convolutions C -> 64 -> 32 -> 16 -> 1 with batch norm and ReLU, the last one through a sigmoid, which
    gives the map; the features times the map, averaged over the image; a linear layer of the same width, ReLU, dropout,
    and a linear layer to the device type's labels. The heads' convolutions are the groups of one convolution, and their
    hidden layers one batched product.
    """

    def __init__(self, num_features: int, head_columns: Sequence[Sequence[int]]) -> None:
        """Create the heads.

        Args:
            num_features: C, channels of the feature map.
            head_columns: for each head the columns of its labels in the output; every column 0..K-1 in one of them.
        """
        super().__init__()
        columns = [column for head in head_columns for column in head]
        assert sorted(columns) == list(range(len(columns))), "every label has one head"
        num_heads = len(head_columns)
        layers: list[nn.Module] = []
        width = num_features
        for channels in ATTENTION_CHANNELS:
            # The first one reads the features that all heads share; from then on every head has a group of its own.
            groups = num_heads if layers else 1
            layers += [
                nn.Conv2d(width, num_heads * channels, 3, padding=1, groups=groups, bias=False),
                nn.BatchNorm2d(num_heads * channels),
                nn.ReLU(inplace=True),
            ]
            width = num_heads * channels
        self.attention = nn.Sequential(*layers[:-1], nn.Sigmoid())
        hidden = [nn.Linear(num_features, num_features) for _ in head_columns]  # torch's initialisation, head by head
        self.hidden_weight = nn.Parameter(torch.stack([layer.weight.detach().T for layer in hidden]))  # (G, C, C)
        self.hidden_bias = nn.Parameter(torch.stack([layer.bias.detach()[None] for layer in hidden]))  # (G, 1, C)
        self.dropout = nn.Dropout(ATTENTION_DROP_RATE)
        self.outputs = nn.ModuleList(nn.Linear(num_features, len(head)) for head in head_columns)
        self.register_buffer("order", torch.tensor(columns).argsort(), persistent=False)

    order: Tensor

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, K) logits, columns in label order."""
        maps = self.attention_maps(features)  # (B, G, h, w)
        num_pixels = features.shape[2] * features.shape[3]
        # The mean of features times map, for all heads, as one product: the (B, G, C, h, w) tensor never exists.
        pooled = (maps / num_pixels).flatten(2) @ features.flatten(2).transpose(1, 2)  # (B, G, C)
        # (G, B, C), each head's linear layer of the same width
        hidden = torch.baddbmm(self.hidden_bias, pooled.transpose(0, 1), self.hidden_weight)
        hidden = self.dropout(torch.relu(hidden))
        logits = [output(hidden[head]) for head, output in enumerate(self.outputs)]
        return torch.cat(logits, dim=1)[:, self.order]

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that are biases although their shape does not show it; timm's name for the question."""
        return {"hidden_bias"}

    def attention_maps(self, features: Tensor) -> Tensor:
        """Where each head looks: (B, C, h, w) -> (B, G, h, w), in 0..1."""
        maps: Tensor = self.attention(features)
        return maps
