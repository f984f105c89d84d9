"""RANZCR CLiP on a GPU of 8 GB: one linear head, 640 px, steps of 2 batches of 8.

    python preproc_npy.py --config configs/small_gpu.py
    python train.py --config configs/small_gpu.py

The activations of a batch, counted without a GPU and in 16 bits, are about 4 GB; grad_checkpointing=True takes them to
a third, for more time. Not run on RANZCR's images yet, so it states no time and no score.
"""

from catheters.published import PUBLISHED_POS_WEIGHT, PUBLISHED_TRANSFORMS
from catheters.settings import Settings

settings = Settings(
    annotation_table="train_annotations.csv",
    image_size=640,
    train_transforms=PUBLISHED_TRANSFORMS,
    batch_size=8,
    accumulation_steps=2,
    backbone_model="resnest50d",
    pos_weight=dict(PUBLISHED_POS_WEIGHT),
    init_lr=3e-5,
    lr_batch_size=16,
    warmup_multiplier=10.0,
    cosine_epochs=20,
    early_stop=5,
)
