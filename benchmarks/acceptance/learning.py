"""Whole trainings of the synthetic sample on the device: scores, kills, memory, skipped steps, profile."""

import contextlib
import dataclasses
import gc
import io
import json
import math
import multiprocessing
import resource
import sys
import time
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from acceptance.check import GB, Machine, NotHere, Outcome, judge
from acceptance.processes import start
from acceptance.sample import cpu_run, macro_auc, sample_folder, sample_settings
from catheters.commands.command_line import USER_ERROR_STATUS, run_command
from catheters.config.settings import Settings
from catheters.labels import RANZCR_LABELS
from catheters.runs.autotune import choose_batch_size
from catheters.runs.preproc import preproc
from catheters.runs.probe import probe_batch, probe_step
from catheters.runs.profiling import FOLDER as PROFILE_FOLDER
from catheters.runs.train import train
from catheters.runtime.host import kilobytes_in
from catheters.runtime.precision import autocast, bfloat16_warning
from catheters.training.extensions.log import FILE_NAME, read_epochs

sys.path.append(str(Path(__file__).parents[2] / "tests" / "stress"))
from kill_training import outcome, with_everything

SECONDS_TO_START = 120.0
KEPT_BYTES = 100 * 10**6
"""What a training may leave on the GPU, such as the workspaces of libraries."""
GPU_LIMIT, CPU_LIMIT = 0.6, 0.3
"""GB that a training may have which shall find too few."""


def amp(machine: Machine, dtype: Literal["float16", "bfloat16"]) -> Outcome:
    """Mixed precision trains the sample to the CPU's score in float32, within its 95% interval over patients."""
    if machine.device.type == "cuda" and dtype == "bfloat16":
        capability = torch.cuda.get_device_capability(machine.device)
        warning = bfloat16_warning(torch.cuda.get_device_name(machine.device), capability)
        if warning:
            raise NotHere(warning)
    expected = macro_auc(cpu_run(machine))
    settings = sample_settings(machine, f"amp_{dtype}", amp_dtype=dtype)
    train(settings)
    got = macro_auc(settings).value
    has_learnt = machine.is_dry or expected.low > 0.5
    found = judge(
        expected.low <= got <= expected.high and has_learnt,
        f"macro ROC AUC {got:.4f}",
        f"the CPU's is {expected}" + ("" if has_learnt else ", so that it has learnt nothing itself"),
    )
    return machine.of_gpu_alone(found, "a CPU computes in full precision")


def kill_and_resume(machine: Machine, compile_mode: Literal["reduce-overhead"] | None = None) -> Outcome:
    """A run that is killed (SIGKILL) at random moments and resumed gives the bits of an uninterrupted one."""
    if machine.is_dry and compile_mode is not None:
        raise NotHere("needs a GPU: a CPU has no CUDA graphs, and compiles for minutes")
    settings = dataclasses.replace(
        with_everything(machine.folder),
        dataset_folder=str(sample_folder(machine)),
        device=machine.device.type,
        folds=(0,),
        epochs=machine.size(10, 3),
        compile_mode=compile_mode,
        accumulation_steps=2 if compile_mode is None else 1,
        run_name=f"uninterrupted_{compile_mode}",
    )
    preproc(settings)
    whole_seconds = _train_apart(settings, None)
    expected = outcome(settings.run_folder)
    killed = dataclasses.replace(settings, run_name=f"killed_{compile_mode}")
    number = machine.size(2, 1) if compile_mode is None else 1
    # Together they are shorter than the whole, which therefore never ends before.
    moments = np.random.default_rng().uniform(0, whole_seconds / (number + 1), number).tolist()
    for moment in moments:
        _train_apart(killed, moment)
    _train_apart(killed, None)
    got = outcome(killed.run_folder)
    differing = sorted(name for name in expected if got.get(name) != expected[name])
    after = ", ".join(f"{moment:.1f}" for moment in moments)
    return judge(
        not differing,
        f"killed {after} s after each start of training, {len(differing)} of {len(expected)} results differ",
        f"other bits: {', '.join(differing)}" if differing else "tensors, predictions and log are the same bits",
    )


def _train_apart(settings: Settings, kill_after: float | None) -> float:
    """Train in a process of its own, killed so many seconds after it has entered the run's folder; seconds from then.

    On a GPU this process uses none itself, since it forks.
    """
    log = settings.run_folder.with_suffix(".log")
    before = log.stat().st_size if log.exists() else 0
    process = start(lambda: train(settings), log)
    deadline = time.monotonic() + SECONDS_TO_START
    while process.is_alive() and time.monotonic() < deadline:
        if log.exists() and b" -> " in log.read_bytes()[before:]:
            break
        time.sleep(0.02)
    entered = time.monotonic()
    if kill_after is not None:
        process.join(kill_after)
        if not process.is_alive():
            raise RuntimeError(f"the training ended by itself, with exit status {process.exitcode}, before its kill")
        process.kill()
    process.join()
    if kill_after is None and process.exitcode != 0:
        raise RuntimeError(f"a training ended with exit status {process.exitcode}")
    return time.monotonic() - entered


