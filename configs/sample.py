"""The synthetic sample: what `make demo` trains, on a CPU, from random weights.

    python -m catheters.synthetic dataset/sample
    python preproc_npy.py --config configs/sample.py
    python train.py --config configs/sample.py
    python evaluate.py saved_models/sample

On 2 CPU cores train.py took 2 min 50 s; the out-of-fold predictions reached a macro ROC AUC of 0.920.

The images are drawn by a program: a score reached on them says that training works, and nothing about real X-rays.
"""

from catheters import Settings

settings = Settings(
    dataset_folder="dataset/sample",
    annotation_table="train_annotations.csv",
    cache_name="sample",
    image_size=128,
    num_folds=3,
    train_transforms=(
        # No flip: which side a catheter comes from matters. Border mode 4 mirrors the image beyond its edge.
        (
            "Affine",
            {
                "scale": (0.95, 1.05),
                "translate_percent": (-0.04, 0.04),
                "rotate": (-3, 3),
                "border_mode": 4,
                "p": 1.0,
            },
        ),
    ),
    batch_size=16,
    backbone_model="test_efficientnet",
    pretrained=False,
    optimizer="AdamW",
    init_lr=3e-4,
    lr_batch_size=16,
    weight_decay=0.02,
    warmup_epochs=3,
    warmup_multiplier=10.0,
    cosine_epochs=27,
    min_lr=1e-6,
    early_stop=0,
)
