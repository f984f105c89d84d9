"""What four attention heads cost over one plain linear head: whole training steps of the same backbone.

    python benchmarks/heads.py

Both sides take turns at every step on the same batches, so that a busy machine slows both. The backbones
are those of the configs in configs/, at the multi-head preset's 512 px.
"""

import argparse
import sys
from dataclasses import replace

from rows import Row, compare_seconds, create_parser, finish
from timing import MEAN, STD, as_in_training, random_batches, take_turns

from catheters.checkpoints.parts import build_classifier
from catheters.config.settings import Settings
from catheters.labels import RANZCR_HEADS
from catheters.runs.build import build_step


def main() -> int:
    """Measure and print."""
    parser = create_parser(__doc__)
    parser.add_argument(
        "--backbones", nargs="+", default=["rexnet_200", "seresnet152d", "efficientnet_b5", "resnest101e"]
    )
    parser.add_argument("--image-size", type=int, default=512)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--steps", type=int, default=5, help="steps of each side")
    options = parser.parse_args()
    return finish([compare(backbone, options) for backbone in options.backbones], options)


def compare(backbone: str, options: argparse.Namespace) -> Row:
    """Steps with four heads beside steps with one."""
    device = as_in_training()
    linear = Settings(
        backbone_model=backbone, pretrained=False, image_size=options.image_size, batch_size=options.batch_size
    )
    attention = replace(linear, classifier="attention", heads=dict(RANZCR_HEADS))
    steps = [
        build_step(settings, build_classifier(settings, MEAN, STD).to(device).train(), options.steps, device)
        for settings in (linear, attention)
    ]
    (batch,) = random_batches(linear, 1, device)
    of_linear, of_attention = take_turns([lambda: steps[0](batch), lambda: steps[1](batch)], options.steps)
    return compare_seconds(
        "heads",
        f"{backbone}, one attention head per device type, {options.batch_size} x {options.image_size} px",
        of_attention,
        "one linear head",
        of_linear,
    )


if __name__ == "__main__":
    sys.exit(main())
