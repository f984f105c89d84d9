"""What snapshots cost.

    python benchmarks/snapshots.py

First the sample's config, as `make demo` trains it, whose epochs take seconds: the worst case for snapshots.
One fold is trained for a few epochs, several times; the table has the seconds spent in writing snapshots and the
seconds of the rest of the training, measured in the same run.

Then the four families with EMA weights and AdamW: the size of a snapshot, the seconds of writing it (the state is
read from the device, written, and forced to the disk), and their share of the default interval of 10 minutes.
"""

import argparse
import contextlib
import io
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from timing import random_batches

from catheters.checkpoints.parts import build_classifier, build_preprocessing
from catheters.config.loading import load_settings
from catheters.config.settings import Settings
from catheters.data.cache.writer import build_cache
from catheters.data.tables.label_table import read_label_table
from catheters.runs.build import build_context, build_step, build_table_source
from catheters.runs.provenance import describe_environment
from catheters.runs.run import train_run
from catheters.runtime.device import open_device
from catheters.runtime.distributed import ALONE
from catheters.synthetic import generate_sample
from catheters.training.extensions.checkpoints import LastCheckpoint
from catheters.training.extensions.epochs import Stopping
from catheters.training.extensions.log import TrainingLog
from catheters.training.extensions.snapshots import Snapshots
from catheters.training.loop import train_epoch
from catheters.training.manager import Manager

REPOSITORY = Path(__file__).parents[1]
BACKBONES = ("rexnet_100", "seresnet50", "efficientnet_b0", "resnest50d")
SECONDS_OF_INTERVAL = 60 * (Settings().snapshot_minutes or 0)


class Timed:
    """Counts the seconds spent in `Snapshots.write`."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.number = 0
        self._write = Snapshots.write

    def __enter__(self) -> "Timed":
        def write(snapshots: Snapshots, manager: Manager) -> bool:
            started = time.monotonic()
            is_written = self._write(snapshots, manager)
            self.seconds += time.monotonic() - started
            self.number += 1
            return is_written

        Snapshots.write = write  # type: ignore[method-assign, assignment]
        return self

    def __exit__(self, *_: object) -> None:
        Snapshots.write = self._write  # type: ignore[method-assign]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=6, help="of the sample's config")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        measure_sample(Path(name), options.epochs, options.rounds)
        measure_families(Path(name), options.rounds)


def measure_sample(folder: Path, num_epochs: int, rounds: int) -> None:
    """A table of the rounds, and their median share."""
    generate_sample(folder / "sample")
    settings = replace(
        load_settings(REPOSITORY / "configs" / "sample.py"),
        dataset_folder=str(folder / "sample"),
        cache_folder=str(folder),
        saved_models_folder=str(folder),
        folds=(0,),
        epochs=num_epochs,
    )
    build_cache(read_label_table(build_table_source(settings)), settings.cache_file, build_preprocessing(settings))
    print(f"configs/sample.py, {num_epochs} epochs of fold 0 on {open_device('auto')}")
    print(f"{'round':<8}{'snapshots':>10}{'seconds of them':>18}{'seconds of the rest':>22}{'share':>9}")
    shares = []
    for number in range(rounds):
        with contextlib.redirect_stdout(io.StringIO()), Timed() as timed:
            started = time.monotonic()
            train_run(replace(settings, run_name=f"round{number}"), fresh=False)
            rest = time.monotonic() - started - timed.seconds
        shares.append(timed.seconds / rest)
        print(f"{number + 1:<8}{timed.number:>10}{timed.seconds:>18.2f}{rest:>22.2f}{shares[-1]:>9.2%}", flush=True)
    print(f"median share {statistics.median(shares):.2%}\n")


def measure_families(folder: Path, rounds: int) -> None:
    """One line per family."""
    device = open_device("auto")
    print(f"{'backbone':<18}{'MB':>8}{'median seconds':>16}{'share of 10 min':>18}")
    for backbone in BACKBONES:
        settings = Settings(
            backbone_model=backbone, pretrained=False, image_size=64, batch_size=2, optimizer="AdamW", ema_decay=0.999
        )
        model_folder = folder / backbone
        model_folder.mkdir()
        step = build_step(settings, build_classifier(settings, 0.5, 0.25).to(device), 1, device)
        batches = random_batches(settings, 1, device)
        environment = {**describe_environment(device, 1), "data_fingerprint": ""}
        context = build_context(
            settings,
            backbone,
            model_folder,
            environment,
            run_name=backbone,
            runs_folder=model_folder.parent,
            num_models_left=0,
            first_stage=(),
        )
        log = TrainingLog.of(context, step, 1)
        keeper = LastCheckpoint(step, None, context, 0)  # type: ignore[arg-type]
        stopping = Stopping((), 9, backbone, ALONE)
        snapshots = Snapshots(context, step, log, keeper, stopping, 1)
        manager = Manager(step, [log], num_epochs=9, num_batches=1, folder=model_folder)
        train_epoch(batches, step, manager, log, backbone)
        seconds = []
        for _ in range(rounds):
            started = time.monotonic()
            snapshots.write(manager)
            seconds.append(time.monotonic() - started)
        size = sum(file.stat().st_size for file in sorted((model_folder / "last").iterdir())[-1].iterdir())
        median = statistics.median(seconds)
        print(f"{backbone:<18}{size / 1e6:>8.0f}{median:>16.2f}{median / SECONDS_OF_INTERVAL:>18.2%}", flush=True)


if __name__ == "__main__":
    main()
