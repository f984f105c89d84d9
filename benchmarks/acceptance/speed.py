"""How fast training and prediction are on the device, by the benchmarks that measure them, and in how much memory."""

import tempfile
from argparse import Namespace
from pathlib import Path

import end_to_end
import prediction
import torch

from acceptance.check import GB, Machine, Outcome, judge
from catheters.commands.train import MAX_KEPT_BYTES
from catheters.runtime.device import prepare_device
from catheters.runtime.host import available_cores, keep_freed_memory

BACKBONE = "efficientnet_b3"
IMAGES_OF_16_GB = {512: 48, 1024: 12}
"""Image size -> images of a batch on a GPU of 16 GB; on a larger one more in proportion, up to four times as many."""


def training(machine: Machine, image_size: int, augment_on: str) -> Outcome:
    """Training from the cache, in bfloat16, beside the same steps on batches that are on the device already."""
    keep_freed_memory(MAX_KEPT_BYTES)
    prepare_device(machine.device, deterministic=False)
    options = Namespace(
        backbone=machine.size(BACKBONE, "test_resnet"),
        steps=machine.size(20, 3),
        rounds=machine.size(2, 1),
        num_images=machine.size(256, 8),
        num_workers=machine.size(None, 0),
        compile_mode=None,
    )
    size = machine.size(image_size, image_size // 16)
    batch_size = machine.size(_batch_size(machine, image_size), 2)
    row = end_to_end.compare(size, batch_size, augment_on, machine.device, options)
    images_per_second, of_reference = (1e3 * batch_size / ms for ms in (row.value, row.reference_value))
    found = f"{row.ratio:.3f}, {images_per_second:.0f} images/s beside {of_reference:.0f}{machine.most_memory()}"
    what = f"{options.backbone}, {batch_size} x {size} px, {available_cores()} cores"
    if machine.is_dry:
        return Outcome(status="number", found=found, note=what)
    return judge(row.ratio >= end_to_end.AIM, found, f"at least {end_to_end.AIM:g} of it; {what}")


def _batch_size(machine: Machine, image_size: int) -> int:
    if machine.device.type == "cpu":
        return 2
    memory = torch.cuda.get_device_properties(machine.device).total_memory / GB
    return max(2, int(IMAGES_OF_16_GB[image_size] * min(memory / 16, 4)))


def predicting(machine: Machine) -> Outcome:
    """Prediction from JPEG files as large as real ones, beside prediction of what is in memory."""
    backbone = machine.size(BACKBONE, "test_resnet")
    options = Namespace(
        image_size=machine.size(512, 64),
        batch_size=machine.size(16, 2),
        num_images=machine.size(128, 4),
        rounds=machine.size(2, 1),
    )
    with tempfile.TemporaryDirectory(dir=machine.folder) as name:
        files = prediction.make_files(Path(name), machine.size(prediction.NUM_FILES, 2))
        row = prediction.compare(backbone, files, Path(name), options)
    return Outcome(
        status="number",
        found=f"{1e3 / row.value:.0f} images/s beside {1e3 / row.reference_value:.0f}{machine.most_memory()}",
        note=f"{backbone} at {options.image_size} px, {available_cores()} cores that decode",
    )
