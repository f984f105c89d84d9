"""The two training recipes that this program began with, number by number, where they are no error.

Source: github.com/ArgentLo/RANZRC_Catheter_Prediction, public in 2021. Single-head: config.py (1895870), train.py
(5457156) and dataset.py (02613da). Multi-head: multi_config.py (ac90264), multi_train.py (58758eb) and multi_utils.py
(7f74d55). docs/reference/published.md has each number beside what stands here, and why where they differ.
"""

from types import MappingProxyType

from catheters.config.settings import Settings
from catheters.labels import RANZCR_HEADS

PUBLISHED_POS_WEIGHT = MappingProxyType({"CVC - Abnormal": 2.0, "CVC - Borderline": 2.0, "CVC - Normal": 2.0})
"""Positives of central venous catheters count twice, in both."""

SINGLE_TRANSFORMS = (
    ("RandomResizedCrop", {"scale": (0.8, 1.0)}),
    ("HorizontalFlip", {"p": 0.5}),
    ("RandomBrightnessContrast", {"brightness_limit": 0.2, "contrast_limit": 0.2, "p": 0.5}),
    (
        "OneOf",
        {
            "transforms": (
                ("GaussNoise", {"std_range": (0.00877, 0.02148)}),  # variances of 5 to 30 grey levels
                ("MotionBlur", {"blur_limit": (3, 5)}),
                ("MedianBlur", {"blur_limit": (3, 5)}),
                ("GaussianBlur", {"blur_limit": (3, 5), "sigma_limit": (0.8, 1.1)}),
            ),
            "p": 0.25,
        },
    ),
    (
        "OneOf",
        {
            "transforms": (
                ("OpticalDistortion", {"distort_limit": 1.0, "border_mode": 4}),
                ("GridDistortion", {"num_steps": 5, "distort_limit": 1.0, "normalized": False, "border_mode": 4}),
                ("ElasticTransform", {"alpha": 3, "sigma": 50, "border_mode": 4}),
            ),
            "p": 0.25,
        },
    ),
    ("CLAHE", {"clip_limit": (1, 4), "p": 0.25}),
    ("HueSaturationValue", {"hue_shift_limit": 0, "sat_shift_limit": 0, "val_shift_limit": 10, "p": 0.25}),
    (
        "Affine",
        {
            "scale": (0.9, 1.1),
            "translate_percent": (-0.1, 0.1),
            "rotate": (-45, 45),
            "border_mode": 4,
            "p": 0.25,
        },
    ),
    (
        "CoarseDropout",
        {"num_holes_range": (3, 3), "hole_height_range": (0.1, 0.1), "hole_width_range": (0.1, 0.1), "p": 0.35},
    ),
)
"""Crop, flip, brightness, noise or blur, distortion, local contrast, shift, scale and rotate, holes.

Border mode 4 mirrors the image beyond its edge, as albumentations did by default."""

MULTI_TRANSFORMS = (
    ("HorizontalFlip", {"p": 0.5}),
    (
        "Affine",
        {
            "scale": (0.8, 1.2),
            "translate_percent": (-0.2, 0.2),
            "rotate": (-20, 20),
            "border_mode": 0,
            "p": 0.65,
        },
    ),
    ("RandomResizedCrop", {"scale": (0.8, 1.0)}),
    (
        "CoarseDropout",
        {"num_holes_range": (5, 5), "hole_height_range": (0.1, 0.1), "hole_width_range": (0.1, 0.1), "p": 0.5},
    ),
)
"""Flip; shift, scale and rotate over black; crop; holes."""

PUBLISHED_SINGLE = Settings(
    annotation_table="train_annotations.csv",
    image_size=1024,
    seed=9527,
    train_transforms=SINGLE_TRANSFORMS,
    batch_size=12,
    valid_batch_size=16,
    grey_mean=0.449,
    grey_std=0.226,
    backbone_model="efficientnet_b3",
    drop_rate=0.0,
    pos_weight=dict(PUBLISHED_POS_WEIGHT),
    optimizer="Adam",
    init_lr=3e-5,
    schedule_step="epoch",
    warmup_epochs=1,
    warmup_multiplier=10.0,
    cosine_epochs=20,
    min_lr=1e-7,
    early_stop=5,
)
"""One linear head: an epoch at 3e-5, then a cosine over 20 epochs from ten times that, a step each epoch."""

PUBLISHED_MULTI = Settings(
    annotation_table="train_annotations.csv",
    image_size=512,
    folds=(0, 2, 4),
    seed=4213,
    train_transforms=MULTI_TRANSFORMS,
    batch_size=64,
    valid_batch_size=16,
    grey_mean=0.4887381077884414,
    grey_std=0.23064819430546407,
    backbone_model="inception_v3",
    classifier="attention",
    heads=dict(RANZCR_HEADS),
    pos_weight=dict(PUBLISHED_POS_WEIGHT),
    optimizer="Adam",
    init_lr=6.5e-5,
    lr_batch_size=64,
    warmup_epochs=0,
    schedule="cosine_restarts",
    epochs=15,
    restart_epochs=16,
    min_lr=0.0,
    early_stop=3,
)
"""One attention head per device type: from 6.5e-5 along a cosine of 16 epochs, of which 15 are trained."""
