"""Multi-head settings, one attention head per device type: edit this file, then

    python preproc_npy.py --config multi_config.py          # once per data set and image_size
    python multi_train.py
    python evaluate.py saved_models/multi_config

RANZCR CLiP unpacked in dataset/ (train.csv and train_annotations.csv beside train/*.jpg). But for the heads and the
image size this is config.py, whose first lines say where its choices come from. This config is meant for one CUDA GPU.
It has not been run on RANZCR's images yet, so it states no memory, no time and no score. `--config published_multi`
names the recipe that it replaces.
"""

from catheters import Settings
from catheters.labels import RANZCR_HEADS

settings = Settings(
    # Data
    dataset_folder="dataset",
    annotation_table="train_annotations.csv",
    image_size=512,
    # Folds
    num_folds=5,
    seed=0,
    # Batches
    train_transforms=(
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
    ),
    batch_size=16,
    grey_mean=0.4887,
    grey_std=0.2306,
    # Model
    backbone_model="resnest50d",
    pretrained=True,
    classifier="attention",
    heads=dict(RANZCR_HEADS),
    lines="pooled",
    # Training
    pos_weight={"CVC - Abnormal": 2.0, "CVC - Borderline": 2.0, "CVC - Normal": 2.0},
    optimizer="AdamW",
    weight_decay=0.02,
    init_lr=3e-5,
    lr_batch_size=16,
    warmup_epochs=3,
    warmup_multiplier=10.0,
    cosine_epochs=18,
    min_lr=1e-7,
    early_stop=5,
)
