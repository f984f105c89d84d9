"""The classifier: grey pixels in, named outputs out, and their probabilities."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import torch
from torch import Tensor, nn

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


def create_classifier(
    backbone_model: str,
    label_columns: tuple[str, ...],
    mean: float,
    std: float,
    *,
    image_shape: tuple[int, int],
    pretrained: bool | str = False,
    classifier: str = "linear",
    heads: Mapping[str, tuple[str, ...]] = MappingProxyType({}),
    exclusive: Mapping[str, tuple[str, ...]] = MappingProxyType({}),
    drop_rate: float = 0.0,
    drop_path_rate: float = 0.0,
    grad_checkpointing: bool = False,
) -> Classifier:
    """A model of images of this grey mean and standard deviation (in 0..1).

    Args:
        backbone_model: timm's name.
        label_columns: (K,) what it predicts.
        mean: grey mean of the data set's images, in 0..1.
        std: their standard deviation, in 0..1.
        image_shape: (height, width) of the images, in pixels.
        pretrained: see `create_backbone`.
        classifier: "linear" or "attention".
        heads: device type -> its labels, an attention head per device type; empty: one head.
        exclusive: name -> labels that exclude each other.
        drop_rate: of dropout before a linear head, in 0..1.
        drop_path_rate: of stochastic depth, in 0..1.
        grad_checkpointing: see `create_backbone`.

    Raises:
        UserError: see `create_backbone` and, for attention heads, `find_feature_map`.
    """
    column_of = {label: column for column, label in enumerate(label_columns)}
    groups = [[column_of[label] for label in labels] for labels in exclusive.values()]
    is_pooled = classifier == "linear"
    backbone, origin = create_backbone(
        backbone_model,
        pretrained=pretrained,
        image_shape=image_shape,
        is_pooled=is_pooled,
        drop_path_rate=drop_path_rate,
        grad_checkpointing=grad_checkpointing,
    )
    if is_pooled:
        num_features = backbone.head_hidden_size
        assert isinstance(num_features, int), "timm's models say how many features they give"
        linear = LinearHead(num_features, len(label_columns), drop_rate)
        return Classifier(backbone, linear, None, mean, std, origin, groups)
    feature_map = find_feature_map(backbone, backbone_model, image_shape)
    labels_of_heads = heads.values() or (label_columns,)
    columns = [[column_of[label] for label in labels] for labels in labels_of_heads]
    attention = AttentionHeads(feature_map.num_channels, columns)
    return Classifier(backbone, attention, feature_map, mean, std, origin, groups)
