"""What the published recipes for RANZCR CLiP share, for the ready-made ones in `configs/`."""

from types import MappingProxyType

PUBLISHED_TRANSFORMS = (
    ("HorizontalFlip", {"p": 0.5}),
    ("Affine", {"scale": (0.9, 1.1), "translate_percent": (-0.06, 0.06), "rotate": (-15, 15), "p": 0.8}),
    ("RandomResizedCrop", {"scale": (0.85, 1.0), "ratio": (0.9, 1.1)}),
    ("CoarseDropout", {"num_holes_range": (1, 5), "hole_height_range": (0.03, 0.1), "hole_width_range": (0.03, 0.1)}),
)
"""Flip; shift, scale and rotate; random resized crop; cut-out. The flip doubles the views of a tube, and forgets which
side a catheter comes from."""

PUBLISHED_POS_WEIGHT = MappingProxyType({"CVC - Abnormal": 2.0, "CVC - Borderline": 2.0, "CVC - Normal": 2.0})
"""Positives of the catheters whose labels are hardest to tell apart count twice."""

PUBLISHED_GREY_MEAN, PUBLISHED_GREY_STD = 0.4887, 0.2306
"""Grey mean and standard deviation of RANZCR's images as the multi-head recipe has them, in 0..1."""
