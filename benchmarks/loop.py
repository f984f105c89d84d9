"""What the training loop costs over the bare forward, backward and step, on batches already in memory.

    python benchmarks/loop.py

Both sides train the same kind of model on the same batches, in turns; the table gives the median of the rounds and the
ratio of the medians. The loop's side is what `train.py` runs: step, schedule, gradient scaler, manager, log, progress.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence

import torch
from pytorch_pfn_extras.training import ExtensionsManager
from pytorch_pfn_extras.training.extensions import LogReport
from torch import Tensor

from catheters.models.classifier import create_classifier
from catheters.settings import Settings
from catheters.training.loop import train_epoch
from catheters.training.losses import create_loss
from catheters.training.optimizers import create_optimizer
from catheters.training.schedules import create_schedule
from catheters.training.step import TrainStep, amp_dtype, autocast, choose_device

MEAN, STD = 0.49, 0.23


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbones", nargs="+", default=["rexnet_100", "seresnet50", "efficientnet_b0", "resnest14d"])
    parser.add_argument("--image-size", type=int, default=96)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--batches", type=int, default=10, help="batches a round")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    print(f"{options.batches} batches of {options.batch_size} at {options.image_size} px, {options.rounds} rounds")
    print(f"{'backbone':<20}{'bare ms/step':>14}{'loop ms/step':>14}{'loop / bare':>13}")
    for backbone in options.backbones:
        settings = Settings(
            backbone_model=backbone, pretrained=False, image_size=options.image_size, batch_size=options.batch_size
        )
        batches = _random_batches(settings, options.batches)
        sides = (_bare(settings, batches), _loop(settings, batches, options.rounds + 1))
        bare, loop = _measure(sides, options.rounds)
        per_step = 1000 / options.batches
        print(f"{backbone:<20}{bare * per_step:>14.2f}{loop * per_step:>14.2f}{loop / bare:>13.3f}", flush=True)


def _measure(sides: Sequence[Callable[[], None]], num_rounds: int) -> list[float]:
    """Median seconds of each side, after one round of warm-up; the order alternates."""
    seconds: list[list[float]] = [[] for _ in sides]
    for number in range(num_rounds + 1):
        order = range(len(sides)) if number % 2 else reversed(range(len(sides)))
        for side in order:
            started = time.perf_counter()
            sides[side]()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if number:
                seconds[side].append(time.perf_counter() - started)
    return [statistics.median(rounds) for rounds in seconds]


def _random_batches(settings: Settings, number: int) -> list[tuple[Tensor, Tensor]]:
    device = choose_device(settings.device)
    shape = (settings.batch_size, 1, settings.image_size, settings.image_size)
    num_labels = len(settings.label_columns)
    return [
        (
            torch.randint(0, 256, shape, dtype=torch.uint8, device=device),
            torch.randint(0, 2, (settings.batch_size, num_labels), device=device).float(),
        )
        for _ in range(number)
    ]


def _bare(settings: Settings, batches: Sequence[tuple[Tensor, Tensor]]) -> Callable[[], None]:
    device = choose_device(settings.device)
    dtype = amp_dtype(settings, device)
    model = create_classifier(settings, MEAN, STD).to(device).train()
    loss_func = create_loss(settings).to(device)
    optimizer = create_optimizer(settings, model.parameters())

    def run() -> None:
        for images, targets in batches:
            with autocast(device, dtype):
                loss = loss_func(model(images), targets)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()

    return run


def _loop(settings: Settings, batches: Sequence[tuple[Tensor, Tensor]], num_epochs: int) -> Callable[[], None]:
    device = choose_device(settings.device)
    model = create_classifier(settings, MEAN, STD).to(device)
    optimizer = create_optimizer(settings, model.parameters())
    schedule = create_schedule(settings, optimizer, len(batches))
    step = TrainStep(model, create_loss(settings).to(device), optimizer, schedule, device, amp_dtype(settings, device))
    manager = ExtensionsManager(
        model,
        optimizer,
        num_epochs,
        iters_per_epoch=len(batches),
        extensions=[LogReport(filename="log.json")],
        out_dir=tempfile.mkdtemp(),
    )
    return lambda: train_epoch(batches, step, manager, "loop")


if __name__ == "__main__":
    main()
