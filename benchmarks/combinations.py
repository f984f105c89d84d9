"""The four families with each kind of head on the synthetic sample: parameters, time per step, score.

    python benchmarks/combinations.py

Every combination trains fold 0 of three for the same number of epochs, from random weights, by the sample's config. The
sample is drawn by a program: the scores say that each combination learns, and nothing about real X-rays.
"""

import argparse
import contextlib
import io
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from timing import random_batches, seconds_since

from catheters.checkpoints.parts import build_classifier, build_preprocessing
from catheters.config.loading import load_settings
from catheters.config.settings import Settings
from catheters.data.cache.writer import build_cache
from catheters.data.tables.label_table import read_label_table
from catheters.labels import RANZCR_HEADS
from catheters.runs.build import build_step, build_table_source
from catheters.runs.run import train_run
from catheters.runtime.device import open_device
from catheters.synthetic import generate_sample
from catheters.training.extensions.log import read_epochs

REPOSITORY = Path(__file__).parents[1]
BACKBONES = ("rexnet_100", "seresnet50", "efficientnet_b0", "resnest14d")
NUM_TIMED_STEPS = 10


def main() -> None:
    """Train, measure and print one line per combination."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--image-size", type=int, default=96)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        generate_sample(folder / "sample")
        of_sample = replace(
            load_settings(REPOSITORY / "configs" / "sample.py"),
            dataset_folder=str(folder / "sample"),
            cache_folder=str(folder),
            saved_models_folder=str(folder),
            image_size=options.image_size,
            folds=(0,),
            init_lr=1e-4,
            warmup_epochs=1,
            cosine_epochs=options.epochs - 1,
        )
        build_cache(
            read_label_table(build_table_source(of_sample)), of_sample.cache_file, build_preprocessing(of_sample)
        )
        print(
            f"{options.epochs} epochs of fold 0 at {options.image_size} px on {open_device('auto')}, synthetic sample"
        )
        print(f"{'backbone':<18}{'classifier':<12}{'million parameters':>20}{'ms/step':>10}{'best macro AUC':>16}")
        combinations = [
            replace(
                of_sample,
                backbone_model=backbone,
                classifier=classifier,
                heads=dict(RANZCR_HEADS) if classifier == "attention" else {},
                run_name=f"{backbone}_{classifier}",
            )
            for backbone in BACKBONES
            for classifier in ("linear", "attention")
        ]
        measured = [_measure_step(settings) for settings in combinations]
        for settings, (millions, milliseconds) in zip(combinations, measured, strict=True):
            with contextlib.redirect_stdout(io.StringIO()):
                train_run(settings, fresh=False)
            log = read_epochs(settings.run_folder / "fold0")
            score = max(entry["val/macro_auc"] for entry in log)
            print(
                f"{settings.backbone_model:<18}{settings.classifier:<12}{millions:>20.1f}{milliseconds:>10.0f}"
                f"{score:>16.3f}",
                flush=True,
            )


def _measure_step(settings: Settings) -> tuple[float, float]:
    """Million parameters, and the median milliseconds of a step."""
    device = open_device("auto")
    model = build_classifier(settings, 0.49, 0.23).to(device).train()
    step = build_step(settings, model, NUM_TIMED_STEPS, device)
    seconds = []
    for batch in random_batches(settings, NUM_TIMED_STEPS, device):
        started = time.perf_counter()
        step(batch)
        seconds.append(seconds_since(started))
    return sum(parameter.numel() for parameter in model.parameters()) / 1e6, 1000 * statistics.median(seconds)


if __name__ == "__main__":
    main()
