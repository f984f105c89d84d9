"""Images that are the same, or nearly so."""

import itertools
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
MAX_COMPARED_WITH_ALL = 50_000
"""Hashes of which each is compared with each other one; a million take hours so."""
NUM_PARTS = 11
"""Of 23 or 24 bits: tables of 64 MB at most, in which a million hashes lie thinly."""
CANDIDATES_AT_ONCE = 2_000_000
ROWS_AT_ONCE = 64
"""Rows that are compared with all others at a time: some 30 MB for as many."""


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
    """(P, 2) positions i < j, in order, of hashes that differ in at most `max_distance` bits."""
    find = pairs_by_comparing_all if len(hashes) <= MAX_COMPARED_WITH_ALL else pairs_by_parts
    pairs = find(np.frombuffer(b"".join(hashes), dtype=np.uint64).reshape(-1, WORDS_PER_HASH), max_distance)
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]


def pairs_by_comparing_all(words: npt.NDArray[np.uint64], max_distance: int) -> npt.NDArray[np.intp]:
    """(P, 2) the pairs of (N, 4) hashes, by N * N / 2 comparisons."""
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


def pairs_by_parts(words: npt.NDArray[np.uint64], max_distance: int) -> npt.NDArray[np.intp]:
    """(P, 2) the same pairs, whose number of comparisons grows with N where few hashes are alike.

    Norouzi, Punjani and Fleet, Fast exact search in Hamming space with multi-index hashing, IEEE TPAMI 36 (2014): of
    hashes that differ in 32 bits at most, one of 11 parts differs in 2 bits at most. So each part of each hash is
    looked up in a table, with none, one and two of its bits turned, and the hashes that are found there are compared.
    """
    bits = np.unpackbits(words.view(np.uint8).reshape(len(words), -1), axis=1)
    pairs = np.empty((0, 2), dtype=np.intp)
    rows = np.arange(len(words))
    for part in range(NUM_PARTS):
        # Every 11th bit: neighbouring frequencies are alike, and a part of them would tell fewer images apart.
        of_part = bits[:, part::NUM_PARTS]
        width = of_part.shape[1]
        keys = of_part @ (np.int64(1) << np.arange(width))
        order = np.argsort(keys, kind="stable")
        starts = np.concatenate([[0], np.cumsum(np.bincount(keys, minlength=1 << width))]).astype(np.int32)
        found = [pairs]
        for turned in _masks(width, max_distance // NUM_PARTS):
            others = keys ^ turned
            first = starts[others]
            found.append(_near_among(words, rows, order, first, starts[others + 1] - first, max_distance))
        pairs = np.unique(np.concatenate(found), axis=0)
    return pairs


def _masks(width: int, most: int) -> list[int]:
    """All numbers of so many bits of which at most so many are set."""
    return [
        sum(1 << bit for bit in chosen)
        for count in range(most + 1)
        for chosen in itertools.combinations(range(width), count)
    ]


def _near_among(
    words: npt.NDArray[np.uint64],
    rows: npt.NDArray[np.intp],
    order: npt.NDArray[np.intp],
    first: npt.NDArray[np.int32],
    counts: npt.NDArray[np.int32],
    max_distance: int,
) -> npt.NDArray[np.intp]:
    """(P, 2) the pairs of each row with the `counts` hashes in `order` from `first` on."""
    has_any = counts > 0
    rows, first, counts = rows[has_any], first[has_any], counts[has_any]
    found = [np.empty((0, 2), dtype=np.intp)]
    ends = np.cumsum(counts, dtype=np.int64)
    start = 0
    while start < len(rows):
        before = ends[start - 1] if start else 0
        stop = max(int(np.searchsorted(ends, before + CANDIDATES_AT_ONCE)), start + 1)
        of_block = slice(start, stop)
        left = np.repeat(rows[of_block], counts[of_block])
        within = np.arange(len(left)) - np.repeat(ends[of_block] - counts[of_block] - before, counts[of_block])
        right = order[np.repeat(first[of_block], counts[of_block]) + within]
        is_later = right > left  # the other way round it is found as well
        left, right = left[is_later], right[is_later]
        is_near = np.bitwise_count(words[left] ^ words[right]).sum(axis=1) <= max_distance
        found.append(np.column_stack([left[is_near], right[is_near]]))
        start = stop
    return np.concatenate(found)
