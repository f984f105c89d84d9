"""The classifier: grey pixels in, one logit a label out."""

import torch
from torch import Tensor, nn

from catheters.models.backbone import create_backbone
from catheters.settings import Settings


class Classifier(nn.Module):
    """Normalisation, a backbone and a linear layer, in one module that takes the cache's pixels as they are."""

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: nn.Module, num_labels: int, drop_rate: float, mean: float, std: float) -> None:
        """Put the parts together.

        Args:
            backbone: (B, 1, H, W) -> (B, C), with C as its `head_hidden_size`.
            num_labels: K.
            drop_rate: dropout before the linear layer.
            mean: grey mean of the data set's images, in 0..1.
            std: their standard deviation, in 0..1.
        """
        super().__init__()
        num_features = backbone.head_hidden_size
        assert isinstance(num_features, int), "timm's models say how many features they give"
        self.backbone = backbone
        self.dropout = nn.Dropout(drop_rate)
        self.linear = nn.Linear(num_features, num_labels)
        self.register_buffer("mean", torch.tensor(mean))
        self.register_buffer("std", torch.tensor(std))

    def forward(self, images: Tensor) -> Tensor:
        """(B, 1, H, W) uint8 -> (B, K) logits."""
        pixels = (images.float() / 255 - self.mean) / self.std
        features = self.backbone(pixels)  # (B, 1, H, W) -> (B, C)
        logits: Tensor = self.linear(self.dropout(features))  # (B, K), columns in label order
        return logits


def create_classifier(settings: Settings, mean: float, std: float) -> Classifier:
    """The model that the settings describe, for images of this grey mean and standard deviation (in 0..1).

    Raises:
        UserError: see `create_backbone`.
    """
    backbone = create_backbone(settings.backbone_model, settings.pretrained, settings.image_size)
    return Classifier(backbone, len(settings.label_columns), settings.drop_rate, mean, std)
