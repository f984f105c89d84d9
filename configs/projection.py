"""AP or PA: the projection of a chest X-ray, learnt from 52 real radiographs of 36 patients.

A small real data set with labels of its own: it shows how any CSV with named columns is trained. The folder holds
`index.csv` (patient_id, image_id, file, ..., projection) and the PNG files beside it.

    python preproc_npy.py --config configs/projection.py
    python train.py --config configs/projection.py
    python evaluate.py saved_models/projection

On 2 CPU cores they took 2 min 28 s; the out-of-fold predictions reached an AUC of 0.956. With 17 or 18 images in a
fold, and its best epoch chosen on them, that shows that the way from files to numbers works, and little more.
"""

from catheters import Settings

settings = Settings(
    dataset_folder="../shared/data/xrays",
    label_table="index.csv",
    uid_column="image_id",
    patient_column="patient_id",
    path_pattern="{file}",
    label_columns=["AP projection"],
    derived_labels={"AP projection": ("projection", "ap")},
    cache_name="projection",
    image_size=128,
    num_folds=3,
    train_transforms=[
        ("Affine", {"scale": (0.9, 1.1), "translate_percent": (-0.05, 0.05), "rotate": (-8, 8), "p": 1.0}),
        ("RandomBrightnessContrast", {"brightness_limit": 0.1, "contrast_limit": 0.2, "p": 0.5}),
    ],
    batch_size=8,
    backbone_model="resnet10t",
    pretrained=False,
    optimizer="AdamW",
    init_lr=1e-4,
    lr_batch_size=8,
    weight_decay=0.01,
    warmup_epochs=1,
    warmup_multiplier=10.0,
    cosine_epochs=19,
    min_lr=1e-6,
    early_stop=0,
)
