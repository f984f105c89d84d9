"""Whether the heatmaps of cached images point at the tips that were drawn there."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from catheters.data.batch import Batch
from catheters.data.preprocessing import Placement
from catheters.evaluation.lines.pointing_game import tip_hit
from catheters.inference.heatmaps import Map, attention_maps, grad_cam
from catheters.models.classifier import Classifier
from catheters.runtime.device import device_name
from catheters.runtime.shortage import device_work

Floats = npt.NDArray[np.float64]
Box = tuple[float, float, float, float]

GRAD_CAM, ATTENTION = "Grad-CAM", "attention"
"""The kinds of heatmaps; attention heads alone have the second one."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """A tip, or several, that the heatmap of a label should point at.

    Attributes:
        column: of the label in the model's output.
        head: of the label's attention head; no matter for other models.
        tips: (t, 2) x and y in pixels of the cached image, t at least 1.
        window: (top, left, bottom, right) whole pixels of the cached image that show the X-ray, and no padding.
    """

    column: int
    head: int
    tips: Floats
    window: tuple[int, int, int, int]


def shown_window(box: Box, placement: Placement) -> tuple[int, int, int, int]:
    """(top, left, bottom, right) of the pixels of a cached image that show the kept part of the X-ray.

    Args:
        box: (top, left, bottom, right) of that part, in pixels of the X-ray.
        placement: where the X-ray's pixels lie in the cached image.
    """
    top, left, bottom, right = box
    # Centres of pixels are whole numbers, so that edges lie half a pixel before and after them.
    corners = placement.apply(np.array([[left - 0.5, top - 0.5], [right - 0.5, bottom - 0.5]])) + 0.5
    (x0, y0), (x1, y1) = np.rint(corners).astype(int).tolist()
    return y0, x0, y1, x1


def mean_hit(small: Map, target: Target, image_shape: tuple[int, int]) -> float:
    """How many of a target's tips lie in the hottest part of a heatmap, as a share of them.

    The map is enlarged bilinearly to the cached image, as `predict.py --heatmaps` draws it on the X-ray. One that is
    not finite points nowhere: it counts as a constant one, which is chance.

    Args:
        small: (h, w), the higher the hotter.
        target: the tips.
        image_shape: (H, W) of the cached image, in pixels.
    """
    if not np.isfinite(small).all():
        small = np.zeros_like(small)
    height, width = image_shape
    enlarged: Map = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR).astype(np.float32, copy=False)
    top, left, bottom, right = target.window
    heatmap = enlarged[top:bottom, left:right]
    return float(np.mean([tip_hit(heatmap, (x - left, y - top)) for x, y in target.tips.tolist()]))


def heatmaps(classifier: Classifier, images: Tensor, targets: Sequence[Target]) -> dict[str, Map]:
    """Kind -> (B, h, w) of B images, (B, 1, H, W) uint8 on the model's device, each of its target's label."""
    maps = {GRAD_CAM: grad_cam(classifier, images, [target.column for target in targets])}
    attention = attention_maps(classifier, images)
    if attention is not None:
        heads = torch.tensor([target.head for target in targets], device=attention.device)
        maps[ATTENTION] = attention[torch.arange(len(targets), device=attention.device), heads]
    return {kind: of_kind.float().cpu().numpy() for kind, of_kind in maps.items()}


def hits_of(
    classifiers: Sequence[Classifier], batches: Iterable[Batch], targets: Sequence[Target], device: torch.device
) -> dict[str, Floats]:
    """What the heatmaps of some models hit.

    Args:
        classifiers: M of them, in evaluation mode, on the device; of one architecture.
        batches: of n cached images, in order.
        targets: (n,) one of each image.
        device: where to compute.

    Returns:
        Kind of heatmap -> (M, n) in 0..1.

    Raises:
        DeviceError: the device has no room for it.
        UserError: the models have no heatmaps, see `grad_cam`.
    """
    left = iter(targets)
    found: list[dict[str, Floats]] = []
    for batch in batches:
        of_batch = [next(left) for _ in range(len(batch))]
        with device_work(f"heatmaps on {device_name(device)}", "CUDA_VISIBLE_DEVICES= computes on the CPU"):
            images = batch.images.to(device, non_blocking=True)
            found.append(_hits_of_batch(classifiers, images, of_batch))
    return {kind: np.concatenate([of_batch[kind] for of_batch in found], axis=1) for kind in found[0]}


def _hits_of_batch(classifiers: Sequence[Classifier], images: Tensor, targets: Sequence[Target]) -> dict[str, Floats]:
    height, width = images.shape[-2:]
    of_models = [heatmaps(classifier, images, targets) for classifier in classifiers]

    def rows(kind: str) -> Iterator[list[float]]:
        for maps in of_models:
            yield [mean_hit(small, target, (height, width)) for small, target in zip(maps[kind], targets, strict=True)]

    return {kind: np.array(list(rows(kind))) for kind in of_models[0]}
