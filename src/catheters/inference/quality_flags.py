"""Images that a model was not made for: said beside its answer, which nobody should take for granted."""

import numpy as np

from catheters.data.preprocessing import Preprocessed

MIN_GREY_STD = 5.0
"""Standard deviation of the greys, of 0..255, below which a picture shows next to nothing. Of 52 real chest radiographs
(Hannover Medical School, CC BY 3.0) the least has 14.7."""
MAX_ASPECT = 1.7
"""Long side over short side: beyond, it is no whole chest. Of the same radiographs the most has 1.23."""


UNLIKE = "unlike the training images: its features are farther from theirs than those of 99% of ordinary images"
"""Of an image that is far, see `catheters.models.feature_space`."""


def doubts_of_pixels(made: Preprocessed) -> tuple[str, ...]:
    """What is odd about the size and the greys of an X-ray, in words; polarity and view are notes of its reading."""
    doubts = []
    height, width = made.full_shape
    target_height, target_width = made.pixels.shape
    if height < target_height / 2 or width < target_width / 2:
        doubts.append(f"only {width} x {height} pixels, the model sees {target_width} x {target_height}")
    aspect = max(height, width) / min(height, width)
    if aspect > MAX_ASPECT:
        doubts.append(f"{width} x {height} pixels: longer than a chest radiograph is")
    std = float(np.std(made.pixels))
    if std < MIN_GREY_STD:
        doubts.append(f"almost blank: the greys differ by {std:.1f} of 255 (standard deviation)")
    return tuple(doubts)
