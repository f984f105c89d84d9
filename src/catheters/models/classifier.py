"""The classifier: grey pixels in, named outputs out, and their probabilities."""

import dataclasses
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import torch
from torch import Tensor, nn

from catheters.config.validation import LEARNT_LINES
from catheters.models.backbone import check_patches, create_backbone
from catheters.models.feature_map import FeatureMap, find_feature_map
from catheters.models.first_stage import FirstStage, as_channels, maps_of
from catheters.models.heads import AttentionHeads, LinearHead
from catheters.models.line_decoder import LineDecoder
from catheters.models.outputs import Outputs
from catheters.models.pooled_head import PooledHead
from catheters.models.pyramid import FeaturePyramid, Features, find_pyramid


class Classifier(nn.Module):
    """Normalisation, a backbone and heads, in one module that takes the cache's pixels as they are.

    Attributes:
        feature_map: how attention heads have the backbone's feature map; None for a linear head.
        first_stage: finds the maps that the model sees beside the image, where they do not come with it; None in
            training, where they come from a cache, and for models that see none.
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
        pyramid: FeaturePyramid | None = None,
        decoder: LineDecoder | None = None,
        pooled_head: PooledHead | None = None,
        num_input_maps: int = 0,
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
            pyramid: how the decoder has the backbone's maps.
            decoder: finds lines and tips; None: the model has none.
            pooled_head: adds what lies at the tips to the logits; None: the decoder only trains the backbone.
            num_input_maps: C, maps of a first stage that the backbone sees beside the image.
        """
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.feature_map = feature_map
        self.origin = origin
        self._exclusive = tuple(map(tuple, exclusive))
        self.pyramid = pyramid
        self.decoder = decoder
        self.pooled_head = pooled_head
        self.num_input_maps = num_input_maps
        self.first_stage: FirstStage | None = None
        self.register_buffer("mean", torch.tensor(mean))
        self.register_buffer("std", torch.tensor(std))

    @property
    def finds_lines(self) -> bool:
        """Whether its outputs can have lines and tips: by its own line decoder, or by its first stage."""
        return self.decoder is not None or self.first_stage is not None

    def forward(self, images: Tensor, with_lines: bool | None = None) -> Outputs:
        """(B, 1, H, W) uint8, or float32 in 0..255, -> outputs of B images.

        Lines and tips are among them if `with_lines` says so; None: in training alone. Where the model sees maps of a
        first stage, images with them, (B, 1 + C, H, W), are taken as they are, and no lines come out.
        """
        if self.first_stage is not None and images.shape[1] == 1:
            found = self.first_stage(images)
            outputs = self.classify(self.features(self.with_maps(images, found)))
            return dataclasses.replace(found, logits=outputs.logits, global_logits=None) if with_lines else outputs
        with_lines = self.decoder is not None and (self.training if with_lines is None else with_lines)
        return self.classify(self.features(images, with_lines), with_lines)

    def classify(self, features: Features, with_lines: bool = False) -> Outputs:
        """What `features` gives -> outputs of as many images."""
        logits = self.head(features.seen)
        if self.decoder is None or not features.levels:
            return Outputs(logits=logits)
        decoded = self.decoder(features.levels)
        of_tips = None if self.pooled_head is None else self.pooled_head(logits, decoded)
        if not with_lines:
            return Outputs(logits=logits if of_tips is None else of_tips.logits)
        return Outputs(
            logits=logits if of_tips is None else of_tips.logits,
            global_logits=None if of_tips is None else logits,
            line_logits=decoded.line_logits,
            tip_logits=decoded.tip_logits,
            landmark_logits=decoded.landmark_logits,
            tip_pixels=None if of_tips is None else of_tips.pixels,
            position_logits=None if of_tips is None else of_tips.position_logits,
        )

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

    def features(self, images: Tensor, with_lines: bool = False) -> Features:
        """What the head sees of (B, 1, H, W) uint8, with the pyramid where the decoder has a part in the outputs.

        Where the model sees maps of a first stage, they come with the images, (B, 1 + C, H, W), or are found.
        """
        pixels = self.normalise(images)
        if self.pyramid is not None and (with_lines or self.pooled_head is not None):
            return self.pyramid(self.backbone, pixels, self.feature_map)
        seen: Tensor = self.backbone(pixels) if self.feature_map is None else self.feature_map(self.backbone, pixels)
        return Features(seen=seen)

    def with_maps(self, images: Tensor, found: Outputs) -> Tensor:
        """(B, 1, H, W) images with the maps of a first stage, (B, 1 + C, H, W) float32 in 0..255."""
        height, width = images.shape[2:]
        return torch.cat([images.float(), as_channels(maps_of(found), (height, width))], 1)

    def normalise(self, images: Tensor) -> Tensor:
        """(B, 1, H, W) uint8 -> float32 with the mean and standard deviation of the data set taken out.

        Maps of a first stage, (B, 1 + C, H, W), become probabilities in 0..1; where they do not come with the images,
        they are found here.
        """
        if self.first_stage is not None and images.shape[1] == 1:
            images = self.with_maps(images, self.first_stage(images))
        pixels = images.float() / 255
        if not self.num_input_maps:
            return (pixels - self.mean) / self.std
        return torch.cat([(pixels[:, :1] - self.mean) / self.std, pixels[:, 1:]], 1)


@torch.inference_mode(mode=False)  # else, called in such a context, its parameters could never learn
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
    lines: str | None = None,
    map_shape: tuple[int, int] = (0, 0),
    device_types: Mapping[str, tuple[str, ...]] = MappingProxyType({}),
    num_landmarks: int = 0,
    num_input_maps: int = 0,
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
        lines: "auxiliary", "pooled"; any other: no line decoder.
        map_shape: (h, w) of the decoder's maps.
        device_types: name -> its labels, those that the decoder tells apart.
        num_landmarks: landmarks that it finds.
        num_input_maps: of a first stage, which it sees beside the image.

    Raises:
        UserError: see `create_backbone`; for attention heads `find_feature_map`, for lines `find_pyramid`.
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
        num_input_maps=num_input_maps,
    )
    if not is_pooled or lines in LEARNT_LINES:
        check_patches(backbone, backbone_model, image_shape)  # timm says less of it
    feature_map = None if is_pooled else find_feature_map(backbone, backbone_model, image_shape, num_input_maps)
    head: LinearHead | AttentionHeads
    num_features = backbone.head_hidden_size if feature_map is None else feature_map.num_channels
    assert isinstance(num_features, int), "timm's models say how many features they give"
    if feature_map is None:
        head = LinearHead(num_features, len(label_columns), drop_rate)
    else:
        labels_of_heads = heads.values() or (label_columns,)
        head = AttentionHeads(num_features, [[column_of[label] for label in labels] for labels in labels_of_heads])
    if lines not in LEARNT_LINES:
        return Classifier(backbone, head, feature_map, mean, std, origin, groups, num_input_maps=num_input_maps)
    pyramid = find_pyramid(backbone, backbone_model, image_shape, map_shape)
    decoder = LineDecoder(pyramid.num_channels, len(device_types), map_shape, num_landmarks)
    type_columns = [[column_of[label] for label in labels] for labels in device_types.values()]
    pooled_head = PooledHead(type_columns, map_shape) if lines == "pooled" else None
    return Classifier(backbone, head, feature_map, mean, std, origin, groups, pyramid, decoder, pooled_head)
