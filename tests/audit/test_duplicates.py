"""Equal and similar images: against a plain loop, and on real radiographs."""

import cv2
import numpy as np
import pytest

from catheters.audit.duplicates import (
    MAX_DISTANCE,
    equal_groups,
    near_groups,
    near_pairs,
    pairs_by_comparing_all,
    pairs_by_parts,
)
from catheters.data.decoding.radiograph import read_radiograph
from catheters.data.image_hashes import perceptual_hash
from tests.conftest import SHARED_DATA


def flip(content: bytes, bits: list[int]) -> bytes:
    data = bytearray(content)
    for bit in bits:
        data[bit // 8] ^= 1 << (bit % 8)
    return bytes(data)


def test_equal_groups() -> None:
    assert equal_groups(["a", "b", "a", "c", "b", "a"]) == [[0, 2, 5], [1, 4]]
    assert equal_groups([]) == []


def test_every_pair_is_compared(rng: np.random.Generator) -> None:
    """150 hashes, more than are compared at a time, against a loop that counts bits in whole numbers."""
    hashes = [rng.bytes(32) for _ in range(150)]
    hashes[149] = flip(hashes[3], list(range(0, 200, 5)))  # 40 bits
    hashes[70] = flip(hashes[3], [1, 9, 255])
    expected = [
        (i, j)
        for i in range(150)
        for j in range(i + 1, 150)
        if (int.from_bytes(hashes[i]) ^ int.from_bytes(hashes[j])).bit_count() <= 45
    ]
    assert [tuple(pair) for pair in near_pairs(hashes, 45).tolist()] == expected
    assert set(expected) == {(3, 70), (3, 149), (70, 149)}


def test_groups_by_way_of_others(rng: np.random.Generator) -> None:
    first = rng.bytes(32)
    second = flip(first, list(range(30)))
    third = flip(second, list(range(30, 60)))
    assert near_groups([first, rng.bytes(32), third, second], max_distance=30) == [[0, 2, 3]]
    assert near_groups([first, third], max_distance=30) == []
    assert near_groups([]) == []


def test_an_image_that_is_there_very_often(rng: np.random.Generator) -> None:
    """Its pairs, 200 million here, are never listed."""
    one, other = rng.bytes(32), rng.bytes(32)
    assert near_groups([one] * 20_000 + [other] + [flip(one, [7])]) == [[*range(20_000), 20_001]]


def distance(one: np.ndarray, other: np.ndarray) -> int:
    hashes = [int.from_bytes(perceptual_hash(image)) for image in (one, other)]
    return (hashes[0] ^ hashes[1]).bit_count()


@pytest.mark.slow
@pytest.mark.skipif(not (SHARED_DATA / "xrays").is_dir(), reason="the real radiographs are not at hand")
def test_real_radiographs() -> None:
    images = [read_radiograph(file).image for file in sorted((SHARED_DATA / "xrays").glob("*.png"))]
    for image in images[:20]:
        assert distance(image, cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)) <= MAX_DISTANCE
        assert distance(image, cv2.imdecode(cv2.imencode(".jpg", image)[1], 0)) <= MAX_DISTANCE
        assert distance(image, (255 * (image / 255) ** 0.7).astype(np.uint8)) <= MAX_DISTANCE
    hashes = [perceptual_hash(image) for image in images]
    assert near_groups(hashes) == []


@pytest.mark.slow
def test_looking_parts_up_finds_what_comparing_all_finds(rng: np.random.Generator) -> None:
    """Random hashes, each of some with others that differ in 0 to 40 bits, also in those of one part alone."""
    hashes = rng.integers(0, 256, (1_500, 32), dtype=np.uint8)
    for row in range(0, 1_500, 10):
        base = np.unpackbits(hashes[row])
        for number in range(1, 6):
            near = base.copy()
            bits = (
                np.arange(row % 11, 256, 11)[:number]
                if row % 20
                else rng.choice(256, rng.integers(0, 41), replace=False)
            )
            near[bits] ^= 1
            hashes[row + number] = np.packbits(near)
    words = hashes.view(np.uint64)
    for max_distance in (MAX_DISTANCE, 12, 40):
        expected = pairs_by_comparing_all(words, max_distance)
        assert len(expected) > 300
        np.testing.assert_array_equal(pairs_by_parts(words, max_distance), expected)
