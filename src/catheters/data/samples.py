"""Images of caches with their labels, one at a time: augmented as (seed, epoch, image) alone decide."""

import bisect
import itertools
import zlib
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset

from catheters.data.augmentation import Augmentation
from catheters.data.batch import Sample
from catheters.data.cache.cache import CacheFile, CacheRows
from catheters.data.cache.row_checks import RowChecks
from catheters.data.gpu_augmentation import GpuAugmentation
from catheters.data.input_maps import InputMaps
from catheters.data.line_targets import LineTargets

Image = npt.NDArray[np.uint8]
"""(H, W) grey values."""


class CachedRadiographs(Dataset[Sample]):
    """Images of the cache with their labels.

    An item is asked for by (epoch, position). Its augmentation is decided by the seed, the epoch and the image's uid:
    the number of workers, the order and other images change nothing. Where a GPU augments, the item has the
    draws, and the image as it is.
    """

    def __init__(
        self,
        cache_file: CacheFile,
        rows: npt.NDArray[np.intp],
        uids: npt.NDArray[np.str_],
        labels: npt.NDArray[np.float32],
        augmentation: Augmentation | GpuAugmentation | None,
        seed: int,
        checks: RowChecks | None = None,
        numbers: Mapping[str, npt.NDArray[np.float32]] = MappingProxyType({}),
        line_targets: LineTargets | None = None,
        input_maps: InputMaps | None = None,
        *,
        tell_known: bool = False,
    ) -> None:
        """Choose images.

        Args:
            cache_file: the cache's `.npy`, opened again by every DataLoader worker.
            rows: (n,) rows of the cache to use.
            uids: (n,) names of these images.
            labels: (n, K) 0, 1 or NaN where it is unknown.
            augmentation: None leaves the images as they are.
            seed: the run's seed.
            checks: compares each row at its first read; None: rows are taken as they are.
            numbers: name -> (n,), what goes along in each batch.
            line_targets: of these images; None: no lines are learnt.
            input_maps: maps that the model sees beside these images; None: it sees none.
            tell_known: whether samples say which labels are known, even if all are.
        """
        self._cache_file = cache_file
        self._checks = checks
        self._images: CacheRows | None = None
        self._rows = rows
        is_known = ~np.isnan(labels)
        self._targets = torch.from_numpy(np.where(is_known, labels, 0).astype(np.float32))
        are_told = tell_known or not is_known.all()
        self._labels_known = torch.from_numpy(is_known.astype(np.float32)) if are_told else None
        self._numbers = {name: torch.from_numpy(values) for name, values in numbers.items()}
        self._line_targets = line_targets
        self._input_maps = input_maps
        self._augmentation = augmentation
        self._seed = seed
        # Numbers, not strings: no Python object per row, whose reference count would copy memory into every worker.
        self._uid_hashes = np.fromiter((zlib.crc32(uid.encode()) for uid in uids), np.uint32, len(uids))

    def __getstate__(self) -> dict[str, Any]:
        """Without the open file: a process that is sent the samples opens it again."""
        return {**self.__dict__, "_images": None}

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        epoch, position = key
        if self._images is None:
            self._images = self._cache_file.open_rows()
        row = int(self._rows[position])
        image = self._images.read(row)
        if self._checks is not None:
            self._checks.check(row, image)
        sample: dict[str, Any] = {"targets": self._targets[position]}
        if self._labels_known is not None:
            sample["labels_known"] = self._labels_known[position]
        if self._numbers:
            sample["numbers"] = {name: values[position] for name, values in self._numbers.items()}
        if self._input_maps is not None:
            return {**sample, **self._augment_with_maps(image, epoch, position, self._input_maps)}
        if self._line_targets is None:
            image, of_augmentation = self._augment(image, self.augmentation_seed(epoch, position))
        else:
            image, of_augmentation = self._augment_with_lines(image, epoch, position, self._line_targets)
        return {"images": torch.from_numpy(np.ascontiguousarray(image)[np.newaxis]), **sample, **of_augmentation}

    def _augment(self, image: Image, seed: int) -> tuple[Image, Sample]:
        """The image as it goes into a batch, and what the device needs to augment it."""
        if isinstance(self._augmentation, GpuAugmentation):
            return image, {"draws": torch.from_numpy(self._augmentation.draw(seed))}
        return image if self._augmentation is None else self._augmentation(image, seed), {}

    def _augment_with_lines(
        self, image: Image, epoch: int, position: int, targets: LineTargets
    ) -> tuple[Image, Sample]:
        """The same, with the line targets as they lie once the image is augmented."""
        points, seed = targets.points_of(position), self.augmentation_seed(epoch, position)
        draws: Sample = {}
        if not len(points):
            image, draws = self._augment(image, seed)
        elif isinstance(self._augmentation, GpuAugmentation):
            row, points = self._augmentation.draw_with_points(points, seed)
            draws = {"draws": torch.from_numpy(row)}
        elif self._augmentation is not None:
            image, points = self._augmentation.with_points(image, points, seed)
        drawn = {name: torch.from_numpy(values) for name, values in targets.draw(position, points).items()}
        return image, {**draws, **drawn}

    def _augment_with_maps(self, image: Image, epoch: int, position: int, input_maps: InputMaps) -> Sample:
        """The image with its maps as it goes into a batch, and what the device needs to augment both."""
        maps = input_maps.read(position, image.shape)
        seed = self.augmentation_seed(epoch, position)
        draws: Sample = {}
        if isinstance(self._augmentation, GpuAugmentation):
            draws = {"draws": torch.from_numpy(self._augmentation.draw(seed))}
        elif self._augmentation is not None:
            image, maps = self._augmentation.with_maps(image, maps, seed)
        channels = np.concatenate([image[np.newaxis], maps.transpose(2, 0, 1)])
        return {"images": torch.from_numpy(channels), **draws}

    def augmentation_seed(self, epoch: int, position: int) -> int:
        """What decides an item's augmentation."""
        return sample_seed(self._seed, epoch, int(self._uid_hashes[position]))


def sample_seed(seed: int, epoch: int, uid_hash: int) -> int:
    """The seed of one image's augmentation in one epoch, a well mixed 32-bit number."""
    return int(np.random.SeedSequence((seed, epoch, uid_hash)).generate_state(1)[0])


class JoinedRadiographs(Dataset[Sample]):
    """Images of several caches, one after the other, asked for as those of one are."""

    def __init__(self, parts: Sequence[CachedRadiographs]) -> None:
        """Join parts whose samples have the same names."""
        self._parts = tuple(parts)
        self._ends = list(itertools.accumulate(map(len, parts)))

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        epoch, position = key
        part = bisect.bisect_right(self._ends, position)
        return self._parts[part][epoch, position - self._ends[part] + len(self._parts[part])]
