"""Batches on the device: augmented as the CPU does, and the same numbers beyond 2^31 elements of a tensor."""

from collections.abc import Callable, Mapping

import cv2
import numpy as np
import numpy.typing as npt
import timm
import torch
from timing import FULL_CHAIN, MEAN, STD
from torch import Tensor, nn

from acceptance.check import Machine, Outcome, judge
from acceptance.sample import sample_folder
from catheters.checkpoints.parts import build_classifier
from catheters.config.settings import Settings
from catheters.data.augmentation import Augmentation
from catheters.data.gpu_augmentation import GpuAugmentation
from catheters.runtime.precision import autocast

LIMIT, DRY_LIMIT = 2**31, 2**16
"""Elements of a tensor from which on a 32-bit index does not reach them; in a dry run as many are none."""
ON_CPU = 0.02
"""Grey values by which the same transform may differ on the device, on average."""
NUM_DRAWS = 200
SAME = 1e-2
"""How far outputs of a whole batch may be from those of its halves, for which cuDNN may choose other algorithms."""

Floats = npt.NDArray[np.float32]
STATISTICS: Mapping[str, tuple[Callable[[Floats], Floats], float]] = {
    "mean grey": (lambda images: images.mean(axis=(1, 2)), 0.5),
    "spread": (lambda images: images.std(axis=(1, 2)), 1.0),
    "percent black": (lambda images: 100 * (images < 1).mean(axis=(1, 2), dtype=np.float32), 2.5),
}
"""Of (B, H, W) images -> (B,), and by how much it may be from OpenCV's, which interpolates and rounds more often."""


def augmentation(machine: Machine) -> Outcome:
    """augment_on="device" makes what the same code makes on the CPU, and what OpenCV does but for interpolation."""
    files = sorted((sample_folder(machine) / "train").iterdir())[:4]
    of_code = 0.0
    of_statistics: dict[str, float] = {}
    for file in files:
        image = np.asarray(cv2.imread(str(file), cv2.IMREAD_GRAYSCALE), dtype=np.uint8)
        on_cpu, augment = Augmentation(FULL_CHAIN, image.shape), GpuAugmentation(FULL_CHAIN, image.shape)
        draws = torch.from_numpy(np.stack([augment.draw(seed) for seed in range(NUM_DRAWS)]))
        images = torch.from_numpy(image)[None, None].repeat(NUM_DRAWS, 1, 1, 1)
        made = augment(images.to(machine.device), draws.to(machine.device)).cpu()
        of_code = max(of_code, float((made - augment(images, draws)).abs().mean()))
        opencv = np.stack([on_cpu(image, seed) for seed in range(NUM_DRAWS)]).astype(np.float32)
        for name, (statistic, _) in STATISTICS.items():
            apart = abs(float((statistic(made[:, 0].numpy()) - statistic(opencv)).mean()))
            of_statistics[name] = max(of_statistics.get(name, 0.0), apart)
    is_right = all(of_statistics[name] <= bound for name, (_, bound) in STATISTICS.items())
    return judge(
        of_code <= ON_CPU and is_right,
        f"pixels {of_code:.1e} grey values from the CPU's; from OpenCV's "
        + ", ".join(f"{name} {apart:.2f}" for name, apart in of_statistics.items()),
        f"at most {ON_CPU:g}; {', '.join(f'{name} {bound:g}' for name, (_, bound) in STATISTICS.items())}; means of "
        f"{NUM_DRAWS} draws for each of {len(files)} images",
    )


def large_normalise(machine: Machine) -> Outcome:
    """Normalising a batch of more than 2^31 pixels gives the numbers of its halves."""
    machine.need_memory(38)
    images = _images(machine, elements_per_pixel=1)
    settings = Settings(backbone_model="test_resnet", pretrained=False, image_size=images.shape[2])
    model = build_classifier(settings, MEAN, STD).to(machine.device)
    return _compare(machine, model.normalise, images, "pixels", elements_per_pixel=1)


def large_augmentation(machine: Machine) -> Outcome:
    """Augmenting a batch whose places to read from are more than 2^31 numbers gives the images of its halves."""
    machine.need_memory(50)
    images = _images(machine, elements_per_pixel=2)
    augment = GpuAugmentation(FULL_CHAIN, (images.shape[2], images.shape[3]))
    rows = np.stack([augment.draw(seed) for seed in range(64)])
    draws = torch.from_numpy(rows).to(machine.device)[torch.arange(len(images)) % len(rows)]
    # The draws of each image go along with it, as a further row of its own.
    numbered = torch.arange(len(images), device=machine.device)

    def work(chosen: Tensor) -> Tensor:
        return augment(images[chosen[0] : chosen[-1] + 1], draws[chosen])

    return _compare(machine, work, numbered, "places", elements_per_pixel=2, num_pixels=images[0].numel())


