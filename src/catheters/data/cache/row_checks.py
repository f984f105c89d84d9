"""Each row of an image cache is compared with its checksum when training first reads it, and then no more."""

import contextlib
import hashlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from catheters.data.cache.cache import ImageCache
from catheters.data.cache.index import CacheError, read_index


class RowChecks:
    """Which rows of a cache have been compared with the checksums of its index, as all processes of a machine know it.

    Digests and marks are arrays, which processes that are forked share with their parent.
    """

    def __init__(self, cache_file: Path, digests: npt.NDArray[np.uint8]) -> None:
        """Begin with no row compared.

        Args:
            cache_file: the `.npy`, for messages.
            digests: (N, 32) SHA-256 of each row's pixels.
        """
        self._cache_file = cache_file
        self._digests = digests
        self._is_checked = torch.zeros(len(digests), dtype=torch.bool)
        # Without room for it each process compares for itself.
        with contextlib.suppress(RuntimeError, OSError):
            self._is_checked.share_memory_()  # type: ignore[no-untyped-call]

    @classmethod
    def of(cls, cache: ImageCache) -> "RowChecks":
        """For the rows of a cache that its table has."""
        digests = np.zeros((len(cache.images), hashlib.sha256().digest_size), dtype=np.uint8)
        for row, entry in zip(cache.rows, cache.entries, strict=True):
            if entry.reason is None:
                digests[row] = np.frombuffer(bytes.fromhex(entry.digest), dtype=np.uint8)
        return cls(cache.file.path, digests)

    def check(self, row: int, image: npt.NDArray[np.uint8]) -> None:
        """Compare a row that was read, (H, W) uint8, unless that was done before.

        Raises:
            CacheError: it is not what was written; names the image.
        """
        if self._is_checked[row]:
            return
        if hashlib.sha256(image.data).digest() != self._digests[row].tobytes():
            raise CacheError(
                f"{self._cache_file}: damaged: row {row}, {_uid_of(self._cache_file, row)}, is not what was written"
            )
        self._is_checked[row] = True


def _uid_of(cache_file: Path, row: int) -> str:
    """The image of a row, from the index on the disk: a run keeps no texts of all rows."""
    try:
        return read_index(cache_file).rows[row].uid
    except (CacheError, IndexError):
        return "whose image the index no longer tells"
