"""What a model learns from at a time: named tensors, made in one place and sent to a device in one place."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import default_collate

from catheters.named_tensors import NamedTensors

Sample = Mapping[str, Any]
"""One image of a batch: tensors, or names of tensors, by the names of `Batch`, each without its first axis."""


LINE_FIELDS = ("line_masks", "lines_known", "tips", "landmarks")
"""What a batch has where lines are learnt."""


@dataclass(frozen=True, kw_only=True)
class Batch(NamedTensors):
    """Some images, with what training knows of them.

    Attributes:
        images: (B, 1, H, W) uint8, or float32 in 0..255 once mixup has mixed them.
        targets: (B, K) float32, 0 or 1, or between them once mixup has mixed them; 0 where a label is unknown.
        labels_known: (B, K) float32, 1 where a label is known, else 0; None where all are.
        draws: (B, P) float32, what a `GpuAugmentation` does to each image; None where nothing is augmented on the
            device.
        numbers: name -> (B,) float32, further numbers of the label table: see the setting `number_columns`.
        line_masks: (B, T, h, w) uint8, 255 where a line of a device type lies; None where no lines are learnt. Float32
            in 0..255 once mixup has mixed them.
        lines_known: (B, T) float32, 1 where it is known where the lines of a device type lie, else 0.
        tips: (B, Q, 5) float32, see `catheters.data.line_targets.POINT_COLUMNS`.
        landmarks: (B, P, 5) the same, those that are known; None where none is learnt.
    """

    images: Tensor
    targets: Tensor
    labels_known: Tensor | None = None
    draws: Tensor | None = None
    numbers: Mapping[str, Tensor] = field(default_factory=dict)
    line_masks: Tensor | None = None
    lines_known: Tensor | None = None
    tips: Tensor | None = None
    landmarks: Tensor | None = None

    @classmethod
    def collate(cls, samples: Sequence[Sample]) -> Self:
        """Stack samples; in a DataLoader worker the batch lies in shared memory at once."""
        return cls(**default_collate(list(samples)))

    def __len__(self) -> int:
        """The number of images."""
        return len(self.targets)

    def labels(self) -> npt.NDArray[np.float32]:
        """(B, K) the targets, NaN where a label is unknown."""
        known = self.labels_known
        labels: npt.NDArray[np.float32] = (
            (self.targets if known is None else torch.where(known == 1, self.targets, math.nan)).cpu().numpy()
        )
        return labels

    def without_images(self) -> Self:
        """What losses read, in memory that does not grow with the images' size; `images` becomes (0,)."""
        kept: dict[str, Any] = dict.fromkeys(("draws", *LINE_FIELDS))
        return dataclasses.replace(self, **{**kept, "images": self.images.new_empty(0)})

    def pin_memory(self) -> Self:
        """In memory from which copies to a GPU need not be waited for; the name that DataLoader asks for."""
        return self.map(Tensor.pin_memory)

    def to(self, device: torch.device) -> Self:
        """On a device, see `send`."""
        return self.map(lambda tensor: send(tensor, device))


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on the device, without waiting for the GPU to have done what it was given before."""
    if device.type == "cuda" and tensor.device.type == "cpu" and not tensor.is_pinned():
        tensor = tensor.pin_memory()  # from other memory, the copy would be waited for
    # Apple's driver may still be reading the memory when it is used for something else.
    return tensor.to(device, non_blocking=device.type != "mps")