def large_batch_norm(machine: Machine) -> Outcome:
    """Batch norm over more than 2^31 elements: its statistics are those of the halves, and so is what it makes."""
    machine.need_memory(20)
    num_channels, size = machine.size((64, 512), (4, 16))
    number = _number(machine, num_channels * size * size)
    dtype = machine.size(torch.float16, torch.float32)
    worst = 0.0
    for memory_format in (torch.contiguous_format, torch.channels_last):
        torch.manual_seed(0)
        one = torch.randn(2, num_channels, size, size, device=machine.device, dtype=dtype)
        one[1] = one[1] * 2 + 1  # other statistics in the second half
        images = torch.empty(
            (number, num_channels, size, size), device=machine.device, dtype=dtype, memory_format=memory_format
        )
        images[: number // 2], images[number // 2 :] = one[0], one[1]
        norm = nn.BatchNorm2d(num_channels, momentum=1.0).to(machine.device).requires_grad_(False).train()
        made = norm(images)
        assert norm.running_mean is not None
        apart = norm.running_mean.double() - one.double().mean(dim=(0, 2, 3))
        worst = max(worst, float(apart.abs().max()))
        norm.eval()
        for start in (0, number // 2):
            half = slice(start, start + number // 2)
            worst = max(worst, float((norm(images[half]) - made[half]).abs().max()))
        del images, made
    return judge(
        worst <= SAME,
        f"{number} x {num_channels} x {size} x {size}, at most {worst:.1e} apart{machine.most_memory()}",
        f"at most {SAME:g}, in both memory formats",
    )


def large_forward(machine: Machine) -> Outcome:
    """EfficientNet-B3 at 1024 px in bfloat16, with feature maps of more than 2^31 elements, predicts as by halves."""
    machine.need_memory(18)
    settings = Settings(
        backbone_model=machine.size("efficientnet_b3", "test_efficientnet"),
        pretrained=False,
        image_size=machine.size(1024, 32),
    )
    torch.manual_seed(0)
    model = build_classifier(settings, MEAN, STD).to(machine.device).eval()
    number = _number(machine, machine.size(144 * 512 * 512, 24 * 16 * 16))  # of the widest map, by image
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (number, 1, *settings.image_shape), dtype=torch.uint8, generator=generator)
    dtype = machine.size(torch.bfloat16, None)

    def work(part: Tensor) -> Tensor:
        with torch.inference_mode(), autocast(machine.device, dtype):
            return model.probabilities(model(part))

    worst = 0.0
    for memory_format in (torch.contiguous_format, torch.channels_last):
        model.to(memory_format=memory_format)
        worst = max(worst, _largest_difference(work, images.to(machine.device)))
    return judge(
        worst <= SAME,
        f"{number} images, probabilities at most {worst:.1e} apart{machine.most_memory()}",
        f"at most {SAME:g}, in both memory formats",
    )


def large_gradients(machine: Machine) -> Outcome:
    """Gradients through feature maps of more than 2^31 elements are those of the halves."""
    machine.need_memory(60)
    torch.manual_seed(0)
    name = machine.size("efficientnet_b3", "test_efficientnet")
    stem: nn.Module = timm.create_model(name, features_only=True, out_indices=(1,), in_chans=1, pretrained=False)
    stem = stem.to(machine.device).eval()  # batch norm's statistics of halves would be others
    size = machine.size(1024, 32)
    number = _number(machine, machine.size(144 * 512 * 512, 24 * 16 * 16))
    images = torch.rand((number, 1, size, size), device=machine.device)
    dtype = machine.size(torch.bfloat16, None)

    def gradients(parts: tuple[Tensor, ...]) -> Tensor:
        stem.zero_grad(set_to_none=True)
        for part in parts:
            with autocast(machine.device, dtype):
                made = stem(part)[0]
            (made.float().square().mean() / len(parts)).backward()
        return torch.cat([value.grad.flatten() for value in stem.parameters() if value.grad is not None])

    whole, halves = gradients((images,)), gradients(images.chunk(2))
    apart = float((whole - halves).norm() / halves.norm())
    return judge(
        apart <= SAME,
        f"{number} images of {size} px, gradients {apart:.1e} apart, relative{machine.most_memory()}",
        f"at most {SAME:g}",
    )


def _number(machine: Machine, num_each: int) -> int:
    """An even number of images that together have more elements than the limit."""
    number = machine.size(LIMIT, DRY_LIMIT) // num_each + 2
    return number + number % 2


def _images(machine: Machine, *, elements_per_pixel: int) -> Tensor:
    """(B, 1, H, W) uint8 on the device, images that differ from their neighbours."""
    size = machine.size(1024, 64)
    number = _number(machine, elements_per_pixel * size * size)
    generator = torch.Generator().manual_seed(0)
    few = torch.randint(0, 256, (32, 1, size, size), dtype=torch.uint8, generator=generator).to(machine.device)
    return few.repeat(number // len(few) + 1, 1, 1, 1)[:number]


def _largest_difference(work: Callable[[Tensor], Tensor], batch: Tensor) -> float:
    """Between what is made of a batch, and of its halves."""
    whole, half = work(batch), len(batch) // 2
    first = float((whole[:half] - work(batch[:half])).abs_().max())
    return max(first, float((whole[half:] - work(batch[half:])).abs_().max()))


def _compare(
    machine: Machine,
    work: Callable[[Tensor], Tensor],
    batch: Tensor,
    what: str,
    *,
    elements_per_pixel: int,
    num_pixels: int | None = None,
) -> Outcome:
    elements = elements_per_pixel * (batch.numel() if num_pixels is None else num_pixels * len(batch))
    with torch.inference_mode():
        worst = _largest_difference(work, batch)
    return judge(
        worst <= SAME,
        f"{elements:.3g} {what}, at most {worst:.1e} apart{machine.most_memory()}",
        f"more than {machine.size(LIMIT, DRY_LIMIT):.3g} elements, at most {SAME:g} apart",
    )
