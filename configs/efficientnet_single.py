"""EfficientNet, one linear head, by the published single-head recipe on RANZCR CLiP in dataset/.

    python preproc_npy.py --config configs/efficientnet_single.py
    python train.py --config configs/efficientnet_single.py

For one GPU: the activations of a batch, counted without one and in 16 bits, are about 39 GB. Not run on RANZCR's images
yet, so it states no time and no score.
"""

from catheters.published import PUBLISHED_POS_WEIGHT, PUBLISHED_TRANSFORMS
from catheters.settings import Settings

settings = Settings(
    annotation_table="train_annotations.csv",
    image_size=1024,
    train_transforms=PUBLISHED_TRANSFORMS,
    batch_size=12,
    backbone_model="efficientnet_b5",
    pos_weight=dict(PUBLISHED_POS_WEIGHT),
    optimizer="Adam",
    init_lr=3e-5,
    warmup_epochs=1,
    warmup_multiplier=10.0,
    cosine_epochs=20,
    min_lr=1e-7,
    early_stop=5,
)
