"""A step and a batch to probe before a run starts: whether a model learns at all, its memory, what is faster."""

import torch
from torch import Tensor

from catheters.checkpoints.parts import build_classifier
from catheters.config.settings import Settings
from catheters.data.batch import Batch
from catheters.data.gpu_augmentation import GpuAugmentation
from catheters.models.backbone import IN_CHANS
from catheters.models.classifier import Classifier
from catheters.runs.build import build_step
from catheters.training.step import TrainStep

PROBE_TIPS = 6
"""Tips of an image; few have more."""


def probe_step(
    settings: Settings, device: torch.device, num_batches: int, model: Classifier | None = None
) -> TrainStep:
    """The step of a model that is thrown away afterwards; of one with random weights where none is given.

    Without gradient scaler: it would pass over the first steps until it has found its scale, and the optimizer might
    make no state.
    """
    if model is None:
        model = build_classifier(settings.with_random_weights(), mean=0.5, std=0.25).to(device)
    step = build_step(settings, model.train(), num_batches, device)
    step.scaler = torch.amp.GradScaler(device.type, enabled=False)
    return step


def probe_batch(settings: Settings, num_images: int) -> Batch:
    """Images of noise with targets, the same each time; of draws, where there are any, those of one image for all.

    Of black images batch norm would make gradients beyond any range.
    """
    generator = torch.Generator().manual_seed(0)
    shape = (num_images, IN_CHANS + settings.num_input_maps, *settings.image_shape)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    targets = torch.randint(0, 2, (num_images, len(settings.label_columns)), generator=generator).float()
    draws = None
    if settings.augment_on == "device":
        one = GpuAugmentation(settings.train_transforms, settings.image_shape).draw(0)
        draws = torch.from_numpy(one).repeat(num_images, 1)
    if not settings.learns_lines:
        return Batch(images=images, targets=targets, draws=draws)

    num_types, num_landmarks = len(settings.device_types), len(settings.landmarks)
    height, width = settings.map_shape
    masks = torch.randint(0, 256, (num_images, num_types, height, width), dtype=torch.uint8, generator=generator)

    def points(number: int, num_channels: int) -> Tensor:
        places = torch.rand((num_images, number, 2), generator=generator) * torch.tensor([width, height])
        channels = torch.randint(0, num_channels, (num_images, number, 2), generator=generator)
        return torch.cat([places, channels, torch.ones((num_images, number, 1))], 2)

    return Batch(
        images=images,
        targets=targets,
        draws=draws,
        line_masks=masks,
        lines_known=torch.ones(num_images, num_types),
        tips=points(PROBE_TIPS, num_types),
        landmarks=points(num_landmarks, num_landmarks) if num_landmarks else None,
    )
