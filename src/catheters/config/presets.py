"""Presets: settings that configs in `configs/` start from.

A config is one of them with a few changes: `settings = replace(PUBLISHED_SINGLE, backbone_model="rexnet_200")`. The
published ones are for RANZCR CLiP, unpacked in `dataset/`. Each can be named in place of a config: `--config sample`.
"""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from catheters.config.settings import Settings
from catheters.labels import RANZCR_HEADS

PUBLISHED_TRANSFORMS = (
    ("HorizontalFlip", {"p": 0.5}),
    ("Affine", {"scale": (0.9, 1.1), "translate_percent": (-0.06, 0.06), "rotate": (-15, 15), "p": 0.8}),
    ("RandomResizedCrop", {"scale": (0.85, 1.0), "ratio": (0.9, 1.1)}),
    ("CoarseDropout", {"num_holes_range": (1, 5), "hole_height_range": (0.03, 0.1), "hole_width_range": (0.03, 0.1)}),
)
"""Horizontal flip; shift, scale and rotate; random resized crop; cutout. The flip doubles the views of a tube, and
loses which side a catheter comes from."""

PUBLISHED_POS_WEIGHT = MappingProxyType({"CVC - Abnormal": 2.0, "CVC - Borderline": 2.0, "CVC - Normal": 2.0})
"""Positives of the catheters whose labels are hardest to tell apart count twice."""

PUBLISHED_GREY_MEAN, PUBLISHED_GREY_STD = 0.4887, 0.2306
"""Grey mean and standard deviation of RANZCR's images as the multi-head solution has them, in 0..1."""

PUBLISHED_SINGLE = Settings(
    annotation_table="train_annotations.csv",
    image_size=1024,
    train_transforms=PUBLISHED_TRANSFORMS,
    batch_size=12,
    pos_weight=dict(PUBLISHED_POS_WEIGHT),
    optimizer="Adam",
    init_lr=3e-5,
    warmup_epochs=1,
    warmup_multiplier=10.0,
    cosine_epochs=20,
    min_lr=1e-7,
    early_stop=5,
)
"""One linear head: warm-up over one epoch to ten times 3e-5, then a cosine over 20 epochs."""

PUBLISHED_MULTI = Settings(
    annotation_table="train_annotations.csv",
    image_size=512,
    train_transforms=PUBLISHED_TRANSFORMS,
    batch_size=16,
    grey_mean=PUBLISHED_GREY_MEAN,
    grey_std=PUBLISHED_GREY_STD,
    classifier="attention",
    heads=dict(RANZCR_HEADS),
    pos_weight=dict(PUBLISHED_POS_WEIGHT),
    optimizer="Adam",
    init_lr=6.5e-5,
    lr_batch_size=16,
    warmup_epochs=0,
    schedule="cosine_restarts",
    epochs=15,
    restart_epochs=16,
    min_lr=0.0,
    early_stop=3,
)
"""One attention head per device type: from 6.5e-5 along a cosine over 15 epochs."""

VIT = Settings(
    annotation_table="train_annotations.csv",
    image_size=518,
    train_transforms=PUBLISHED_TRANSFORMS,
    batch_size=8,
    accumulation_steps=4,
    grey_mean=PUBLISHED_GREY_MEAN,
    grey_std=PUBLISHED_GREY_STD,
    backbone_model="vit_base_patch14_dinov2",
    drop_path_rate=0.1,
    classifier="attention",
    heads=dict(RANZCR_HEADS),
    pos_weight=dict(PUBLISHED_POS_WEIGHT),
    optimizer="AdamW",
    init_lr=1e-5,
    lr_batch_size=32,
    weight_decay=0.05,
    layer_decay=0.75,
    clip_grad_norm=1.0,
    warmup_epochs=2,
    warmup_multiplier=10.0,
    cosine_epochs=13,
    min_lr=1e-7,
    early_stop=3,
    amp_dtype="bfloat16",
)
"""A vision transformer, fine-tuned from DINOv2 at its own image size: layers learn slower the lower they are."""

SAMPLE = Settings(
    dataset_folder="dataset/sample",
    annotation_table="train_annotations.csv",
    cache_name="sample",
    image_size=128,
    num_folds=3,
    train_transforms=(
        # No flip: which side a catheter comes from matters. Border mode 4 mirrors the image beyond its edge.
        (
            "Affine",
            {
                "scale": (0.95, 1.05),
                "translate_percent": (-0.04, 0.04),
                "rotate": (-3, 3),
                "border_mode": 4,
                "p": 1.0,
            },
        ),
    ),
    batch_size=16,
    backbone_model="test_efficientnet",
    pretrained=False,
    optimizer="AdamW",
    init_lr=3e-4,
    lr_batch_size=16,
    weight_decay=0.02,
    warmup_epochs=3,
    warmup_multiplier=10.0,
    cosine_epochs=27,
    min_lr=1e-6,
    early_stop=0,
)
"""The synthetic sample, small enough for a CPU and random weights."""

SAMPLE_MULTI = replace(SAMPLE, classifier="attention", heads=dict(RANZCR_HEADS))
"""The same with one attention head per device type."""

SAMPLE_RULES: Mapping[str, Any] = MappingProxyType(
    {
        "ETT tip above carina": {
            "unit": "mm",
            "bands": (
                (None, 15, "ETT - Abnormal"),
                (15, 30, "ETT - Borderline"),
                (30, 70, "ETT - Normal"),
                (70, 90, "ETT - Borderline"),
                (90, None, "ETT - Abnormal"),
            ),
        }
    }
)
"""The rule by which the synthetic sample's tubes got their labels, as `configs/sample_rules.toml` has it."""

SAMPLE_LINES = replace(
    SAMPLE,
    lines="pooled",
    line_stride=2,
    landmark_table="landmarks.csv",
    measurements={"ETT tip above carina": ("ETT tip", "carina", "vertical")},
    spacing_table="spacing.csv",
    rules=dict(SAMPLE_RULES),
)
"""The same, learning from the drawn lines as well, and measuring."""

PRESETS: Mapping[str, Settings] = MappingProxyType(
    {
        "published_single": PUBLISHED_SINGLE,
        "published_multi": PUBLISHED_MULTI,
        "vit": VIT,
        "sample": SAMPLE,
        "sample_multi": SAMPLE_MULTI,
        "sample_lines": SAMPLE_LINES,
    }
)
