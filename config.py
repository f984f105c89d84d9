"""Single-head settings: edit this file, then

    python preproc_npy.py          # once per data set and image_size
    python train.py
    python evaluate.py saved_models/config

RANZCR CLiP unpacked in dataset/ (train.csv and train_annotations.csv beside train/*.jpg). The model learns the drawn
lines as well, and reads labels at the tips that it finds; a table without drawn lines needs lines=None and
annotation_table=None. What each choice is worth was measured on synthetic X-rays, and on real ones with drawn
catheters: docs/how-to/better-models.md. This config is meant for one CUDA GPU. It has not been run on RANZCR's images
yet, so it states no memory, no time and no score. `--config published_single` names the recipe that it replaces.

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
    batch_size=12,
    # Model
    backbone_model="resnest50d",
    pretrained=True,
    lines="pooled",
    # Training
    loss_func="bce",
    pos_weight={"CVC - Abnormal": 2.0, "CVC - Borderline": 2.0, "CVC - Normal": 2.0},
    optimizer="AdamW",
    weight_decay=0.02,
    init_lr=3e-5,
    warmup_epochs=3,
    warmup_multiplier=10.0,
    cosine_epochs=18,
    min_lr=1e-7,
    early_stop=5,
    use_amp=True,
    amp_dtype="float16",
)
