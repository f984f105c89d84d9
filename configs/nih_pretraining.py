"""Pretraining on NIH ChestX-ray14: 14 findings, 112,120 images, unpacked in nih/ beside Data_Entry_2017_v2020.csv.

    python preproc_npy.py --config configs/nih_pretraining.py exclude_ids=ranzcr_ids.txt
    python train.py --config configs/nih_pretraining.py exclude_ids=ranzcr_ids.txt
    python train.py pretrained=saved_models/nih_pretraining/fold0/best.pt

The images may lie in nih/images/ or in nih/images_001/images/ and so on. RANZCR CLiP's images come from NIH: without
`exclude_ids`, a text file with one `Image Index` per line, the backbone has seen them, and every score after it is too
good. One fold in ten decides when to stop (early stopping).

For one GPU: the activations of a batch, counted without one and in 16 bits, are about 10 GB. Not run on NIH's images
yet, so it states no time and no score.
"""

from catheters import Settings
from catheters.config.presets import TRANSFORMS
from catheters.labels import NIH_LABELS

settings = Settings(
    dataset_folder="nih",
    label_table="Data_Entry_2017_v2020.csv",
    uid_column="Image Index",
    patient_column="Patient ID",
    path_pattern="images*/**/{uid}",
    label_columns=NIH_LABELS,
    findings_column="Finding Labels",
    cache_name="nih",
    image_size=512,
    num_folds=10,
    folds=(0,),
    train_transforms=TRANSFORMS,
    batch_size=32,
    backbone_model="resnest50d",
    optimizer="AdamW",
    init_lr=3e-4,
    lr_batch_size=32,
    weight_decay=0.01,
    warmup_epochs=1,
    warmup_multiplier=1.0,
    cosine_epochs=9,
    min_lr=1e-6,
    early_stop=3,
)
