"""What a sample costs on its way from the cache to a batch.

    python benchmarks/loading.py

Milliseconds per sample through a full augmentation, by 1, 2 and 4 DataLoader workers at 512 and 1024 px. Taking turns
with it: one PNG file per sample, decoded to three channels, augmented and normalised in float, as the scripts of
docs/reference/published.md do, by as many processes; and the bare copy of cached images into a batch, by one process.
And the same with every row compared with its checksum, which training does at the first read of a row and then no more.
The images are made up.
"""

import argparse
import hashlib
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch
from rows import Row, compare_seconds, create_parser, finish
from timing import FULL_CHAIN
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from catheters.config.presets import GREY_MEAN, GREY_STD
from catheters.data.augmentation import Augmentation
from catheters.data.cache.cache import CacheFile
from catheters.data.cache.row_checks import RowChecks
from catheters.data.gpu_augmentation import GpuAugmentation
from catheters.data.loader import EpochBatches, Loader, create_loader
from catheters.data.samples import CachedRadiographs
from catheters.labels import RANZCR_LABELS
from catheters.runtime.opencv_threads import end_opencv_threads

NUM_FILES = 64
BATCH_SIZE = 12
NUM_LABELS = len(RANZCR_LABELS)
AIM = {512: 3.0}
"""Image size -> how many times as fast as PNG files the cache has to be."""


class PngFiles(Dataset[tuple[Tensor, Tensor]]):
    """One file per sample, decoded to three channels, augmented, and normalised in float."""

    def __init__(self, files: list[Path], num_samples: int, size: int) -> None:
        """Go through the files as often as it takes for `num_samples`."""
        self._files = files
        self._num_samples = num_samples
        from catheters.data.quiet_albumentations import A

        transforms = [
            getattr(A, name)(**({"size": (size, size)} if name == "RandomResizedCrop" else {}), **params)
            for name, params in FULL_CHAIN
        ]
        normalise = A.Normalize(mean=[GREY_MEAN] * 3, std=[GREY_STD] * 3)
        self._compose = A.Compose([*transforms, normalise])

    def __len__(self) -> int:
        return self._num_samples

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        image = cv2.imread(str(self._files[number % len(self._files)]))
        assert image is not None
        augmented = self._compose(image=image)["image"]  # (H, W, 3) float32
        return torch.from_numpy(np.ascontiguousarray(augmented.transpose(2, 0, 1))), torch.zeros(NUM_LABELS)


class ChecksOfAFirstEpoch(RowChecks):
    """Each read is a row's first one."""

    def check(self, row: int, image: npt.NDArray[np.uint8]) -> None:
        """Compare the row, whether that was done or not."""
        self._is_checked[row] = False
        super().check(row, image)


def main() -> int:
    """Measure and print."""
    parser = create_parser(__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[512, 1024], help="pixels")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--samples", type=int, default=480, help="of each way in a round (default: 480)")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    rows = []
    for size in options.sizes:
        with tempfile.TemporaryDirectory() as name:
            rows += compare(size, Path(name), options)
    return finish(rows, options)


