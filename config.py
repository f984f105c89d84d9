"""Single-head settings: edit this file, then

    python preproc_npy.py          # once per data set and image_size
    python train.py
    python evaluate.py saved_models/config

RANZCR CLiP unpacked in dataset/ (train.csv beside train/*.jpg). The learning rates are those of the published
single-head solution: warm-up over one epoch to ten times 3e-5, then a cosine over 20 epochs. This config is meant for
one CUDA GPU. It has not been run on RANZCR's images yet, so it states no memory, no time and no score.

The published solution also flips images: that doubles the views of a tube, and loses which side a catheter comes from.

`python train.py --help` explains every setting; what is not named here keeps the default shown there. Any setting can
be replaced on the command line: python train.py image_size=512 batch_size=32 folds=[0]
"""

from catheters import Settings

settings = Settings(
    # Data
    dataset_folder="dataset",
    label_table="train.csv",
    path_pattern="train/{uid}.jpg",
    annotation_table="train_annotations.csv",
    cache_folder="cache",
    image_size=1024,
    # Folds
    num_folds=5,
    folds=(0, 1, 2, 3, 4),
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
    batch_size=12,
    # Model
    backbone_model="resnest50d",
    pretrained=True,
    # Training
    loss_func="bce",
    pos_weight={"CVC - Abnormal": 2.0, "CVC - Borderline": 2.0, "CVC - Normal": 2.0},
    optimizer="Adam",
    init_lr=3e-5,
    warmup_epochs=1,
    warmup_multiplier=10.0,
    cosine_epochs=20,
    min_lr=1e-7,
    early_stop=5,
    use_amp=True,
    amp_dtype="float16",
)
