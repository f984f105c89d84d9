"""Presets: settings that configs in `configs/` start from.

A config is one of them with a few changes: `settings = replace(SINGLE, backbone_model="rexnet_200")`. All but the
samples are for RANZCR CLiP, unpacked in `dataset/`. Each can be named in place of a config: `--config sample`.
"""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from catheters.config.published import PUBLISHED_MULTI, PUBLISHED_POS_WEIGHT, PUBLISHED_SINGLE
from catheters.config.settings import Settings
from catheters.labels import RANZCR_HEADS

TRANSFORMS = (
    # No flip: which side a catheter comes from matters. Border mode 4 mirrors the image beyond its edge.
    (
        "Affine",
        {
            "scale": (0.9, 1.1),
            "translate_percent": (-0.06, 0.06),
            "rotate": (-3, 3),
            "border_mode": 4,
            "p": 1.0,
        },
    ),
)
"""Shift, scale and rotate a little; docs/how-to/better-models.md has what each choice was worth."""

POS_WEIGHT = PUBLISHED_POS_WEIGHT
"""As published: positives of the catheters whose labels are hardest to tell apart count twice."""

GREY_MEAN, GREY_STD = 0.4887, 0.2306
"""Grey mean and standard deviation of RANZCR's images, in 0..1, as the published multi-head recipe has them."""

SINGLE = Settings(
    annotation_table="train_annotations.csv",
    image_size=1024,
    train_transforms=TRANSFORMS,
    batch_size=12,
    backbone_model="resnest50d",
    lines="pooled",
    pos_weight=dict(POS_WEIGHT),
    optimizer="AdamW",
    init_lr=3e-5,
    weight_decay=0.02,
    warmup_epochs=3,
    warmup_multiplier=10.0,
    cosine_epochs=18,
    min_lr=1e-7,
    early_stop=5,
)
"""One linear head, which also reads what lies at the tips of lines: `config.py`."""

MULTI = replace(
    SINGLE,
    image_size=512,
    batch_size=16,
    grey_mean=GREY_MEAN,
    grey_std=GREY_STD,
    classifier="attention",
    heads=dict(RANZCR_HEADS),
    lr_batch_size=16,
)
"""One attention head per device type, likewise: `multi_config.py`."""

VIT = Settings(
    annotation_table="train_annotations.csv",
    image_size=518,
    train_transforms=TRANSFORMS,
    batch_size=8,
    accumulation_steps=4,
    grey_mean=GREY_MEAN,
    grey_std=GREY_STD,
    backbone_model="vit_base_patch14_dinov2",
    drop_path_rate=0.1,
    classifier="attention",
    heads=dict(RANZCR_HEADS),
    pos_weight=dict(POS_WEIGHT),
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
        "single": SINGLE,
        "multi": MULTI,
        "published_single": PUBLISHED_SINGLE,
        "published_multi": PUBLISHED_MULTI,
        "vit": VIT,
        "sample": SAMPLE,
        "sample_multi": SAMPLE_MULTI,
        "sample_lines": SAMPLE_LINES,
    }
)
