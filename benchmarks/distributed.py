"""Distributed training against one process: differences of losses and predictions, each image predicted once, speed.

    python benchmarks/distributed.py

Trains fold 0 of the synthetic sample with the same settings in one process and, by torchrun, in several that share the
batches (gloo on CPUs, NCCL on GPUs), and with folds_parallel. A model without batch norm, dropout and mixup has to come
out the same but for rounding; one with batch norm shows what its statistics over a part of the batch change.
"""

import argparse
import dataclasses
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from config_file import write_config

from catheters.checkpoints.parts import build_preprocessing
from catheters.config.settings import Settings
from catheters.data.cache.writer import build_cache
from catheters.data.tables.label_table import read_label_table
from catheters.runs.build import build_table_source
from catheters.synthetic import generate_sample
from catheters.training.extensions.log import read_epochs

REPOSITORY = Path(__file__).parents[1]


def main() -> None:
    """Train and print one line per way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, nargs="+", default=[2])
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--num-images", type=int, default=240)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        settings = make_settings(folder, num_images=options.num_images, num_epochs=options.epochs)
        print(
            f"{'backbone':<16}{'processes':<26}{'loss, max rel. difference':>26}{'probability, max difference':>29}"
            f"{'images once, in order':>23}{'images/s':>10}{'seconds':>9}"
        )
        for backbone in ("test_convnext", "test_resnet"):
            of_model = dataclasses.replace(settings, backbone_model=backbone)
            reference = train(of_model, folder, f"{backbone}_1", 1)
            _print(backbone, "1", reference, reference)
            for count in options.processes:
                _print(backbone, str(count), reference, train(of_model, folder, f"{backbone}_{count}", count))
            alone = dataclasses.replace(of_model, folds_parallel=True)
            count = max(options.processes)
            _print(backbone, f"{count}, folds_parallel", reference, train(alone, folder, f"{backbone}_folds", count))


def make_settings(folder: Path, *, num_images: int, num_epochs: int) -> Settings:
    """Settings of one fold of a synthetic sample in a folder, whose cache is built."""
    generate_sample(folder / "sample", num_images=num_images, num_test_images=0, image_size=64)
    settings = Settings(
        dataset_folder=str(folder / "sample"),
        cache_folder=str(folder),
        cache_name="distributed",
        saved_models_folder=str(folder),
        image_size=64,
        num_folds=2,
        folds=(0,),
        train_transforms=(("HorizontalFlip", {"p": 0.5}),),
        batch_size=12,
        num_workers=0,
        pretrained=False,
        optimizer="AdamW",
        init_lr=1e-3,
        warmup_multiplier=2.0,
        cosine_epochs=num_epochs - 1,
        early_stop=0,
    )
    build_cache(read_label_table(build_table_source(settings)), settings.cache_file, build_preprocessing(settings))
    return settings


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trained:
    """What came out, and how fast."""

    losses: np.ndarray
    predictions: pd.DataFrame
    images_per_second: float
    seconds: float


def train(settings: Settings, folder: Path, run_name: str, count: int) -> Trained:
    """Train by train.py in so many processes."""
    settings = dataclasses.replace(settings, run_name=run_name)
    config = write_config(settings, folder / f"{run_name}.py")
    launcher = [sys.executable] if count == 1 else [sys.executable, "-m", "torch.distributed.run"]
    options = [] if count == 1 else [f"--nproc-per-node={count}"]
    started = time.monotonic()
    subprocess.run(
        [*launcher, *options, str(REPOSITORY / "train.py"), "--config", str(config)],
        check=True,
        capture_output=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},  # the same for one process as torchrun sets for several
    )
    seconds = time.monotonic() - started
    log = read_epochs(settings.run_folder / "fold0")
    return Trained(
        losses=np.array([[entry["train/loss"], entry["val/loss"]] for entry in log]),
        predictions=pd.read_csv(settings.run_folder / "predictions.csv"),
        images_per_second=float(np.median([entry["speed"]["images_per_second"] for entry in log])),
        seconds=seconds,
    )


def _print(backbone: str, processes: str, reference: Trained, got: Trained) -> None:
    difference = np.abs(got.losses / reference.losses - 1).max()
    columns = reference.predictions.columns[3:]
    uid = reference.predictions.columns[0]
    is_same_order = got.predictions[uid].tolist() == reference.predictions[uid].tolist()
    apart = np.abs(got.predictions[columns].to_numpy() - reference.predictions[columns].to_numpy()).max()
    print(
        f"{backbone:<16}{processes:<26}{difference:>26.1e}{apart:>29.1e}{'yes' if is_same_order else 'NO':>23}"
        f"{got.images_per_second:>10.0f}{got.seconds:>9.1f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
