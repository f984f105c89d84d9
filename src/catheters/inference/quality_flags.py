"""Images that a model was not made for: said beside its prediction, which nobody should take for granted."""

import numpy as np

from catheters.data.preprocessing import Preprocessed

MIN_GREY_STD = 5.0
"""Standard deviation of the greys, of 0..255, below which an image shows next to nothing. Of 52 real chest radiographs
(Hannover Medical School, CC BY 3.0) the least has 14.7."""
MAX_ASPECT = 1.7
"""Long side over short side: beyond, it is no whole chest. Of the same radiographs the most has 1.23."""


OUT_OF_DISTRIBUTION = "out-of-distribution: far from the training images, farther than 99% of ordinary images"
"""Of an image that is far, see `catheters.models.feature_space`."""


def flags_of_pixels(made: Preprocessed) -> tuple[str, ...]:
    """What is odd about the size and the greys of an X-ray, in words; polarity and view are notes of its reading."""
    quality_flags = []
    height, width = made.full_shape
    target_height, target_width = made.pixels.shape
    if height < target_height / 2 or width < target_width / 2:
        quality_flags.append(f"only {width} x {height} pixels, the model sees {target_width} x {target_height}")
    aspect = max(height, width) / min(height, width)
    if aspect > MAX_ASPECT:
        quality_flags.append(f"{width} x {height} pixels: longer than a chest radiograph is")
    std = float(np.std(made.pixels))
    if std < MIN_GREY_STD:
        quality_flags.append(f"almost blank: the greys differ by {std:.1f} of 255 (standard deviation)")
    return tuple(quality_flags)
