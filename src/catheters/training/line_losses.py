"""Losses of the line decoder: masks of lines, maps of their tips, and the labels of tips.

Where a device type's lines are unknown, they have no gradient. Each is a sum over what is known divided by the number
of all images, so that a batch counts by what is known of it, and gradients of accumulated batches, or of several ranks,
add up to those of the whole.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from catheters.config.validation import LANDMARKS_TERM, LINES_TERM, POSITIONS_TERM, TIPS_TERM
from catheters.data.batch import Batch
from catheters.models.outputs import Outputs

LINE_POS_WEIGHT = 10.0
"""Weight of the pixels that a line covers, 1 to 3% of all."""
TIP_FOCUS = 2.0
"""Exponent of the quality focal loss."""
TIP_SCALE = 0.05
"""Brings the sum over a map's pixels to the size of the other terms."""
MIN_TIP = 0.3
"""Least value of a tip map where a candidate counts as that tip: within 1.5 standard deviations of the Gaussian."""


class LineLosses(nn.Module):
    """The terms of the loss that drawn lines give."""

    def __init__(self, type_columns: Sequence[Sequence[int]]) -> None:
        """Of device types, whose labels have these columns."""
        super().__init__()
        self._type_columns = [list(columns) for columns in type_columns]

    def forward(self, outputs: Outputs, batch: Batch, weights: Tensor | None) -> dict[str, Tensor]:
        """Terms by name; those of each image multiplied by its weight, (B,).

        Args:
            outputs: with lines.
            batch: with line targets.
            weights: (B,) of the images; None: all weigh 1.
        """
        assert outputs.line_logits is not None and outputs.tip_logits is not None, "the model was asked for lines"
        assert batch.line_masks is not None and batch.tip_maps is not None and batch.lines_known is not None
        known = batch.lines_known if weights is None else batch.lines_known * weights[:, None]
        masks, maps = batch.line_masks.float() / 255, batch.tip_maps.float() / 255
        tips = torch.stack([maps[:, columns].amax(1) for columns in self._type_columns], 1)  # (B, T, h, w)
        losses = {
            LINES_TERM: line_loss(outputs.line_logits.float(), masks, known),
            TIPS_TERM: tip_loss(outputs.tip_logits.float(), tips, known),
        }
        if outputs.landmark_logits is not None and batch.landmark_maps is not None:
            assert batch.landmarks_known is not None, "they come together"
            marked = batch.landmarks_known if weights is None else batch.landmarks_known * weights[:, None]
            losses[LANDMARKS_TERM] = tip_loss(
                outputs.landmark_logits.float(), batch.landmark_maps.float() / 255, marked
            )
        if outputs.position_logits is not None and outputs.tip_pixels is not None:
            of_types = []
            for number, columns in enumerate(self._type_columns):
                pixels = outputs.tip_pixels[:, number]  # (B, M)
                of_tips = tips[:, number].flatten(1).gather(1, pixels)
                of_labels = maps[:, columns].flatten(2).gather(2, pixels[:, None].expand(-1, len(columns), -1))
                logits = outputs.position_logits[:, columns].float()
                of_types.append(position_loss(logits, of_labels, of_tips, known[:, number]))
            losses[POSITIONS_TERM] = torch.stack(of_types).sum()
        return losses


def line_loss(logits: Tensor, masks: Tensor, known: Tensor) -> Tensor:
    """Weighted binary cross-entropy plus Dice, averaged over images and device types.

    Dice is that of Milletari et al. 2016, "V-Net", section 3, with squares in the denominator, of the device types that
    an image shows; where it has none, the cross-entropy alone counts.

    Args:
        logits: (B, T, h, w).
        masks: (B, T, h, w) in 0..1.
        known: (B, T) the weight of each; 0 where nobody knows.

    Returns:
        A scalar.
    """
    pos_weight = torch.full((), LINE_POS_WEIGHT, device=logits.device)
    cross_entropy = functional.binary_cross_entropy_with_logits(logits, masks, pos_weight=pos_weight, reduction="none")
    probabilities = torch.sigmoid(logits)
    overlap = (probabilities * masks).sum((2, 3))
    sizes = (probabilities**2).sum((2, 3)) + (masks**2).sum((2, 3))
    is_shown = masks.amax((2, 3)) > 0
    dice = torch.where(is_shown, 1 - (2 * overlap + 1) / (sizes + 1), 0.0)
    return ((cross_entropy.mean((2, 3)) + dice) * known).mean()


def tip_loss(logits: Tensor, maps: Tensor, known: Tensor) -> Tensor:
    """Quality focal loss, summed over each map, averaged over images and device types.

    Li et al. 2020, "Generalized Focal Loss", eq. 2: -|y - p|^2 ((1 - y) log(1 - p) + y log(p)), whose targets may be
    any number in 0..1, as those of a Gaussian are.

    Args:
        logits: (B, T, h, w).
        maps: (B, T, h, w) in 0..1.
        known: as of `line_loss`.

    Returns:
        A scalar.
    """
    cross_entropy = functional.binary_cross_entropy_with_logits(logits, maps, reduction="none")
    focus = (maps - torch.sigmoid(logits)).abs() ** TIP_FOCUS
    return TIP_SCALE * ((focus * cross_entropy).sum((2, 3)) * known).mean()


def position_loss(logits: Tensor, of_labels: Tensor, of_tips: Tensor, known: Tensor) -> Tensor:
    """Binary cross-entropy of the labels of the candidates that are drawn tips, averaged over images and labels.

    Args:
        logits: (B, L, M) of each label of a device type and each candidate.
        of_labels: (B, L, M) the labels' tip maps at the candidates, in 0..1.
        of_tips: (B, M) their maximum.
        known: (B,) as of `line_loss`.

    Returns:
        A scalar.
    """
    targets = of_labels / of_tips.clamp(min=MIN_TIP)[:, None]
    cross_entropy = functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return ((cross_entropy * (of_tips > MIN_TIP)[:, None]).sum(2).mean(1) * known).mean()
