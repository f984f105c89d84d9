"""Exported ONNX files against torch: python benchmarks/export.py.

All four families, single-head and multi-head, at full and at half precision: size, largest difference of probabilities
from torch's, and images a second in onnxruntime beside torch's in the same run, taking turns. The weights are random.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from prediction import create_models
from rows import Row, compare_seconds, create_parser, finish

from catheters.config.settings import Settings
from catheters.inference.export import export
from catheters.labels import RANZCR_HEADS

BATCH_SIZE = 2


def main() -> int:
    """Print the table."""
    parser = create_parser(__doc__)
    parser.add_argument("--backbones", nargs="+", default=["rexnet_100", "seresnet50", "efficientnet_b0", "resnest14d"])
    parser.add_argument("--image-size", type=int, default=256, help="pixels (default: 256)")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        rows = [
            measure(backbone, classifier, Path(name), options, half=half)
            for backbone in options.backbones
            for classifier in ("linear", "attention")
            for half in (False, True)
        ]
    return finish(rows, options)


def measure(backbone: str, classifier: str, folder: Path, options: argparse.Namespace, *, half: bool) -> Row:
    """onnxruntime beside torch; prints size and difference."""
    settings = Settings(
        backbone_model=backbone,
        pretrained=False,
        image_size=options.image_size,
        classifier="attention" if classifier == "attention" else "linear",
        heads=dict(RANZCR_HEADS) if classifier == "attention" else {},
    )
    torch.manual_seed(0)
    models = create_models(settings, folder)
    file = folder / "model.onnx"
    export(models, file, half=half)
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    model = models.checkpoints[0].model
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (BATCH_SIZE, 1, *settings.image_shape), dtype=np.uint8)
    seconds: dict[str, list[float]] = {"torch": [], "onnx": []}
    for _ in range(options.rounds + 1):
        started = time.perf_counter()
        with torch.inference_mode():
            expected = model.probabilities(model(torch.from_numpy(images))).numpy()
        middle = time.perf_counter()
        outputs = session.run(["probabilities"], {"images": images})[0]
        seconds["torch"].append(middle - started)
        seconds["onnx"].append(time.perf_counter() - middle)
    difference = float(np.abs(outputs - expected).max())
    of_torch, of_onnx = (measured[1:] for measured in seconds.values())  # without the first, which warms up
    what = f"{backbone}, {classifier}, {'half' if half else 'full'} precision"
    print(f"{what}: {file.stat().st_size / 1e6:.1f} MB, differs from torch by {difference:.1e}", flush=True)
    return compare_seconds(
        "export", f"{what}, onnxruntime", of_onnx, "torch, full precision", of_torch, each=BATCH_SIZE, unit="ms/image"
    )


if __name__ == "__main__":
    sys.exit(main())
