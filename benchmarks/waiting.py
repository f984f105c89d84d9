"""How long each config's training waits for data: python benchmarks/waiting.py.

Every config of configs/ with its own model, image size, augmentation and number of DataLoader workers, from a
cache of made-up images. The configs for a GPU are timed for a few steps, with smaller batches where the machine is
small: step and loading grow alike with the batch. Those of the synthetic sample's size run for whole epochs; starting
the DataLoader workers counts as waiting, the first batch does not, since it is loaded while training validates.
"""

import argparse
import dataclasses
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from loading import cache_file
from rows import Row, compare_sizes, create_parser, finish
from timing import MEAN, STD, as_in_training, seconds_since

from catheters.checkpoints.parts import build_classifier
from catheters.config.loading import load_settings
from catheters.config.settings import Settings
from catheters.data.samples import CachedRadiographs
from catheters.runs.build import build_augmentation, build_step
from catheters.runs.datasets import create_train_loader
from catheters.runtime.host import release_free_memory

REPOSITORY = Path(__file__).parents[1]
NUM_IMAGES = 48
SMALL = 256
"""Pixels up to which a config is one for a CPU, and runs as it is."""
AIM = 0.05


def main() -> int:
    """Measure and print."""
    parser = create_parser(__doc__)
    parser.add_argument("--configs", nargs="+", type=Path, default=sorted((REPOSITORY / "configs").glob("*.py")))
    parser.add_argument("--batch-size", type=int, default=2, help="of the configs for a GPU (default: 2)")
    parser.add_argument("--steps", type=int, default=3, help="of each of them (default: 3)")
    parser.add_argument("--epochs", type=int, default=5, help="of the small ones, of 25 batches (default: 5)")
    options = parser.parse_args()
    return finish([measure(file, options) for file in options.configs], options)


def measure(file: Path, options: argparse.Namespace) -> Row:
    """Milliseconds of waiting per step, beside those of the whole step."""
    settings = load_settings(file)
    is_small = max(settings.image_shape) <= SMALL
    batch_size = settings.images_per_batch if is_small else min(settings.images_per_batch, options.batch_size)
    settings = dataclasses.replace(settings, pretrained=False, batch_size=batch_size, accumulation_steps=1)
    num_steps, num_epochs = (25, options.epochs) if is_small else (options.steps, 1)
    with tempfile.TemporaryDirectory() as name:
        waits, seconds = train(settings, Path(name), num_steps, num_epochs)
    what = f"{file.name}, {batch_size} x {settings.image_size} px"
    return compare_sizes("waiting", what, waits, "a step", seconds, unit="ms", at_most=AIM)


def train(settings: Settings, folder: Path, num_steps: int, num_epochs: int) -> tuple[list[float], list[float]]:
    """Milliseconds per step of each epoch: those waited for data, and all; without the first steps, which warm up."""
    device = as_in_training()
    release_free_memory()  # as before a run's first batch: what the config before has left would be forked along
    rng = np.random.default_rng(0)
    np.save(folder / "cache.npy", rng.integers(0, 256, (NUM_IMAGES, *settings.image_shape), dtype=np.uint8))
    number = (num_steps + 1) * settings.images_per_batch
    samples = CachedRadiographs(
        cache_file(folder / "cache.npy"),
        np.arange(number) % NUM_IMAGES,
        np.arange(number).astype(np.str_),
        rng.integers(0, 2, (number, len(settings.label_columns)), dtype=np.uint8).astype(np.float32),
        build_augmentation(settings),
        seed=0,
    )
    loader = create_train_loader(settings, samples, device)
    step = build_step(settings, build_classifier(settings, MEAN, STD).to(device).train(), len(loader), device)
    waits, seconds = [], []
    for epoch in range(num_epochs):
        before = time.perf_counter()
        loader.start(epoch)
        waited = time.perf_counter() - before
        batches = iter(loader)
        step(next(batches))
        before = time.perf_counter()
        started = before - waited
        for batch in batches:
            waited += time.perf_counter() - before
            step(batch)
            before = time.perf_counter()
        seconds.append(1e3 * seconds_since(started) / num_steps)
        waits.append(1e3 * waited / num_steps)
    return waits, seconds


if __name__ == "__main__":
    sys.exit(main())
