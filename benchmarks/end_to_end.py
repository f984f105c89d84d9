"""Training from the cache beside the same loop on batches that are on the device already.

    python benchmarks/end_to_end.py

On a GPU: EfficientNet-B3, bfloat16, a full augmentation, 512 and 1024 px, augmented by the DataLoader workers
and on the device; it takes a machine as users have it to say anything. On a CPU a small model at a small size: that
shows that the command works. The two sides take turns, some steps each; what was loaded before them is not timed.
"""

import argparse
import itertools
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from loading import cache_file
from rows import Row, compare_seconds, create_parser, finish
from timing import FULL_CHAIN, MEAN, STD, as_in_training, seconds_since

from catheters.checkpoints.parts import build_classifier
from catheters.config.settings import Settings
from catheters.data.batch import Batch
from catheters.data.loader import EpochLoader, default_num_workers
from catheters.data.samples import CachedRadiographs
from catheters.runs.build import build_augmentation, build_step
from catheters.runs.datasets import create_train_loader
from catheters.runtime.device import device_name, open_device, prepare_device
from catheters.training.step import TrainStep

AIM = 0.95
BATCHES_AHEAD = 2
"""Batches that each DataLoader worker prefetches: torch's default."""
DEFAULTS: dict[str, dict[str, Any]] = {
    "cuda": {"backbone": "efficientnet_b3", "sizes": [512, 1024], "batch_sizes": [64, 16], "steps": 60},
    "cpu": {"backbone": "efficientnet_b0", "sizes": [128], "batch_sizes": [8], "steps": 10},
}


def main() -> int:
    """Measure and print."""
    device = as_in_training()
    prepare_device(device, deterministic=False)
    default = DEFAULTS[device.type]
    parser = create_parser(__doc__)
    parser.add_argument("--backbone", default=default["backbone"])
    parser.add_argument("--sizes", type=int, nargs="+", default=default["sizes"], help="pixels")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=default["batch_sizes"], help="one for each size")
    parser.add_argument("--steps", type=int, default=default["steps"], help="of an epoch")
    parser.add_argument("--rounds", type=int, default=5, help="epochs of each side")
    parser.add_argument("--num-images", type=int, default=256, help="different ones in the cache")
    parser.add_argument("--num-workers", type=int, default=None, help="DataLoader workers (default: as in training)")
    parser.add_argument("--compile-mode", default=None, help="of torch.compile (default: not compiled)")
    options = parser.parse_args()
    print(f"{device_name(device)}, {options.steps} steps per epoch")
    rows = [
        compare(size, batch_size, place, device, options)
        for size, batch_size in zip(options.sizes, options.batch_sizes, strict=True)
        for place in ("cpu", "device")
    ]
    return finish(rows, options)


def compare(size: int, batch_size: int, augment_on: str, device: torch.device, options: argparse.Namespace) -> Row:
    """Epochs from the cache beside epochs of one batch in memory; where the device augments, it does so in both."""
    place: Literal["cpu", "device"] = "device" if augment_on == "device" else "cpu"
    settings = Settings(
        backbone_model=options.backbone,
        pretrained=False,
        channels_last=True,
        compile_mode=options.compile_mode,
        image_size=size,
        batch_size=batch_size,
        num_workers=options.num_workers,
        train_transforms=FULL_CHAIN,
        augment_on=place,
        amp_dtype="bfloat16",
    )
    model = build_classifier(settings, MEAN, STD).to(device).train()
    step = build_step(settings, model, options.steps, device)
    with tempfile.TemporaryDirectory() as name:
        loader = load_made_up(settings, Path(name), device, options)
        batch = next(iter(loader)).to(device)
        from_cache, in_memory = [], []
        for epoch in range(options.rounds):
            loader.go_to(epoch, 0)
            batches = iter(loader)
            # Until what was loaded ahead, while nothing was learnt, is used up; these warm up as well.
            train(step, itertools.islice(batches, num_ahead(options)))
            from_cache.append(train(step, batches))
            in_memory.append(train(step, itertools.repeat(batch, options.steps)))
    return compare_seconds(
        "end_to_end",
        f"{options.backbone}, {batch_size} x {size} px, augment_on={place}",
        from_cache,
        "batches on the device",
        in_memory,
        each=options.steps,
        at_least=AIM if device.type == "cuda" else None,
    )


def load_made_up(settings: Settings, folder: Path, device: torch.device, options: argparse.Namespace) -> EpochLoader:
    """Shuffled batches from a cache of made-up images."""
    rng = np.random.default_rng(0)
    file = folder / "cache.npy"
    images = np.lib.format.open_memmap(file, "w+", np.uint8, (options.num_images, *settings.image_shape))
    for image in images:
        image[:] = rng.integers(0, 256, settings.image_shape, dtype=np.uint8)
    images.flush()
    number = (num_ahead(options) + options.steps) * settings.images_per_batch
    samples = CachedRadiographs(
        cache_file(file),
        np.arange(number) % options.num_images,
        np.arange(number).astype(np.str_),
        rng.integers(0, 2, (number, len(settings.label_columns)), dtype=np.uint8).astype(np.float32),
        build_augmentation(settings),
        seed=0,
    )
    return create_train_loader(settings, samples, device)


def num_ahead(options: argparse.Namespace) -> int:
    """Batches that are left out of the timing: as many as DataLoader workers may have ready at once, and one."""
    num_workers = default_num_workers(open_device("auto")) if options.num_workers is None else options.num_workers
    return 1 + BATCHES_AHEAD * num_workers


def train(step: TrainStep, batches: Iterator[Batch]) -> float:
    """Learn from each; seconds."""
    seconds_since(time.perf_counter())  # a GPU has done what came before
    started = time.perf_counter()
    for batch in batches:
        step(batch)
    return seconds_since(started)


if __name__ == "__main__":
    sys.exit(main())
