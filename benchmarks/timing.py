"""What the benchmarks of training share: batches in memory, a clock that waits for a GPU, and two sides in turns."""

import time
from collections.abc import Callable, Sequence

import torch

from catheters.commands.train import MAX_KEPT_BYTES
from catheters.config.settings import Settings
from catheters.data.batch import Batch
from catheters.runtime.device import open_device
from catheters.runtime.host import keep_freed_memory

MEAN, STD = 0.49, 0.23
"""Grey values of the made-up images, about those of radiographs."""
FULL_CHAIN = (
    ("HorizontalFlip", {"p": 0.5}),
    ("Affine", {"scale": (0.9, 1.1), "translate_percent": (-0.06, 0.06), "rotate": (-15, 15), "p": 0.8}),
    ("RandomResizedCrop", {"scale": (0.85, 1.0), "ratio": (0.9, 1.1)}),
    ("CoarseDropout", {"num_holes_range": (1, 5), "hole_height_range": (0.03, 0.1), "hole_width_range": (0.03, 0.1)}),
)
"""A full augmentation, more than the presets have: flip, affine warp, crop, cut-out."""


def as_in_training() -> torch.device:
    """Set the process up as train.py does, and give the device that it would choose."""
    keep_freed_memory(MAX_KEPT_BYTES)
    return open_device("auto")


def random_batches(settings: Settings, number: int, device: torch.device) -> list[Batch]:
    """Batches of noise on the device."""
    shape = (settings.images_per_batch, 1, *settings.image_shape)
    num_labels = len(settings.label_columns)
    return [
        Batch(
            images=torch.randint(0, 256, shape, dtype=torch.uint8, device=device),
            targets=torch.randint(0, 2, (settings.images_per_batch, num_labels), device=device).float(),
        )
        for _ in range(number)
    ]


def seconds_since(started: float) -> float:
    """Seconds since a reading of `time.perf_counter`, with what a GPU still has to do."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


def take_turns(ways: Sequence[Callable[[], object]], rounds: int, warm_up: int = 1) -> list[list[float]]:
    """Seconds of each way in each round; neighbours change places from round to round."""
    seconds: list[list[float]] = [[] for _ in ways]
    for number in range(warm_up + rounds):
        order = range(len(ways)) if number % 2 else reversed(range(len(ways)))
        for way in order:
            started = time.perf_counter()
            ways[way]()
            seconds[way].append(seconds_since(started))
    return [measured[warm_up:] for measured in seconds]
