"""Multi-head settings, one attention head per device type: edit this file, then

    python preproc_npy.py --config multi_config.py          # once per data set and image_size
    python multi_train.py
    python evaluate.py saved_models/multi_config

RANZCR CLiP unpacked in dataset/ (train.csv beside train/*.jpg). Image size, learning rates, patience of early
stopping, grey values and `pos_weight` are those of the published multi-head solution. This config is meant for one CUDA
GPU. It has not been run on RANZCR's images yet, so it states no memory, no time and no score.
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
        ("HorizontalFlip", {"p": 0.5}),
        ("Affine", {"scale": (0.9, 1.1), "translate_percent": (-0.06, 0.06), "rotate": (-15, 15), "p": 0.8}),
        ("RandomResizedCrop", {"scale": (0.85, 1.0), "ratio": (0.9, 1.1)}),
        (
            "CoarseDropout",
            {"num_holes_range": (1, 5), "hole_height_range": (0.03, 0.1), "hole_width_range": (0.03, 0.1)},
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
    # Training
    pos_weight={"CVC - Abnormal": 2.0, "CVC - Borderline": 2.0, "CVC - Normal": 2.0},
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
