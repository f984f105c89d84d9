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
from catheters.point_maps import sigma_of

LINE_POS_WEIGHT = 10.0
"""Weight of the pixels that a line covers, 1 to 3% of all."""
TIP_FOCUS = 2.0
"""Exponent of the quality focal loss."""
TIP_SCALE = 0.6
"""Of the sum over a tip map's pixels: .05 makes it as large as other terms, and twelve times that finds more tips."""
LANDMARK_SCALE = 0.05
"""The same of a landmark's map."""
ROUNDING = 1e-3
"""Of two shares whose sum is 1."""
MIN_TIP = 0.3
"""Least value of a tip map where a candidate counts as that tip: within 1.5 standard deviations of the Gaussian."""


class LineLosses(nn.Module):
    """The terms of the loss that drawn lines and landmarks give."""

    def __init__(self, type_columns: Sequence[Sequence[int]]) -> None:
        """Of device types, whose labels have these columns."""
        super().__init__()
        self._type_columns = [list(columns) for columns in type_columns]

    def forward(self, outputs: Outputs, batch: Batch, weights: Tensor | None) -> dict[str, Tensor]:
        """Terms by name.

        Args:
            outputs: with lines.
            batch: with line targets.
            weights: (B,) by which the terms of each image are multiplied; None: all weigh 1.
        """
        assert outputs.line_logits is not None and outputs.tip_logits is not None, "the model was asked for lines"
        assert batch.line_masks is not None and batch.tips is not None and batch.lines_known is not None
        known = batch.lines_known if weights is None else batch.lines_known * weights[:, None]
        map_shape = (outputs.tip_logits.shape[2], outputs.tip_logits.shape[3])
        tips = draw_points(batch.tips, len(self._type_columns), map_shape)
        losses = {
            LINES_TERM: line_loss(outputs.line_logits, batch.line_masks.float() / 255, known),
            TIPS_TERM: TIP_SCALE * point_loss(outputs.tip_logits, tips, known),
        }
        if outputs.landmark_logits is not None and batch.landmarks is not None:
            num_landmarks = outputs.landmark_logits.shape[1]
            places = draw_points(batch.landmarks, num_landmarks, map_shape)
            # A landmark that nobody marked is somewhere all the same; of a mixed image both have to be marked.
            is_of = batch.landmarks[:, :, 2, None] == torch.arange(num_landmarks, device=places.device)  # (B, Q, P)
            marked = ((batch.landmarks[:, :, 4, None] * is_of).sum(1) > 1 - ROUNDING).float()
            if weights is not None:
                marked = marked * weights[:, None]
            losses[LANDMARKS_TERM] = LANDMARK_SCALE * point_loss(outputs.landmark_logits, places, marked)
        if outputs.position_logits is not None and outputs.tip_pixels is not None:
            losses[POSITIONS_TERM] = self._of_positions(
                outputs.position_logits, outputs.tip_pixels, batch.tips, known, map_shape[1]
            )
        return losses

    def _of_positions(self, logits: Tensor, pixels: Tensor, tips: Tensor, known: Tensor, width: int) -> Tensor:
        """Sum over the device types of `position_loss`; of (B, K, M) logits at (B, T, M) pixels of the maps."""
        of_types = []
        for number, columns in enumerate(self._type_columns):
            x, y = pixels[:, number] % width, pixels[:, number] // width  # (B, M)
            squared = (x[:, :, None] - tips[:, None, :, 0]) ** 2 + (y[:, :, None] - tips[:, None, :, 1]) ** 2
            heights = tips[:, None, :, 4] * (tips[:, None, :, 2] == number)
            near = heights * torch.exp(-squared / (2 * sigma_of(width) ** 2))  # (B, M, Q)
            of_labels = torch.stack([(near * (tips[:, None, :, 3] == column)).amax(2) for column in columns], 1)
            # A list as index is sent to a GPU, which the step would wait for.
            of_type = torch.stack([logits[:, column] for column in columns], 1)
            of_types.append(position_loss(of_type, of_labels, near.amax(2), known[:, number]))
        return torch.stack(of_types).sum()


def draw_points(points: Tensor, num_channels: int, map_shape: tuple[int, int]) -> Tensor:
    """A Gaussian around each point, the highest where several overlap.

    Args:
        points: (B, Q, 5), see `catheters.data.line_targets.POINT_COLUMNS`.
        num_channels: C, device types or landmarks.
        map_shape: (h, w).

    Returns:
        (B, C, h, w) in 0..1.
    """
    sigma = sigma_of(map_shape[1])
    along_y, along_x = (
        torch.exp(-((torch.arange(length, device=points.device) - points[:, :, axis, None]) ** 2) / (2 * sigma**2))
        for length, axis in zip(map_shape, (1, 0), strict=True)
    )  # (B, Q, h), (B, Q, w)
    channels = torch.arange(num_channels, device=points.device)
    heights = points[:, :, 4, None] * (points[:, :, 2, None] == channels)  # (B, Q, C)
    maps = points.new_zeros(len(points), num_channels, *map_shape)
    for number in range(points.shape[1]):  # all at once would take Q times the memory
        bump = along_y[:, number, :, None] * along_x[:, number, None, :]
        maps = torch.maximum(maps, heights[:, number, :, None, None] * bump[:, None])
    return maps


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


def point_loss(logits: Tensor, maps: Tensor, known: Tensor) -> Tensor:
    """Quality focal loss, summed over each map, averaged over images and channels.

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
    return ((focus * cross_entropy).sum((2, 3)) * known).mean()


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
