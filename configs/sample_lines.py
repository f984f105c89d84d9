"""The synthetic sample, learning from the drawn lines as well: labels are read at the tips that the model finds.

    python -m catheters.synthetic dataset/sample
    python preproc_npy.py --config configs/sample_lines.py
    python train.py --config configs/sample_lines.py
    python evaluate.py saved_models/sample saved_models/sample_lines
    python predict.py --model saved_models/sample_lines dataset/sample/test --lines saved_models/lines

The images are drawn by a program, and their labels follow from where it put the tips: a score reached on them says that
training works, and nothing about real X-rays.

Every setting stands in src/catheters/config/presets.py.
"""

from catheters.config.presets import SAMPLE_LINES

settings = SAMPLE_LINES
