"""What the training loop costs over the bare forward, backward and step, on batches already in memory.

    python benchmarks/step.py

Both sides train the same model with the same optimizer on the same batches and take turns at every step, so that a busy
machine slows both alike. The loop's side is what `train.py` runs: step, schedule, gradient scaler, gradients' norm,
manager, log, progress; but for snapshots, which benchmarks/snapshots.py measures. All four families, with one linear
head and with one attention head per device type.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from rows import Row, compare_seconds, create_parser, finish
from timing import MEAN, STD, as_in_training, random_batches, seconds_since

from catheters.checkpoints.parts import build_classifier
from catheters.config.settings import Settings
from catheters.data.batch import Batch
from catheters.labels import RANZCR_HEADS
from catheters.runs.build import build_step
from catheters.runtime.distributed import ALONE
from catheters.runtime.precision import autocast
from catheters.training.extensions.log import TrainingLog
from catheters.training.loop import train_epoch
from catheters.training.losses import total
from catheters.training.manager import Manager
from catheters.training.step import TrainStep

WARM_UP_STEPS = 5


def main() -> int:
    """Measure and print."""
    parser = create_parser(__doc__)
    parser.add_argument("--backbones", nargs="+", default=["rexnet_100", "seresnet50", "efficientnet_b0", "resnest14d"])
    parser.add_argument("--image-size", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=12)
    parser.add_argument("--steps", type=int, default=40, help="steps of each side")
    options = parser.parse_args()
    rows = [
        compare(backbone, classifier, options)
        for classifier in ("linear", "attention")
        for backbone in options.backbones
    ]
    return finish(rows, options)


def compare(backbone: str, classifier: str, options: argparse.Namespace) -> Row:
    """The loop's steps beside the bare ones."""
    device = as_in_training()
    settings = Settings(
        backbone_model=backbone,
        pretrained=False,
        image_size=options.image_size,
        batch_size=options.batch_size,
        classifier="attention" if classifier == "attention" else "linear",
        heads=dict(RANZCR_HEADS) if classifier == "attention" else {},
    )
    num_batches = WARM_UP_STEPS + options.steps
    step = build_step(settings, build_classifier(settings, MEAN, STD).to(device), num_batches, device)
    turns = Turns(step, random_batches(settings, num_batches, device))
    with tempfile.TemporaryDirectory() as name:
        log = TrainingLog(
            Path(name),
            backbone,
            ALONE,
            device,
            num_batches=num_batches,
            num_epochs=1,
            batch_size=options.batch_size,
            num_models_left=0,
            may_skip=step.scaler.is_enabled(),
        )
        manager = Manager(step, [log], num_epochs=1, num_batches=num_batches, folder=Path(name))
        train_epoch(turns, step, manager, log, backbone)
    return compare_seconds(
        "step",
        f"{backbone}, {classifier}, {options.batch_size} x {options.image_size} px",
        turns.loop_seconds[WARM_UP_STEPS:],
        "bare forward, backward, step",
        turns.bare_seconds[WARM_UP_STEPS:],
        at_least=0.97,
    )


class Turns:
    """Batches for the loop that do a bare step before or after each one, and time both.

    The loop's time is what passes between its taking a batch and asking for the next.
    """

    def __init__(self, step: TrainStep, batches: Sequence[Batch]) -> None:
        self._step = step
        self._batches = batches
        self.bare_seconds: list[float] = []
        self.loop_seconds: list[float] = []

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[Batch]:
        for number, batch in enumerate(self._batches):
            if number % 2:
                self._bare(batch)
            started = time.perf_counter()
            yield batch
            self.loop_seconds.append(seconds_since(started))
            if not number % 2:
                self._bare(batch)

    def _bare(self, batch: Batch) -> None:
        started = time.perf_counter()
        with autocast(self._step.device, self._step.dtype):
            loss = total(self._step.losses(self._step.model(batch.images), batch))
        loss.backward()  # type: ignore[no-untyped-call]
        self._step.optimizer.step()
        self._step.optimizer.zero_grad(set_to_none=True)  # else the loop's next gradients were added to these
        self.bare_seconds.append(seconds_since(started))


if __name__ == "__main__":
    sys.exit(main())
