"""What the benchmarks share: batches in memory, a clock, and a table of two sides that take turns."""

import statistics
import time
from collections.abc import Sequence

import torch
from torch import Tensor

from catheters.settings import Settings

WIDTH = 20


def random_batches(settings: Settings, number: int, device: torch.device) -> list[tuple[Tensor, Tensor]]:
    """Batches of ((B, 1, H, W) uint8, (B, K) float32) on the device."""
    shape = (settings.batch_size, 1, *settings.image_shape)
    num_labels = len(settings.label_columns)
    return [
        (
            torch.randint(0, 256, shape, dtype=torch.uint8, device=device),
            torch.randint(0, 2, (settings.batch_size, num_labels), device=device).float(),
        )
        for _ in range(number)
    ]


def seconds_since(started: float) -> float:
    """Seconds since a reading of `time.perf_counter`, with what a GPU still has to do."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


def print_header(reference: str, other: str) -> None:
    """Head of the table: what is compared with what."""
    print(
        f"{'backbone':<{WIDTH}}{f'{reference} ms/step':>20}{f'{other} ms/step':>20}{f'{other} / {reference}':>22}"
        f"{'quartiles':>18}"
    )


def print_turns(backbone: str, reference: Sequence[float], other: Sequence[float]) -> None:
    """A line: the median seconds of each side, and of the ratios of neighbouring steps the median and quartiles."""
    first, median, third = statistics.quantiles([b / a for a, b in zip(reference, other, strict=True)], n=4)
    print(
        f"{backbone:<{WIDTH}}{1000 * statistics.median(reference):>20.1f}{1000 * statistics.median(other):>20.1f}"
        f"{median:>22.3f}{first:>10.3f} {third:>7.3f}",
        flush=True,
    )
