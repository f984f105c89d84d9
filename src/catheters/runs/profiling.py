"""`profile=True`: where the time of a training step goes, with and without loading, before the run starts."""

import contextlib
import itertools
import json
import os
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from torch.autograd import DeviceType  # type: ignore[attr-defined]
from torch.profiler import ProfilerActivity, profile, record_function

from catheters.config.settings import Settings
from catheters.data.batch import Batch
from catheters.data.loader import EpochLoader
from catheters.io.files import write_text
from catheters.runtime.console import say
from catheters.runtime.device import device_name, wait_for
from catheters.training.step import PHASES, TrainStep

NUM_WARM_UP_STEPS = 3
NUM_STEPS = 5
WAITING = "waiting for data"
REST = "between the parts"
NUM_OPERATORS = 25
FOLDER = "profile"


@dataclass(frozen=True)
class StepProfile:
    """Where the time of a step went, the mean of a few.

    Attributes:
        ms_per_step: by a clock, with the profiler off.
        profiled_ms_per_step: with it on, which takes time itself; the parts are of this.
        cpu_ms: part -> milliseconds of the CPU. Beside a GPU these are what it takes to give the GPU its work.
        gpu_busy_ms: milliseconds of a GPU's kernels and copies, one after another; None without one. By part they
            cannot be had: autograd starts those of the backward pass from a thread of its own.
        operators: torch's table of the operators that took most.
    """

    ms_per_step: float
    profiled_ms_per_step: float
    cpu_ms: Mapping[str, float]
    gpu_busy_ms: float | None
    operators: str


def profile_training(settings: Settings, step: TrainStep, loader: EpochLoader, run_folder: Path) -> None:
    """Do some steps with batches from the loader and some with one batch in memory; write and print what they took.

    Args:
        settings: the run's settings.
        step: a model of its own, which is changed; the run's results stay what they are.
        loader: batches as in training; each rank has its share of them.
        run_folder: gets `profile/`: `profile.txt`, `profile.json` and for each way a trace for chrome://tracing or
            ui.perfetto.dev.
    """
    folder = run_folder / FOLDER
    is_first = step.processes.is_first
    if is_first:
        folder.mkdir(exist_ok=True)
    step.model.train()
    with contextlib.closing(_endless(loader)) as batches:
        in_memory = next(batches).to(step.device)
        loaded = _profile(step, batches, folder / "with_loading.json.gz" if is_first else None)
    repeated = itertools.repeat(in_memory)
    profiles = {
        "with_loading": loaded,
        "without_loading": _profile(step, repeated, folder / "without_loading.json.gz" if is_first else None),
    }
    if not is_first:
        return
    of_each = f" ({len(in_memory)} per rank)" if step.processes.count > 1 else ""
    head = (
        f"{settings.backbone_model}, batches of {settings.images_per_batch}{of_each} at {settings.image_size} px, on "
        f"{device_name(step.device)}, mean of {NUM_STEPS} steps"
    )
    phases = f"{head}\n{_table(profiles)}"
    operators = "\n".join(f"\n{way}\n{profiled.operators}" for way, profiled in profiles.items())
    write_text(folder / "profile.txt", f"{phases}\n{operators}\n")
    write_text(folder / "profile.json", json.dumps({way: asdict(p) for way, p in profiles.items()}, indent=2) + "\n")
    say(f"{phases}\n-> {folder}")


def _endless(loader: EpochLoader) -> Generator[Batch]:
    for epoch in itertools.count():
        loader.go_to(epoch, 0)
        yield from loader


def _profile(step: TrainStep, batches: Iterator[Batch], trace: Path | None) -> StepProfile:
    _do_steps(step, batches, NUM_WARM_UP_STEPS)
    seconds = _do_steps(step, batches, NUM_STEPS)
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # torch's profiler would write about itself to stderr
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if step.device.type == "cuda" else [])]
    with profile(activities=activities) as profiler:
        profiled_seconds = _do_steps(step, batches, NUM_STEPS)
    if trace is not None:
        profiler.export_chrome_trace(str(trace))
    events = profiler.key_averages()
    names = (WAITING, *PHASES.values())
    cpu_ms = {
        event.key: event.cpu_time_total / 1e3 / NUM_STEPS
        for event in sorted((event for event in events if event.key in names), key=lambda event: names.index(event.key))
        if event.device_type == DeviceType.CPU
    }
    profiled_ms = 1e3 * profiled_seconds / NUM_STEPS
    gpu_busy_ms = None
    if step.device.type == "cuda":
        kernels = [event for event in events if event.device_type == DeviceType.CUDA and not event.is_user_annotation]
        gpu_busy_ms = sum(event.self_device_time_total for event in kernels) / 1e3 / NUM_STEPS
    return StepProfile(
        ms_per_step=1e3 * seconds / NUM_STEPS,
        profiled_ms_per_step=profiled_ms,
        cpu_ms={**cpu_ms, REST: profiled_ms - sum(cpu_ms.values())},
        gpu_busy_ms=gpu_busy_ms,
        operators=events.table(
            sort_by="self_cpu_time_total" if gpu_busy_ms is None else "self_device_time_total", row_limit=NUM_OPERATORS
        ),
    )


def _do_steps(step: TrainStep, batches: Iterator[Batch], number: int) -> float:
    """Seconds of so many steps, all that a GPU has to do included."""
    wait_for(step.device)
    started = time.perf_counter()
    for _ in range(number):
        with record_function(WAITING):
            batch = next(batches)
        step(batch)
    wait_for(step.device)
    return time.perf_counter() - started


def _table(profiles: Mapping[str, StepProfile]) -> str:
    """One row per part of the step, one column per way."""
    lines = [f"{'':<36}" + "".join(f"{way.replace('_', ' '):>24}" for way in profiles)]
    for part in (WAITING, *PHASES.values(), REST):
        if any(part in profile.cpu_ms for profile in profiles.values()):
            lines.append(_line(part, [(p.cpu_ms.get(part, 0.0), p.profiled_ms_per_step) for p in profiles.values()]))
    lines.append(_line("a step", [(profile.profiled_ms_per_step, None) for profile in profiles.values()]))
    lines.append(_line("a step, without the profiler", [(profile.ms_per_step, None) for profile in profiles.values()]))
    busy = [(p.gpu_busy_ms, p.profiled_ms_per_step) for p in profiles.values() if p.gpu_busy_ms is not None]
    if busy:
        lines.append(_line("the GPU's kernels and copies", busy))
    return "\n".join(lines)


def _line(what: str, values: Sequence[tuple[float, float | None]]) -> str:
    """Milliseconds of each way, and what part of its step they are."""
    cells = [f"{f'{ms:.1f} ms':>16}{'' if whole is None else f'{ms / whole:.1%}':>8}" for ms, whole in values]
    return f"{what:<36}{''.join(cells)}".rstrip()
