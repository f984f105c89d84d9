"""RANZCR CLiP on a GPU of 80 GB: one attention head per device type, 768 px, batches of 48, bfloat16, EMA weights.

    python preproc_npy.py --config configs/large_gpu.py
    python multi_train.py --config configs/large_gpu.py

The activations of a batch, counted without a GPU and in 16 bits, are about 54 GB. The learning rate is that of
multi_config.py, for batches of 16, times the square root of 3 (the rule for Adam of Malladi et al. 2022, "On the SDEs
and Scaling Rules for Adaptive Gradient Algorithms"). Not run on RANZCR's images yet, so it states no time and no score.
"""

from dataclasses import replace

from catheters.config.presets import MULTI

settings = replace(
    MULTI,
    image_size=768,
    batch_size=48,
    backbone_model="resnest101e",
    drop_path_rate=0.1,
    init_lr=5.2e-5,
    lr_batch_size=48,
    clip_grad_norm=1.0,
    ema_decay=0.999,
    amp_dtype="bfloat16",
)
