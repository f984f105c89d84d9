"""What four attention heads cost over one plain linear head: whole training steps of the same backbone.

    python benchmarks/heads.py

Both sides take turns at every step on the same batches, so that a busy machine slows both alike. The backbones
are those of the recipes in configs/, at the multi-head recipe's 512 px.
"""

import argparse
import time
from dataclasses import replace

from timing import print_header, print_turns, random_batches, seconds_since

from catheters.labels import RANZCR_HEADS
from catheters.models.classifier import create_classifier
from catheters.settings import Settings
from catheters.training.step import TrainStep, choose_device

MEAN, STD = 0.49, 0.23
WARM_UP_STEPS = 1


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--backbones", nargs="+", default=["rexnet_200", "seresnet152d", "efficientnet_b5", "resnest101e"]
    )
    parser.add_argument("--image-size", type=int, default=512)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--steps", type=int, default=6, help="steps of each side")
    options = parser.parse_args()
    device = choose_device("auto")
    print(f"{options.steps} steps of {options.batch_size} images at {options.image_size} px on {device}")
    print_header("linear", "attention")
    for backbone in options.backbones:
        linear = Settings(
            backbone_model=backbone, pretrained=False, image_size=options.image_size, batch_size=options.batch_size
        )
        attention = replace(linear, classifier="attention", heads=dict(RANZCR_HEADS))
        steps = [
            TrainStep(settings, create_classifier(settings, MEAN, STD).to(device).train(), options.steps, device)
            for settings in (linear, attention)
        ]
        seconds: list[list[float]] = [[], []]
        for number, batch in enumerate(random_batches(linear, WARM_UP_STEPS + options.steps, device)):
            for side in (0, 1) if number % 2 else (1, 0):
                started = time.perf_counter()
                steps[side](*batch)
                seconds[side].append(seconds_since(started))
        print_turns(backbone, *(side[WARM_UP_STEPS:] for side in seconds))


if __name__ == "__main__":
    main()
