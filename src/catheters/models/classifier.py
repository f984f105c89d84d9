"""The classifier: grey pixels in, named outputs out, and their probabilities."""

import torch
from torch import Tensor, nn

from catheters.models.backbone import create_backbone
from catheters.models.feature_map import FeatureMap, find_feature_map
from catheters.models.heads import AttentionHeads, LinearHead
from catheters.models.outputs import Outputs
from catheters.settings import Settings


class Classifier(nn.Module):
    """Normalisation, a backbone and heads, in one module that takes the cache's pixels as they are.

    Attributes:
        feature_map: how attention heads have the backbone's feature map; None for a linear head.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        head: LinearHead | AttentionHeads,
        feature_map: FeatureMap | None,
        mean: float,
        std: float,
        origin: str,
    ) -> None:
        """Put the parts together.

        Args:
            backbone: (B, 1, H, W) -> (B, C) for a linear head; of any kind that `feature_map` fits for attention heads.
            head: features -> (B, K).
            feature_map: how attention heads have the backbone's feature map; None for a linear head.
            mean: grey mean of the data set's images, in 0..1.
            std: their standard deviation, in 0..1.
            origin: a line on where the weights are from.
        """
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.feature_map = feature_map
        self.origin = origin
        self.register_buffer("mean", torch.tensor(mean))
        self.register_buffer("std", torch.tensor(std))

    def forward(self, images: Tensor) -> Outputs:
        """(B, 1, H, W) uint8, or float32 in 0..255, -> outputs of B images."""
        return self.classify(self.features(images))

    def classify(self, features: Tensor) -> Outputs:
        """What `features` gives -> outputs of as many images."""
        return Outputs(logits=self.head(features))

    def probabilities(self, outputs: Outputs) -> Tensor:
        """Outputs of B images -> (B, K) float32 in 0..1, columns in label order."""
        return torch.sigmoid(outputs.logits.float())

    def features(self, images: Tensor) -> Tensor:
        """What the head sees: (B, 1, H, W) uint8 -> (B, C) for a linear head, (B, C, h, w) for attention heads."""
        pixels = self.normalise(images)
        features: Tensor = (
            self.backbone(pixels) if self.feature_map is None else self.feature_map(self.backbone, pixels)
        )
        return features

    def normalise(self, images: Tensor) -> Tensor:
        """(B, 1, H, W) uint8 -> float32 with the mean and standard deviation of the data set taken out."""
        return (images.float() / 255 - self.mean) / self.std


def create_classifier(settings: Settings, mean: float, std: float) -> Classifier:
    """The model that the settings describe, for images of this grey mean and standard deviation (in 0..1).

    Raises:
        UserError: see `create_backbone` and, for attention heads, `find_feature_map`.
    """
    is_pooled = settings.classifier == "linear"
    backbone, origin = create_backbone(settings, is_pooled=is_pooled)
    if is_pooled:
        num_features = backbone.head_hidden_size
        assert isinstance(num_features, int), "timm's models say how many features they give"
        linear = LinearHead(num_features, len(settings.label_columns), settings.drop_rate)
        return Classifier(backbone, linear, None, mean, std, origin)
    feature_map = find_feature_map(backbone, settings.backbone_model, settings.image_shape)
    column_of = {label: column for column, label in enumerate(settings.label_columns)}
    groups = settings.heads.values() or (settings.label_columns,)
    heads = AttentionHeads(feature_map.num_channels, [[column_of[label] for label in labels] for labels in groups])
    return Classifier(backbone, heads, feature_map, mean, std, origin)
