"""The classifier: grey pixels in, named outputs out, and their probabilities."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from catheters.config.settings import Settings
from catheters.models.backbone import create_backbone
from catheters.models.feature_map import FeatureMap, find_feature_map
from catheters.models.heads import AttentionHeads, LinearHead
from catheters.models.outputs import Outputs


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
        exclusive: Sequence[Sequence[int]] = (),
    ) -> None:
        """Put the parts together.

        Args:
            backbone: (B, 1, H, W) -> (B, C) for a linear head; of any kind that `feature_map` fits for attention heads.
            head: features -> (B, K).
            feature_map: how attention heads have the backbone's feature map; None for a linear head.
            mean: grey mean of the data set's images, in 0..1.
            std: their standard deviation, in 0..1.
            origin: a line on where the weights are from.
            exclusive: groups of columns whose labels exclude each other.
        """
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.feature_map = feature_map
        self.origin = origin
        self._exclusive = tuple(map(tuple, exclusive))
        self.register_buffer("mean", torch.tensor(mean))
        self.register_buffer("std", torch.tensor(std))

    def forward(self, images: Tensor) -> Outputs:
        """(B, 1, H, W) uint8, or float32 in 0..255, -> outputs of B images."""
        return self.classify(self.features(images))

    def classify(self, features: Tensor) -> Outputs:
        """What `features` gives -> outputs of as many images."""
        return Outputs(logits=self.head(features))

    def probabilities(self, outputs: Outputs) -> Tensor:
        """Outputs of B images -> (B, K) float32 in 0..1, columns in label order.

        A sigmoid for each label; a softmax for labels that exclude each other, with 0 as the logit of the further
        class, none of them, so that they sum to 1 less its probability.
        """
        logits = outputs.logits.float()
        if not self._exclusive:
            return torch.sigmoid(logits)
        columns = list(torch.sigmoid(logits).unbind(1))
        for group in self._exclusive:
            with_absent = torch.stack([torch.zeros_like(logits[:, 0]), *(logits[:, column] for column in group)], 1)
            for column, of_label in zip(group, torch.softmax(with_absent, 1).unbind(1)[1:], strict=True):
                columns[column] = of_label
        return torch.stack(columns, 1)

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
    column_of = {label: column for column, label in enumerate(settings.label_columns)}
    exclusive = [[column_of[label] for label in labels] for labels in settings.exclusive.values()]
    is_pooled = settings.classifier == "linear"
    backbone, origin = create_backbone(settings, is_pooled=is_pooled)
    if is_pooled:
        num_features = backbone.head_hidden_size
        assert isinstance(num_features, int), "timm's models say how many features they give"
        linear = LinearHead(num_features, len(settings.label_columns), settings.drop_rate)
        return Classifier(backbone, linear, None, mean, std, origin, exclusive)
    feature_map = find_feature_map(backbone, settings.backbone_model, settings.image_shape)
    groups = settings.heads.values() or (settings.label_columns,)
    heads = AttentionHeads(feature_map.num_channels, [[column_of[label] for label in labels] for labels in groups])
    return Classifier(backbone, heads, feature_map, mean, std, origin, exclusive)
