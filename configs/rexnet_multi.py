"""ReXNet, one attention head per device type: the multi-head preset on RANZCR CLiP in dataset/.

    python preproc_npy.py --config configs/rexnet_multi.py
    python multi_train.py --config configs/rexnet_multi.py

For one GPU: the activations of a batch, counted without one and in 16 bits, are about 8 GB. Not run on RANZCR's images
yet, so it states no time and no score.
"""

from dataclasses import replace

from catheters.config.presets import MULTI

settings = replace(MULTI, backbone_model="rexnet_200")
