"""Images that are the same, or nearly so."""

from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from catheters.data.image_hashes import HASH_BYTES

MAX_DISTANCE = 32
"""Perceptual hashes, of 256 bits, that differ in more are taken for different images (see `perceptual_hash`)."""
WORDS_PER_HASH = HASH_BYTES // 8
ROWS_AT_ONCE = 64
"""Rows that are compared with all others at a time: some 60 MB for 112,120 images."""


def equal_groups(keys: Iterable[Hashable]) -> list[list[int]]:
    """The positions of keys that occur more than once, each key's together."""
    positions: dict[Hashable, list[int]] = defaultdict(list)
    for position, key in enumerate(keys):
        positions[key].append(position)
    return [group for group in positions.values() if len(group) > 1]


def near_groups(hashes: Sequence[bytes], max_distance: int = MAX_DISTANCE) -> list[list[int]]:
    """Group hashes that differ in few bits, directly or by way of others.

    Args:
        hashes: (N,) of 32 bytes each.
        max_distance: bits in which two similar ones may differ.

    Returns:
        The groups of two and more, as positions in order.
    """
    # Equal ones once: of an image that is there n times, n * n pairs would have to be kept.
    unique, unique_of = np.unique(np.array(hashes, dtype=np.void(HASH_BYTES).dtype), return_inverse=True)
    pairs = near_pairs([value.tobytes() for value in unique], max_distance)
    links = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(len(unique), len(unique)))
    _, group_of = connected_components(links, directed=False)
    return equal_groups(group_of[unique_of].tolist())


def near_pairs(hashes: Sequence[bytes], max_distance: int = MAX_DISTANCE) -> npt.NDArray[np.intp]:
    """(P, 2) positions i < j of hashes that differ in at most `max_distance` bits; every pair is compared."""
    words = np.frombuffer(b"".join(hashes), dtype=np.uint64).reshape(-1, WORDS_PER_HASH)
    found = [np.empty((0, 2), dtype=np.intp)]
    for start in range(0, len(words), ROWS_AT_ONCE):
        block, rest = words[start : start + ROWS_AT_ONCE], words[start:]
        distances = np.zeros((len(block), len(rest)), dtype=np.uint16)
        for word in range(words.shape[1]):
            distances += np.bitwise_count(block[:, None, word] ^ rest[None, :, word])
        rows, columns = np.nonzero(distances <= max_distance)
        later = columns > rows
        found.append(np.column_stack([rows[later], columns[later]]) + start)
    return np.concatenate(found)
