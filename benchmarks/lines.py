"""What learning lines costs: in a training step, in loading, and in prediction.

    python benchmarks/lines.py

Steps of a model with a line decoder beside those of the same model without, taking turns, on batches in memory, for all
four families. Samples with line targets beside the same samples without, by one DataLoader process, with a full
augmentation: 2 lines of 40 points in each third image, as RANZCR CLiP has them, and in all. Prediction of an auxiliary
model, without its lines, beside the plain model, and with its lines. Images and lines are made up.
"""

import argparse
import dataclasses
import functools
import sys
import tempfile
import time
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from loading import cache_file, draw
from rows import Row, compare_seconds, create_parser, finish
from timing import FULL_CHAIN, MEAN, STD, as_in_training, take_turns

from catheters.checkpoints.parts import build_classifier
from catheters.config.presets import SINGLE
from catheters.config.settings import Settings
from catheters.data.annotations import Annotation
from catheters.data.augmentation import Augmentation
from catheters.data.line_targets import DrawnLines, LineTargets
from catheters.data.preprocessing import Placement
from catheters.data.samples import CachedRadiographs
from catheters.labels import RANZCR_HEADS, RANZCR_LABELS
from catheters.runs.probe import probe_batch, probe_step
from catheters.runtime.opencv_threads import end_opencv_threads

NUM_IMAGES = 32
LINES_PER_IMAGE, POINTS_PER_LINE = 2, 40
EVERY_DRAWN = 3
"""Every third image is drawn, as RANZCR CLiP's 9,095 of 30,083."""
SLOWEST_STEP, SLOWEST_LOADING = 1 / 1.35, 0.9
"""Aims: how fast, of the speed without lines."""


def main() -> int:
    """Measure and print."""
    parser = create_parser(__doc__)
    parser.add_argument("--backbones", nargs="+", default=["rexnet_100", "seresnet50", "efficientnet_b0", "resnest14d"])
    parser.add_argument("--image-size", type=int, default=512)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    device = as_in_training()
    rows = []
    for backbone in options.backbones:
        settings = dataclasses.replace(
            SINGLE,
            backbone_model=backbone,
            pretrained=False,
            image_size=options.image_size,
            batch_size=options.batch_size,
            train_transforms=(),
        )
        rows += [
            *compare_steps(settings, device, options.rounds),
            *compare_predictions(settings, device, options.rounds),
        ]
    with tempfile.TemporaryDirectory() as folder:
        rows += compare_loading(Path(folder), options)
    return finish(rows, options)


def compare_steps(settings: Settings, device: torch.device, rounds: int) -> list[Row]:
    """A training step of each kind of model, beside the plain one's."""
    kinds: tuple[Literal["auxiliary", "pooled"] | None, ...] = (None, "auxiliary", "pooled")
    ways = []
    for lines in kinds:
        of_kind = dataclasses.replace(settings, lines=lines)
        step, batch = probe_step(of_kind, device, num_batches=1), probe_batch(of_kind, settings.images_per_batch)
        ways.append(lambda step=step, batch=batch: step(batch))
    plain, *others = take_turns(ways, rounds)
    return [
        compare_seconds(
            "lines",
            f"step, {settings.backbone_model}, {settings.image_size} px, {lines}",
            seconds,
            "lines=None",
            plain,
            each=settings.images_per_batch,
            unit="ms/image",
            at_least=SLOWEST_STEP,
        )
        for lines, seconds in zip(kinds[1:], others, strict=True)
    ]


def compare_predictions(settings: Settings, device: torch.device, rounds: int) -> list[Row]:
    """The forward pass of an auxiliary model, without and with lines, beside the plain one's."""
    models = [
        build_classifier(dataclasses.replace(settings, lines=lines), MEAN, STD).to(device).eval()
        for lines in (None, "auxiliary")
    ]
    images = probe_batch(settings, settings.images_per_batch).images.to(device)
    with torch.inference_mode():
        plain, without, with_lines = take_turns(
            [lambda: models[0](images), lambda: models[1](images), lambda: models[1](images, with_lines=True)], rounds
        )
    what = f"prediction, {settings.backbone_model}, {settings.image_size} px, auxiliary"
    measured = ((what, without), (f"{what} with lines", with_lines))
    return [
        compare_seconds("lines", name, seconds, "lines=None", plain, each=len(images), unit="ms/image")
        for name, seconds in measured
    ]


def compare_loading(folder: Path, options: argparse.Namespace) -> list[Row]:
    """Samples with line targets beside the same without, where some images are drawn, and where all are."""
    end_opencv_threads()  # as in a DataLoader worker
    size, rng = options.image_size, np.random.default_rng(0)
    np.save(folder / "cache.npy", np.stack([draw(rng, size) for _ in range(NUM_IMAGES)]))
    ways = [samples_of(folder / "cache.npy", size, None)]
    ways += [samples_of(folder / "cache.npy", size, annotate(rng, size, every)) for every in (EVERY_DRAWN, 1)]
    plain, *others = take_turns([functools.partial(load_all, samples) for samples in ways], options.rounds)
    return [
        compare_seconds(
            "lines",
            f"loading, {size} px, with lines in {what}",
            seconds,
            "without",
            plain,
            each=NUM_IMAGES,
            unit="ms/sample",
            at_least=aim,
        )
        for what, seconds, aim in zip(("a third", "all"), others, (SLOWEST_LOADING, None), strict=True)
    ]


def annotate(rng: np.random.Generator, size: int, every: int) -> DrawnLines:
    """Winding lines in every so many images."""
    annotations = [
        [
            Annotation(str(rng.choice(RANZCR_LABELS)), size / 2 + np.cumsum(rng.normal(0, size / 60, shape), axis=0))
            for shape in [(POINTS_PER_LINE, 2)] * (LINES_PER_IMAGE if number % every == 0 else 0)
        ]
        for number in range(NUM_IMAGES)
    ]
    return DrawnLines.of(
        annotations,
        [Placement((1.0, 1.0), (0.0, 0.0))] * NUM_IMAGES,
        [(size, size)] * NUM_IMAGES,
        np.ones((NUM_IMAGES, len(RANZCR_LABELS)), dtype=np.float32),
        RANZCR_LABELS,
        RANZCR_HEADS,
    )


def samples_of(cache: Path, size: int, lines: DrawnLines | None) -> CachedRadiographs:
    """As training loads them, with a full augmentation."""
    map_shape = (-(-size // 4), -(-size // 4))
    return CachedRadiographs(
        cache_file(cache),
        np.arange(NUM_IMAGES),
        np.arange(NUM_IMAGES).astype(np.str_),
        np.zeros((NUM_IMAGES, len(RANZCR_LABELS)), dtype=np.float32),
        Augmentation(FULL_CHAIN, (size, size)),
        seed=0,
        line_targets=None
        if lines is None
        else LineTargets(lines=lines, image_shape=(size, size), map_shape=map_shape, max_lines=lines.max_lines),
    )


def load_all(samples: CachedRadiographs) -> float:
    """Every sample once."""
    started = time.perf_counter()
    for position in range(len(samples)):
        samples[0, position]
    return time.perf_counter() - started


if __name__ == "__main__":
    sys.exit(main())
