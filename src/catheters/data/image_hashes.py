"""Perceptual hashes: numbers by which the same image is known again after it was compressed, scaled or brightened."""

import cv2
import imagehash
import numpy as np
import numpy.typing as npt
from PIL import Image

HASH_SIZE = 16
"""Side of a perceptual hash: 256 bits."""
HASH_BYTES = HASH_SIZE**2 // 8


def perceptual_hash(image: npt.NDArray[np.uint8]) -> bytes:
    """The signs of the 16 x 16 lowest frequencies of an image (H, W), in 32 bytes (imagehash.phash).

    On 52 real chest radiographs of 36 patients, other images of the same patient differ in 74 bits or more, those of
    other patients in 84 or more; the same image after JPEG compression, halving, other brightness, gamma or local
    contrast or a crop of 1% a side in at most 32, after a turn by one degree in at most 36.
    """
    side = 4 * HASH_SIZE  # what phash would scale it to, by OpenCV's area averaging in place of Pillow's Lanczos
    small = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
    return np.packbits(imagehash.phash(Image.fromarray(small), hash_size=HASH_SIZE).hash).tobytes()
