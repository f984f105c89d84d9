"""The synthetic sample with one attention head per device type: the second half of what `make demo` trains.

    python -m catheters.synthetic dataset/sample
    python preproc_npy.py --config configs/sample_multi.py
    python multi_train.py --config configs/sample_multi.py
    python evaluate.py saved_models/sample_multi

On 2 CPU cores multi_train.py took 3 min 40 s; the out-of-fold predictions reached a macro ROC AUC of 0.914.

The images are drawn by a program: a score reached on them says that training works, and nothing about real X-rays.

Every setting stands in src/catheters/config/presets.py.
"""

from catheters.config.presets import SAMPLE_MULTI

settings = SAMPLE_MULTI
