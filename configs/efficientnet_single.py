"""EfficientNet, one linear head: the single-head preset on RANZCR CLiP in dataset/.

    python preproc_npy.py --config configs/efficientnet_single.py
    python train.py --config configs/efficientnet_single.py

For one GPU: the activations of a batch, counted without one and in 16 bits, are about 39 GB. Not run on RANZCR's images
yet, so it states no time and no score.
"""

from dataclasses import replace

from catheters.config.presets import SINGLE

settings = replace(SINGLE, backbone_model="efficientnet_b5")
