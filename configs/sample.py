"""The synthetic sample: what `make demo` trains, on a CPU, from random weights.

    python -m catheters.synthetic dataset/sample
    python preproc_npy.py --config configs/sample.py
    python train.py --config configs/sample.py
    python evaluate.py saved_models/sample

On 2 CPU cores train.py took 2 min 50 s; the out-of-fold predictions reached a macro ROC AUC of 0.919.

The images are drawn by a program: a score reached on them says that training works, and nothing about real X-rays.

Every setting stands in src/catheters/config/presets.py.
"""

from catheters.config.presets import SAMPLE

settings = SAMPLE
