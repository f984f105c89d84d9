"""`profile=True`: where the time of a training step goes, with and without loading, before the run begins."""

import gc
import itertools
import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from torch import Tensor
from torch.profiler import ProfilerActivity, profile, record_function

from catheters.data.loader import EpochLoader
from catheters.files import write_text
from catheters.settings import Settings
from catheters.training.device import device_name, wait_for
from catheters.training.step import PHASES, TrainStep

NUM_WARM_UP_STEPS = 3
NUM_STEPS = 5
WAITING = "waiting for data"
REST = "rest of the loop"
NUM_OPERATORS = 25
FOLDER = "profile"


@dataclass(frozen=True)
class StepProfile:
    """Where the time of a step went, the mean of a few.

    Attributes:
        ms_per_step: by a clock, with the profiler off.
        profiled_ms_per_step: with it on, which takes time itself; the parts are of this.
        cpu_ms: part -> milliseconds on the CPU, which on a GPU's side only says what to do.
        gpu_ms: part -> milliseconds of a GPU's kernels; empty without one.
        operators: torch's table of the operators that took most.
    """

    ms_per_step: float
    profiled_ms_per_step: float
    cpu_ms: Mapping[str, float]
    gpu_ms: Mapping[str, float]
    operators: str


def profile_training(settings: Settings, step: TrainStep, loader: EpochLoader, run_folder: Path) -> None:
    """Do some steps with batches from the loader and some with one batch in memory; write and print what they took.

    Args:
        settings: the run's settings.
        step: a model of its own, which is changed; the run's results stay what they are.
        loader: batches as in training; of several processes each has its part.
        run_folder: gets `profile/`: `profile.txt`, `profile.json` and for each way a trace for chrome://tracing or
            ui.perfetto.dev.
    """
    folder = run_folder / FOLDER
    is_first = step.processes.is_first
    if is_first:
        folder.mkdir(exist_ok=True)
    step.model.train()
    batches = _endless(loader)
    in_memory = tuple(tensor.to(step.device) for tensor in next(batches))
    ways = {"with_loading": batches, "without_loading": itertools.repeat(in_memory)}
    profiles = {
        way: _profile(step, of_way, folder / f"{way}.json.gz" if is_first else None) for way, of_way in ways.items()
    }
    del batches  # its loading processes end
    gc.collect()
    if not is_first:
        return
    head = (
        f"{settings.backbone_model}, batches of {settings.images_per_batch} at {settings.image_size} px, on "
        f"{device_name(step.device)}, mean of {NUM_STEPS} steps"
    )
    phases = f"{head}\n{_table(profiles)}"
    operators = "\n".join(f"\n{way}\n{of_way.operators}" for way, of_way in profiles.items())
    write_text(folder / "profile.txt", f"{phases}\n{operators}\n")
    write_text(folder / "profile.json", json.dumps({way: asdict(p) for way, p in profiles.items()}, indent=2) + "\n")
    print(f"{phases}\n-> {folder}")


def _endless(loader: EpochLoader) -> Iterator[tuple[Tensor, ...]]:
    for epoch in itertools.count():
        loader.go_to(epoch, 0)
        yield from loader


def _profile(step: TrainStep, batches: Iterator[tuple[Tensor, ...]], trace: Path | None) -> StepProfile:
    _do_steps(step, batches, NUM_WARM_UP_STEPS)
    seconds = _do_steps(step, batches, NUM_STEPS)
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # torch's profiler would write about itself to stderr
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if step.device.type == "cuda" else [])]
    with profile(activities=activities) as profiler:
        profiled_seconds = _do_steps(step, batches, NUM_STEPS)
    if trace is not None:
        profiler.export_chrome_trace(str(trace))
    events = profiler.key_averages()
    # On a GPU's side a part is an event of its own, beside the one on the CPU's.
    of_part = {part: [event for event in events if event.key == part] for part in (WAITING, *PHASES.values())}
    parts = [part for part, of_one in of_part.items() if of_one]
    cpu_ms = {part: max(event.cpu_time_total for event in of_part[part]) / 1e3 / NUM_STEPS for part in parts}
    profiled_ms = 1e3 * profiled_seconds / NUM_STEPS
    gpu_ms = {}
    if step.device.type == "cuda":
        gpu_ms = {part: max(event.device_time_total for event in of_part[part]) / 1e3 / NUM_STEPS for part in parts}
    return StepProfile(
        ms_per_step=1e3 * seconds / NUM_STEPS,
        profiled_ms_per_step=profiled_ms,
        cpu_ms={**cpu_ms, REST: profiled_ms - sum(cpu_ms.values())},
        gpu_ms=gpu_ms,
        operators=events.table(
            sort_by="self_device_time_total" if gpu_ms else "self_cpu_time_total", row_limit=NUM_OPERATORS
        ),
    )


def _do_steps(step: TrainStep, batches: Iterator[tuple[Tensor, ...]], number: int) -> float:
    """Seconds of so many steps, all that a GPU has to do included."""
    wait_for(step.device)
    started = time.perf_counter()
    for _ in range(number):
        with record_function(WAITING):
            batch = next(batches)
        step(*batch)
    wait_for(step.device)
    return time.perf_counter() - started


def _table(profiles: Mapping[str, StepProfile]) -> str:
    """A row a part; a GPU's columns where there is one."""
    head, lines = f"{'':<36}", []
    for way, of_way in profiles.items():
        head += f"{way.replace('_', ' '):>24}" + (f"{'GPU':>12}" if of_way.gpu_ms else "")
    for part in (WAITING, *PHASES.values(), REST):
        if not any(part in of_way.cpu_ms for of_way in profiles.values()):
            continue
        line = f"{part:<36}"
        for of_way in profiles.values():
            ms = of_way.cpu_ms.get(part, 0.0)
            line += f"{f'{ms:.1f} ms':>16}{ms / of_way.profiled_ms_per_step:>8.1%}"
            if of_way.gpu_ms:
                line += f"{f'{of_way.gpu_ms.get(part, 0.0):.1f} ms':>12}"
        lines.append(line)
    for what, name in (("a step", "profiled_ms_per_step"), ("a step, without the profiler", "ms_per_step")):
        line = f"{what:<36}"
        for of_way in profiles.values():
            line += f"{f'{getattr(of_way, name):.1f} ms':>16}{'':>8}" + (f"{'':>12}" if of_way.gpu_ms else "")
        lines.append(line.rstrip())
    return "\n".join([head, *lines])
