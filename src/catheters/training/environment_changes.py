"""A run that is resumed on another device or with another world size: what that does to its result."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from catheters.runtime.console import say, warn
from catheters.training.step import TrainStep

ROUNDING_FIELDS = ("device", "num_threads")
"""Entries of an environment whose change also changes the order of sums, and so the rounding."""


def report_environment_changes(
    earlier: Mapping[str, Any], now: Mapping[str, Any], sync_batch_norm: bool, step: TrainStep
) -> None:
    """Print what differs between the environments of a snapshot and of this process, and its effect on the result."""
    for name in ROUNDING_FIELDS:
        if earlier[name] != now[name]:
            say(f"the snapshot is of {name}={earlier[name]}, this is {now[name]}: it rounds differently")
    processes, before = step.processes, earlier["num_processes"]
    if before == processes.count:
        return
    reasons = list(_what_depends_on_world_size(sync_batch_norm, step))
    if reasons:
        warn(
            f"the snapshot is of world size {before}, this is {processes.count}: the result will differ from "
            f"an uninterrupted run's, since {', '.join(reasons)} depend on each rank's share of a batch"
        )
    else:
        say(
            f"the snapshot is of world size {before}, this is {processes.count}: the batches stay the same, the "
            "result differs by rounding alone"
        )


def _what_depends_on_world_size(sync_batch_norm: bool, step: TrainStep) -> Iterator[str]:
    """What in a model's training depends on how a global batch is divided among ranks."""
    modules = list(step.model.modules())
    has_batch_norm = any(isinstance(module, torch.nn.modules.batchnorm._BatchNorm) for module in modules)
    if has_batch_norm and not sync_batch_norm:
        yield "batch norm's statistics"
    if any(getattr(module, "drop_prob", 0.0) or _drops(module) for module in modules):
        yield "the draws of dropout"
    if step.has_mixup:
        yield "mixup's partners"


def _drops(module: torch.nn.Module) -> bool:
    return isinstance(module, torch.nn.modules.dropout._DropoutNd) and module.p > 0
