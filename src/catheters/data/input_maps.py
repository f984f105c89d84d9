"""Maps that a model sees beside an image: what another run predicts of its lines and tips, from a cache of their own.

The cache is as that of the images, see `catheters.data.cache`: uint8, (N, C h, w), the C maps of an image below one
another, in the decoder's resolution, with an index, a journal and checksums.
"""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from catheters.data.cache.cache import CacheFile, CacheRows
from catheters.data.cache.index import CacheError, index_file
from catheters.data.cache.row_checks import RowChecks
from catheters.errors import UserError


class InputMaps:
    """The maps of some images, in their order."""

    def __init__(self, cache_file: CacheFile, checks: RowChecks, rows: npt.NDArray[np.intp], num_maps: int) -> None:
        """Choose images.

        Args:
            cache_file: the maps' `.npy`, opened again by every DataLoader worker.
            checks: compares each row at its first read.
            rows: (n,) rows of the cache to use.
            num_maps: C.
        """
        self._cache_file = cache_file
        self._checks = checks
        self._rows = rows
        self._num_maps = num_maps
        self._file: CacheRows | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Without the open file: a process that is sent the maps opens it again."""
        return {**self.__dict__, "_file": None}

    def take(self, is_chosen: npt.NDArray[np.bool_]) -> "InputMaps":
        """Those of the images that (n,) chooses."""
        return InputMaps(self._cache_file, self._checks, self._rows[is_chosen], self._num_maps)

    def read(self, position: int, image_shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
        """(H, W, C), enlarged to the image.

        Raises:
            UserError: it cannot be read, or is not what was written.
        """
        row = int(self._rows[position])
        try:
            if self._file is None:
                self._file = self._cache_file.open_rows()
            below_one_another = self._file.read(row)
            self._checks.check(row, below_one_another)
        except CacheError as error:
            raise damaged_outputs(self._cache_file.path, error.found) from None
        maps = below_one_another.reshape(self._num_maps, -1, below_one_another.shape[1])
        size = (image_shape[1], image_shape[0])
        return np.stack([cv2.resize(of_type, size, interpolation=cv2.INTER_LINEAR) for of_type in maps], axis=2)


def damaged_outputs(cache_file: Path, found: str) -> UserError:
    """What to raise of a model's outputs that are not as they were written: the run that reads them writes them anew.

    Args:
        cache_file: their `.npy`.
        found: what is wrong.
    """
    index = index_file(cache_file).name
    return UserError(f"{found}; delete {cache_file} and its {index}, and the same command writes it again")
