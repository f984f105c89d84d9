"""Maps of points such as tips and landmarks: a Gaussian bump around each, as models learn them and are read."""

POINT_SIGMA = 0.0125
"""Standard deviation of the Gaussian around a point, as a share of the map's width; never below `MIN_POINT_SIGMA`."""
MIN_POINT_SIGMA = 0.8
"""In pixels of the map: a narrower bump falls between two pixels."""


def sigma_of(width: int) -> float:
    """Of the Gaussian around a point of a map so many pixels wide, in its pixels."""
    return max(POINT_SIGMA * width, MIN_POINT_SIGMA)
