"""RANZCR CLiP on a GPU of 8 GB: one linear head, 640 px, steps of 2 batches of 8.

    python preproc_npy.py --config configs/small_gpu.py
    python train.py --config configs/small_gpu.py

The activations of a batch, counted without a GPU and in 16 bits, are about 4 GB; grad_checkpointing=True takes them to
a third, for more time. Not run on RANZCR's images yet, so it states no time and no score.
"""

from dataclasses import replace

from catheters.config.presets import SINGLE

settings = replace(
    SINGLE,
    image_size=640,
    batch_size=8,
    accumulation_steps=2,
    backbone_model="resnest50d",
    lr_batch_size=16,
)
