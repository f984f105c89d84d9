"""RANZCR CLiP on a GPU of 80 GB: one attention head per device type, 768 px, batches of 48, bfloat16, EMA weights.

    python preproc_npy.py --config configs/large_gpu.py
    python multi_train.py --config configs/large_gpu.py

The activations of a batch, counted without a GPU and in 16 bits, are about 53 GB. The learning rate is the published
one for batches of 16, times the square root of 3 (the rule for Adam of Malladi et al. 2022, "On the SDEs and Scaling
Rules for Adaptive Gradient Algorithms"). Not run on RANZCR's images yet, so it states no time and no score.
"""

from catheters import Settings
from catheters.config.presets import GREY_MEAN, GREY_STD, POS_WEIGHT, TRANSFORMS
from catheters.labels import RANZCR_HEADS

settings = Settings(
    annotation_table="train_annotations.csv",
    image_size=768,
    train_transforms=TRANSFORMS,
    batch_size=48,
    grey_mean=GREY_MEAN,
    grey_std=GREY_STD,
    backbone_model="resnest101e",
    drop_path_rate=0.1,
    classifier="attention",
    heads=dict(RANZCR_HEADS),
    pos_weight=dict(POS_WEIGHT),
    optimizer="AdamW",
    init_lr=1.13e-4,
    lr_batch_size=48,
    weight_decay=0.01,
    clip_grad_norm=1.0,
    ema_decay=0.999,
    warmup_epochs=1,
    warmup_multiplier=1.0,
    cosine_epochs=19,
    min_lr=1e-7,
    early_stop=5,
    amp_dtype="bfloat16",
)