def compare(size: int, folder: Path, options: argparse.Namespace) -> list[Row]:
    """The ways, for each number of DataLoader workers."""
    rng = np.random.default_rng(0)
    images = np.stack([draw(rng, size) for _ in range(NUM_FILES)])
    np.save(folder / "cache.npy", images)
    files = []
    for number, image in enumerate(images):
        files.append(folder / f"{number}.png")
        cv2.imwrite(str(files[-1]), image)
    indices = np.arange(options.samples) % NUM_FILES
    shape = (size, size)
    of_cpu, of_device = Augmentation(FULL_CHAIN, shape), GpuAugmentation(FULL_CHAIN, shape)
    digests = np.stack([np.frombuffer(hashlib.sha256(image.data).digest(), dtype=np.uint8) for image in images])
    checks = ChecksOfAFirstEpoch(folder / "cache.npy", digests)
    rows = []
    for num_workers in options.workers:
        seconds: dict[str, list[float]] = {"cache": [], "checked": [], "drawn": [], "png": [], "copy": []}
        for epoch in range(options.rounds):
            ways = (("cache", of_cpu, None), ("checked", of_cpu, checks), ("drawn", of_device, None))
            for name, augmentation, of_way in ways if epoch % 2 else reversed(ways):
                loader = create_cache_loader(folder / "cache.npy", indices, augmentation, num_workers, epoch, of_way)
                seconds[name].append(time_loader(loader))
            png = DataLoader(
                PngFiles(files, options.samples, size),
                batch_size=BATCH_SIZE,
                num_workers=num_workers,
                worker_init_fn=_start_worker,
                drop_last=True,
            )
            seconds["png"].append(time_loader(png))
            seconds["copy"].append(time_copies(images, indices))
        workers = f"{size} px, {num_workers} DataLoader {'worker' if num_workers == 1 else 'workers'}"
        rows += [
            compare_seconds(
                "loading",
                workers,
                seconds["cache"],
                "one PNG per sample, RGB float",
                seconds["png"],
                unit="ms/sample",
                at_least=AIM.get(size),
            ),
            compare_seconds(
                "loading", workers, seconds["cache"], "bare copy, one process", seconds["copy"], unit="ms/sample"
            ),
            compare_seconds(
                "loading",
                f"{workers}, every row compared",
                seconds["checked"],
                "rows as they are",
                seconds["cache"],
                unit="ms/sample",
            ),
            compare_seconds(
                "loading",
                f"{workers}, augment_on=device",
                seconds["drawn"],
                "one PNG per sample, RGB float",
                seconds["png"],
                unit="ms/sample",
            ),
        ]
    return rows


def _start_worker(_: int) -> None:
    end_opencv_threads()


def draw(rng: np.random.Generator, size: int) -> npt.NDArray[np.uint8]:
    """Blurred noise with grain, which a PNG compresses about as well as a radiograph."""
    smooth = cv2.resize(rng.integers(0, 256, (24, 24), dtype=np.uint8), (size, size), interpolation=cv2.INTER_CUBIC)
    grainy: npt.NDArray[np.uint8] = np.clip(smooth + rng.normal(0, 3, smooth.shape), 0, 255).astype(np.uint8)
    return grainy


def cache_file(file: Path) -> CacheFile:
    """A `.npy` that nobody has checked."""
    state = file.stat()
    return CacheFile(file, (state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns))


def create_cache_loader(
    file: Path,
    indices: npt.NDArray[np.intp],
    augmentation: Augmentation | GpuAugmentation,
    num_workers: int,
    epoch: int,
    checks: RowChecks | None,
) -> Loader:
    """As training loads: uint8, one channel."""
    samples = CachedRadiographs(
        cache_file(file),
        indices,
        np.arange(len(indices)).astype(np.str_),
        np.zeros((len(indices), NUM_LABELS), dtype=np.float32),
        augmentation,
        seed=0,
        checks=checks,
    )
    batches = EpochBatches(len(indices), BATCH_SIZE, seed=0)
    batches.epoch = epoch
    return create_loader(samples, batches, num_workers, torch.device("cpu"))


def time_loader(loader: Loader | DataLoader[tuple[Tensor, Tensor]]) -> float:
    """Seconds per sample from the second batch on: starting the processes is not loading."""
    iterator = iter(loader)
    next(iterator)
    started = time.perf_counter()
    num_batches = sum(1 for _ in iterator)
    return (time.perf_counter() - started) / (num_batches * BATCH_SIZE)


def time_copies(images: npt.NDArray[np.uint8], indices: npt.NDArray[np.intp]) -> float:
    """Seconds per sample of nothing but copying pixels into batches."""
    batch = np.empty((BATCH_SIZE, *images.shape[1:]), dtype=np.uint8)
    started = time.perf_counter()
    for start in range(0, len(indices) - BATCH_SIZE + 1, BATCH_SIZE):
        for place, row in enumerate(indices[start : start + BATCH_SIZE]):
            batch[place] = images[row]
    return (time.perf_counter() - started) / len(indices)


if __name__ == "__main__":
    sys.exit(main())
