"""Where a model looked: Grad-CAM of each label that is predicted positive, and the attention maps of multi-head models.

A map says which region the prediction hangs on, not that the prediction is right.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import cv2
import numpy as np
import numpy.typing as npt
import torch
from captum.attr import LayerGradCam
from PIL import Image
from torch import Tensor, nn

from catheters.checkpoints.checkpoint import Checkpoint
from catheters.data.preprocessing import Preprocessed, Preprocessing, place, resize
from catheters.errors import UserError, counted, one_line
from catheters.inference.batch_prediction import Predictions
from catheters.inference.figures import Drawn, Figures, Xray, draw_images, safe_names
from catheters.inference.inputs import Images
from catheters.inference.interpretation import Findings
from catheters.inference.predictor import REMEDIES, Predictor
from catheters.models.classifier import Classifier
from catheters.models.feature_map import has_channels_last, tokens_as_map
from catheters.models.heads import AttentionHeads
from catheters.models.outputs import Outputs
from catheters.models.pyramid import Features
from catheters.runtime.device import device_name
from catheters.runtime.precision import autocast
from catheters.runtime.shortage import DeviceError, device_work
from catheters.viz.layout import BRIGHT, DIM, TILE_WIDTH, Cell, Heading
from catheters.viz.tiles import NOTE_COLOUR

Pixels = npt.NDArray[np.uint8]
Map = npt.NDArray[np.float32]

OPACITY = 0.55
"""Of the colour where a map is 1."""
MAX_SHEET_MAPS = 5
"""Maps of an image on the sheet, beside the image itself."""


@dataclass(frozen=True, kw_only=True)
class Explained:
    """An image with what the models looked at.

    Attributes:
        xray: (H, W) uint8, as a viewer would show it, every pixel.
        maps: name -> (H, W) in 0..1, on that image: a label's Grad-CAM, or `<device type>, attention`.
    """

    xray: Pixels
    maps: dict[str, Map]


class _WithFeatures(nn.Module):
    """A classifier whose last feature map is the output of a module, `features`, where gradients can be had.

    Of a transformer under a linear head it is made of the tokens that its last layer reads.
    """

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.classifier = classifier
        self.features = nn.Identity()

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, 1, H, W) normalised pixels -> (B, K) logits."""
        backbone = self.classifier.backbone
        if self.classifier.feature_map is not None:
            return self._classify(self.features(self.classifier.feature_map(backbone, pixels)))
        features = backbone.forward_features(pixels)  # type: ignore[operator]
        if not isinstance(features, Tensor) or features.ndim != 4:
            del features  # with all that its gradients would need
            with tokens_as_map(backbone, pixels, self.features):
                return self._classify(backbone(pixels))
        if has_channels_last(backbone):
            seen = self.features(features.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
            return self._classify(backbone.forward_head(seen))  # type: ignore[operator]
        return self._classify(backbone.forward_head(self.features(features)))  # type: ignore[operator]

    def _classify(self, seen: Tensor) -> Tensor:
        return self.classifier.classify(Features(seen=seen)).logits


class _Logits(nn.Module):
    """A classifier that returns its logits alone."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, images: Tensor) -> Tensor:
        """(B, 1, H, W) uint8 -> (B, K)."""
        outputs: Outputs = self.classifier(images)
        return outputs.logits


def grad_cam(classifier: Classifier, images: Tensor, column: int | list[int]) -> Tensor:
    """Selvaraju et al., Grad-CAM, ICCV 2017, by the captum library: on the last feature map, or a line decoder's.

    Args:
        classifier: in evaluation mode.
        images: (B, 1, H, W) uint8, on its device.
        column: of the label in its output; (B,) of each image's own.

    Returns:
        (B, h, w) float32, at least 0, not scaled.

    Raises:
        UserError: a linear head over a backbone that has neither a feature map nor tokens.
    """
    if classifier.pooled_head is not None:
        assert classifier.decoder is not None, "a pooled head has a decoder"
        layer = LayerGradCam(_Logits(classifier), classifier.decoder.smooth[0])
        attribution = layer.attribute(images.float(), target=column, relu_attributions=True)
    else:
        model = _WithFeatures(classifier)
        pixels = classifier.normalise(images)
        attribution = LayerGradCam(model, model.features).attribute(pixels, target=column, relu_attributions=True)
    maps: Tensor = attribution[:, 0].detach().float()
    return maps


def check_maps(predictor: Predictor) -> None:
    """Raise a UserError if there are no heatmaps of one of the models, rather than after the predictions."""
    for checkpoint in predictor.models.checkpoints:
        check_maps_of(checkpoint, predictor.device)


@torch.no_grad()
def check_maps_of(checkpoint: Checkpoint, device: torch.device) -> None:
    """Raise a UserError if there are no heatmaps of a model that is on this device."""
    shape = (1, 1, *checkpoint.preprocessing.image_shape)
    black = torch.zeros(shape, dtype=torch.uint8, device=device)
    try:
        with device_work("heatmaps", REMEDIES), autocast(device, checkpoint.dtype_on(device)):
            _WithFeatures(checkpoint.model)(checkpoint.model.normalise(black))
    except DeviceError:
        return  # predictions take less; each image without heatmaps is named
    except UserError as error:
        raise UserError(f"{checkpoint.file}: {error}") from None
    except RuntimeError as error:
        raise UserError(
            f"{checkpoint.file}: no heatmaps can be made of {checkpoint.settings.backbone_model} "
            f"({one_line(error, 120)}); leave heatmaps out"
        ) from None


@torch.inference_mode()
def attention_maps(classifier: Classifier, images: Tensor) -> Tensor | None:
    """Where each head looks: (B, 1, H, W) uint8 -> (B, G, h, w) in 0..1; None for a model without such heads."""
    if not isinstance(classifier.head, AttentionHeads):
        return None
    return classifier.head.attention_maps(classifier.features(images).seen)


def explain(predictor: Predictor, xray: Pixels, made: Sequence[Preprocessed], labels: Sequence[str]) -> Explained:
    """The maps of some labels, means over the checkpoints, on the image itself.

    Args:
        predictor: the models.
        xray: (H, W) uint8, as a viewer would show it.
        made: the image as each of `predictor.preprocessings` makes it.
        labels: whose maps are wanted.

    Raises:
        DeviceError: the device has no room for it, which takes more than to predict.
    """
    with device_work(f"heatmaps on {device_name(predictor.device)}", REMEDIES):
        return Explained(xray=xray, maps=_mean_maps(predictor, xray, made, labels))


def _mean_maps(
    predictor: Predictor, xray: Pixels, made: Sequence[Preprocessed], labels: Sequence[str]
) -> dict[str, Map]:
    made_of = dict(zip(predictor.preprocessings, made, strict=True))
    sums: dict[str, Map] = {}
    counts: dict[str, int] = {}

    def add(name: str, small: Map, preprocessing: Preprocessing) -> None:
        highest = float(small.max())
        projected = project(small / highest if highest > 0 else small, made_of[preprocessing], preprocessing, xray)
        sums[name] = sums[name] + projected if name in sums else projected
        counts[name] = counts.get(name, 0) + 1

    for checkpoint in predictor.models.checkpoints:
        preprocessing = checkpoint.preprocessing
        images = torch.from_numpy(made_of[preprocessing].pixels)[None, None].to(predictor.device)
        columns = checkpoint.settings.label_columns
        for label in labels:
            add(label, grad_cam(checkpoint.model, images, columns.index(label))[0].cpu().numpy(), preprocessing)
        attention = attention_maps(checkpoint.model, images)
        if attention is not None:
            heads = checkpoint.settings.heads or {"all labels": columns}  # without device types there is one head
            for (device_type, labels_of_head), small in zip(heads.items(), attention[0].cpu().numpy(), strict=True):
                if set(labels) & set(labels_of_head):
                    add(f"{device_type}, attention", small, preprocessing)
    return {name: (total / counts[name]).astype(np.float32) for name, total in sums.items()}


def project(small: Map, made: Preprocessed, preprocessing: Preprocessing, xray: Pixels) -> Map:
    """(h, w) on a preprocessed image -> (H, W) on its image, bilinear; 0 where the model saw nothing of it."""
    height, width = xray.shape
    placement = place(made.box, preprocessing)
    image_height, image_width = preprocessing.image_shape
    # Centres of pixels are whole numbers: a position of the image times this, and this beside it, is one of the map.
    per_column, per_row = small.shape[1] / image_width, small.shape[0] / image_height
    to_map = np.array(
        [
            [placement.scale[0] * per_column, 0, (placement.offset[0] + 0.5) * per_column - 0.5],
            [0, placement.scale[1] * per_row, (placement.offset[1] + 0.5) * per_row - 0.5],
        ]
    )
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    projected = cv2.warpAffine(small, to_map, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    top, left, bottom, right = (round(edge) for edge in made.box)
    seen = np.zeros((height, width), dtype=np.float32)
    seen[top:bottom, left:right] = projected[top:bottom, left:right]
    return seen


def overlay(xray: Pixels, heat: Map) -> Pixels:
    """(H, W) grey and (H, W) in 0..1 -> (H, W, 3) RGB, the map in colours over the image."""
    levels = np.rint(255 * heat).astype(np.uint8)
    colours = cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)
    share = OPACITY * heat[..., None]
    return np.rint((1 - share) * xray[..., None] + share * colours).astype(np.uint8)


def write_heatmaps(
    folder: Path, predictor: Predictor, images: Images, predictions: Predictions, findings: Findings, num_workers: int
) -> Drawn:
    """Draw every label that is predicted positive over its X-ray, in a folder for each image, and a contact sheet.

    Args:
        folder: for the images; made where it is not there.
        predictor: the models.
        images: n of them.
        predictions: what became of them.
        findings: what they show.
        num_workers: processes that read.
    """
    rows = np.flatnonzero(findings.is_predicted_positive.any(axis=1)).tolist()

    def draw(row: int, name: str, xray: Xray) -> Figures:
        labels = [label for k, label in enumerate(findings.labels) if findings.is_predicted_positive[row, k]]
        explained = explain(predictor, *xray, labels)
        files = zip(safe_names(list(explained.maps)), explained.maps.values(), strict=True)
        return Figures(
            files={f"{name}/{file}": Image.fromarray(overlay(explained.xray, heat)) for file, heat in files},
            cell=_cell(images.uids[row], predictions.quality_flags[row], explained, findings, row),
        )

    def describe(num_shown: int) -> Heading:
        return Heading(
            title=f"{num_shown} of {counted(len(rows), 'image')} with labels predicted positive ({findings.rule})",
            subtitle=describe_sheet(is_calibrated=predictor.models.is_calibrated),
            legend={},
        )

    return draw_images(
        folder,
        images,
        rows,
        predictor.preprocessings,
        draw,
        describe,
        doing="drawing heatmaps",
        num_workers=num_workers,
    )


def describe_sheet(*, is_calibrated: bool) -> str:
    """What the contact sheet shows, and what may not be concluded from it."""
    return (
        "Where the models looked for each label: Grad-CAM on the last feature map, mean over the models, scaled to its "
        "highest value, from dark (little) to yellow (most). The number is the label's probability, "
        f"{'calibrated' if is_calibrated else 'not calibrated'}. A map does not show that the prediction is right, nor "
        "where exactly a tip lies. Research software, not a medical device: nothing here may decide about a patient."
    )


def _cell(uid: str, quality_flags: Sequence[str], explained: Explained, findings: Findings, row: int) -> Cell:
    height, width = explained.xray.shape
    shape = (max(1, round(height * TILE_WIDTH / width)), TILE_WIDTH)
    small = resize(explained.xray, shape)
    tiles = [Image.fromarray(small).convert("RGB")]
    captions = ["X-ray"]
    for name, heat in list(explained.maps.items())[:MAX_SHEET_MAPS]:
        tiles.append(Image.fromarray(overlay(small, _shrink(heat, shape))))
        probability = findings.probabilities[row, findings.labels.index(name)] if name in findings.labels else None
        captions.append(name if probability is None else f"{name} {probability:.2f}")
    num_left = len(explained.maps) - MAX_SHEET_MAPS
    text = [(uid, BRIGHT), *((f"quality flag: {flag}", NOTE_COLOUR) for flag in quality_flags)]
    text += [(f"and {num_left} maps more in its folder", DIM)] if num_left > 0 else []
    return Cell([tiles], captions, text)


def _shrink(heat: Map, shape: tuple[int, int]) -> Map:
    return cast(Map, cv2.resize(heat, shape[::-1], interpolation=cv2.INTER_AREA))
