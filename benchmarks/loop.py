"""What the training loop costs over the bare forward, backward and step, on batches already in memory.

    python benchmarks/loop.py

Both sides train the same model on the same batches and take turns at every step, so that a busy machine slows both
alike. The table gives the median time of a step on each side, and of the ratios of neighbouring steps the median and
the quartiles. The loop's side is what `train.py` runs: step, schedule, gradient scaler, manager, log, progress.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from pytorch_pfn_extras.training import ExtensionsManager
from timing import print_header, print_turns, random_batches, seconds_since
from torch import Tensor

from catheters.models.classifier import create_classifier
from catheters.settings import Settings
from catheters.training.distributed import ALONE
from catheters.training.log import TrainingLog
from catheters.training.loop import train_epoch
from catheters.training.precision import autocast
from catheters.training.step import TrainStep, choose_device

MEAN, STD = 0.49, 0.23
WARM_UP_STEPS = 5


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbones", nargs="+", default=["rexnet_100", "seresnet50", "efficientnet_b0", "resnest14d"])
    parser.add_argument("--image-size", type=int, default=96)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--steps", type=int, default=120, help="steps of each side")
    options = parser.parse_args()
    device = choose_device("auto")
    print(f"{options.steps} steps of {options.batch_size} images at {options.image_size} px on {device}")
    print_header("bare", "loop")
    for backbone in options.backbones:
        settings = Settings(
            backbone_model=backbone, pretrained=False, image_size=options.image_size, batch_size=options.batch_size
        )
        model = create_classifier(settings, MEAN, STD).to(device).train()
        step = TrainStep(settings, model, options.steps, device)
        turns = Turns(step, random_batches(settings, WARM_UP_STEPS + options.steps, device))
        folder = Path(tempfile.mkdtemp())
        log = TrainingLog(
            folder,
            backbone,
            ALONE,
            device,
            num_batches=len(turns),
            num_epochs=1,
            batch_size=settings.batch_size,
            num_models_left=0,
            may_skip=step.scaler.is_enabled(),
        )
        manager = ExtensionsManager(
            step.model, step.optimizer, 1, iters_per_epoch=len(turns), extensions=[log], out_dir=str(folder)
        )
        train_epoch(turns, step, manager, log, backbone)
        bare, loop = (seconds[WARM_UP_STEPS:] for seconds in (turns.bare_seconds, turns.loop_seconds))
        print_turns(backbone, bare, loop)


class Turns:
    """Batches for the loop that do a bare step before or after each one, and time both.

    The loop's time is what passes between its taking a batch and asking for the next.
    """

    def __init__(self, step: TrainStep, batches: Sequence[tuple[Tensor, Tensor]]) -> None:
        self._step = step
        self._batches = batches
        self.bare_seconds: list[float] = []
        self.loop_seconds: list[float] = []

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for number, batch in enumerate(self._batches):
            if number % 2:
                self._bare(*batch)
            started = time.perf_counter()
            yield batch
            self.loop_seconds.append(seconds_since(started))
            if not number % 2:
                self._bare(*batch)

    def _bare(self, images: Tensor, targets: Tensor) -> None:
        started = time.perf_counter()
        with autocast(self._step.device, self._step.dtype):
            loss = self._step.loss_func(self._step.model(images), targets)
        self._step.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self._step.optimizer.step()
        self.bare_seconds.append(seconds_since(started))


if __name__ == "__main__":
    main()