def auto_batch(machine: Machine) -> Outcome:
    """The batch of batch_size="auto" and the one of validation that follows from it fit, and take half the memory."""
    settings = Settings(
        backbone_model=machine.size("efficientnet_b3", "test_resnet"),
        pretrained=False,
        image_size=machine.size(1024, 32),
        batch_size="auto",
        channels_last=True,
        device=machine.device.type,
    )
    number = choose_batch_size(settings, None, machine.device, 1, machine.size(10**6, 120))
    step = probe_step(dataclasses.replace(settings, batch_size=number), machine.device, num_batches=4)
    for _ in range(4):
        result = step(probe_batch(settings, number))
    step.scored_model.eval()
    images = probe_batch(settings, 2 * number).images.to(machine.device)
    with torch.inference_mode(), autocast(machine.device, step.dtype):
        logits = step.scored_model(images).logits
    is_finite = bool(torch.isfinite(result.loss)) and bool(torch.isfinite(logits).all())
    share = 1.0
    if machine.device.type == "cuda":
        share = torch.cuda.max_memory_allocated(machine.device) / torch.cuda.mem_get_info(machine.device)[1]
    return judge(
        is_finite and share > 0.5,
        f"{number} images of {settings.image_size} px, validation of {2 * number}{machine.most_memory()}",
        f"{settings.backbone_model}; more than half of the GPU's memory, finite numbers",
    )


def auto_run(machine: Machine) -> Outcome:
    """A run with batch_size="auto" finishes, and gives the memory that it tried back."""
    settings = sample_settings(machine, "auto", batch_size="auto", epochs=1)
    before = _allocated(machine)
    train(settings)
    gc.collect()
    kept = _allocated(machine) - before
    epoch = read_epochs(settings.run_folder / "fold0")[-1]
    memory = epoch["speed"]["gpu_memory_gb"]
    return judge(
        kept <= KEPT_BYTES,
        f"{memory or 0:g} GB in the log, {kept / 1e6:.1f} MB kept after it",
        f"at most {KEPT_BYTES / 1e6:g} MB",
    )


def _allocated(machine: Machine) -> int:
    return torch.cuda.memory_allocated(machine.device) if machine.device.type == "cuda" else 0


def workers(machine: Machine) -> Outcome:
    """DataLoader workers that are forked after CUDA was started load three epochs and end."""
    settings = sample_settings(machine, "workers", num_workers=machine.size(8, 2), epochs=machine.size(3, 1))
    torch.ones(1, device=machine.device).add_(1)
    train(settings)
    number = len(read_epochs(settings.run_folder / "fold0"))
    children = multiprocessing.active_children()
    return judge(
        number == settings.num_epochs and not children,
        f"{number} epochs by {settings.num_workers} workers, {len(children)} of which are left",
        "all, and none is left",
    )


def out_of_memory(machine: Machine) -> Outcome:
    """A training that finds too little memory ends with status 2 and one line that says what takes less."""
    settings = sample_settings(
        machine,
        "out_of_memory",
        backbone_model="seresnet50",
        batch_size=machine.size(256, 8),
        num_workers=0,
    )
    if machine.device.type == "cuda":
        whole = torch.cuda.get_device_properties(machine.device).total_memory / GB
        torch.cuda.set_per_process_memory_fraction(GPU_LIMIT / whole, machine.device)
    else:
        taken = 1024 * kilobytes_in(Path("/proc/self/status"), "VmSize")
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        resource.setrlimit(resource.RLIMIT_AS, (taken + int(CPU_LIMIT * GB), hard))
    said, status = io.StringIO(), None
    try:
        with contextlib.redirect_stderr(said):
            run_command(lambda _: 0 if train(settings) else 1)
    except SystemExit as end:
        status = end.code
    print(said.getvalue(), file=sys.stderr)
    errors = [line for line in said.getvalue().splitlines() if not line.startswith("warning: ")]
    is_clear = len(errors) == 1 and "out of memory" in errors[0] and "; " in errors[0] and "lower " in errors[0]
    return judge(
        status == USER_ERROR_STATUS and is_clear,
        f"status {status}: {errors[-1] if errors else 'nothing is said'}",
        "one line",
    )


def skipped_steps(machine: Machine) -> Outcome:
    """SGD with a pos_weight of 3000 in float16: skipped steps are counted, and losses stay finite."""
    settings = sample_settings(
        machine,
        "skipped",
        optimizer="SGD",
        pos_weight=dict.fromkeys(RANZCR_LABELS, 3000.0),
        init_lr=1e-8,
        min_lr=1e-9,
        epochs=machine.size(8, 1),
    )
    train(settings)
    lines = [json.loads(line) for line in (settings.run_folder / "fold0" / FILE_NAME).read_text().splitlines()]
    losses = [line["train/loss"] for line in lines]
    skipped = sum(line.get("skipped_steps", 0) for line in lines if line["kind"] == "batches")
    steps = max(line["iteration"] for line in lines)
    found = judge(
        all(map(math.isfinite, losses)) and (skipped > 0 or machine.is_dry),
        f"{skipped} of {steps} steps skipped, losses of {min(losses):.1f} to {max(losses):.1f}",
        "some are skipped at first, and every loss is finite",
    )
    return machine.of_gpu_alone(found, "float16's gradient scaler")


def profile_busy(machine: Machine) -> Outcome:
    """profile=True sees what the GPU does: its busy time is above 0 and within the step."""
    settings = sample_settings(machine, "profiled", profile=True, epochs=1)
    train(settings)
    written = json.loads((settings.run_folder / PROFILE_FOLDER / "profile.json").read_text())
    busy = [(way["gpu_busy_ms"] or 0.0, way["profiled_ms_per_step"]) for way in written.values()]
    found = judge(
        machine.is_dry or all(0 < ms < 1.1 * whole for ms, whole in busy),
        "; ".join(f"{name} {ms:.1f} of {whole:.1f} ms" for name, (ms, whole) in zip(written, busy, strict=True)),
        "above 0 and within the step",
    )
    return machine.of_gpu_alone(found, "busy time is that of its kernels")
