"""Chains of transforms that several tests use."""

FULL_CHAIN = (
    ("HorizontalFlip", {"p": 0.5}),
    ("Affine", {"scale": (0.9, 1.1), "translate_percent": (-0.06, 0.06), "rotate": (-15, 15), "p": 0.8}),
    ("RandomResizedCrop", {"scale": (0.85, 1.0), "ratio": (0.9, 1.1)}),
    ("CoarseDropout", {"num_holes_range": (1, 5), "hole_height_range": (0.03, 0.1), "hole_width_range": (0.03, 0.1)}),
)
"""Flip; shift, scale and rotate; crop; holes: what a CPU and a device both do."""
