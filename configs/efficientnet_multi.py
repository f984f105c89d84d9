"""EfficientNet, an attention head a device, by the published multi-head recipe on RANZCR CLiP in dataset/.

    python preproc_npy.py --config configs/efficientnet_multi.py
    python multi_train.py --config configs/efficientnet_multi.py

For one GPU: the activations of a batch, counted without one and in 16 bits, are about 13 GB. Not run on RANZCR's images
yet, so it states no time and no score.
"""

from catheters.labels import RANZCR_HEADS
from catheters.published import PUBLISHED_GREY_MEAN, PUBLISHED_GREY_STD, PUBLISHED_POS_WEIGHT, PUBLISHED_TRANSFORMS
from catheters.settings import Settings

settings = Settings(
    annotation_table="train_annotations.csv",
    image_size=512,
    train_transforms=PUBLISHED_TRANSFORMS,
    batch_size=16,
    grey_mean=PUBLISHED_GREY_MEAN,
    grey_std=PUBLISHED_GREY_STD,
    backbone_model="efficientnet_b5",
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
