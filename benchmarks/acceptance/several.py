"""Several processes: more ranks than GPUs, two runs on one GPU, and with two GPUs or more distributed training."""

import dataclasses
import functools
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import distributed
import numpy as np
import torch
from config_file import write_config

from acceptance.check import Machine, NotHere, Outcome, judge
from acceptance.processes import start
from acceptance.sample import sample_settings
from catheters.config.settings import Settings
from catheters.errors import UserError
from catheters.runs.autotune import choose_batch_size
from catheters.runs.probe import probe_batch, probe_step
from catheters.runtime.device import open_device

REPOSITORY = Path(__file__).parents[2]
MAX_SECONDS = 200.0
NUM_EPOCHS_OF_WORKERS = 60
SAME_LOSS, SAME_PROBABILITY = 1e-2, 2e-2
"""How far distributed training may be from one process's, where batch norm has no part: losses relative."""
NORM_LOSS = 5e-2
"""The same of validation's loss with synchronised batch norm."""


def more_ranks(machine: Machine) -> Outcome:
    """torchrun with one rank more than there are GPUs is refused, by each rank in one line."""
    settings = sample_settings(machine, "more_ranks", device="auto" if machine.num_gpus else "cuda")
    config = write_config(settings, machine.folder / "more_ranks.py")
    count, logs = machine.num_gpus + 1 if machine.num_gpus else 2, machine.folder / "ranks"
    launcher = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={count}", "--redirects=3"]
    command = [*launcher, f"--log-dir={logs}", str(REPOSITORY / "train.py"), "--config", str(config)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=MAX_SECONDS)
    said = [file.read_text().splitlines() for file in sorted(logs.rglob("stderr.log"))]
    errors = [[line for line in lines if not line.startswith("warning: ")] for lines in said]
    is_clear = len(errors) == count and all(len(lines) <= 1 for lines in errors)
    lines = [line for of_rank in errors for line in of_rank]
    return judge(
        done.returncode != 0 and is_clear and any(re.search(r"^error.*GPU", line) for line in lines),
        f"{count} ranks: {lines[0] if lines else 'nothing is said'}",
        "refused, at most one line of each rank" if is_clear else f"lines of each rank: {[len(e) for e in errors]}",
    )


def two_on_one(machine: Machine) -> Outcome:
    """Two processes that choose batch_size="auto" on one GPU both learn, or say in one line that memory is short."""
    logs = [machine.folder / f"two_on_one{number}.log" for number in range(2)]
    works = [start(functools.partial(_learn_from_largest, machine), log) for log in logs]
    for work in works:
        work.join()
    last = [log.read_text().splitlines()[-1] if log.read_text() else "" for log in logs]
    are_right = [
        work.exitcode == 0 or ("out of memory" in line and line.startswith("error"))
        for work, line in zip(works, last, strict=True)
    ]
    return judge(all(are_right), "; ".join(last), "a batch that fits, or one line")


def _learn_from_largest(machine: Machine) -> None:
    device = open_device(machine.device.type)
    settings = Settings(
        backbone_model=machine.size("resnet18", "test_resnet"),
        pretrained=False,
        image_size=machine.size(1024, 32),
        batch_size="auto",
        channels_last=True,
    )
    try:
        number = choose_batch_size(settings, None, device, 1, machine.size(10**6, 120))
        step = probe_step(dataclasses.replace(settings, batch_size=number), device, num_batches=4)
        for _ in range(4):
            step(probe_batch(settings, number))
    except UserError as error:
        print(f"error: {error}")
        sys.exit(2)
    except torch.OutOfMemoryError as error:  # between the choice and the step the other one took it
        print(f"error: out of memory ({str(error).splitlines()[0]})")
        sys.exit(2)
    print(f"{number} images")


def one_model(machine: Machine) -> Outcome:
    """Two GPUs that share each batch (NCCL) train a model without batch norm as one GPU does."""
    return _compare_ranks(machine, "test_convnext", {}, SAME_LOSS)


def graphs_of_ranks(machine: Machine) -> Outcome:
    """Two GPUs that share each batch train with CUDA graphs as one GPU does."""
    if machine.device.type == "cpu":
        raise NotHere("needs two GPUs: a CPU compiles for a minute, and has no graphs")
    return _compare_ranks(machine, "test_convnext", {"compile_mode": "reduce-overhead"}, SAME_LOSS)


def workers_of_ranks(machine: Machine) -> Outcome:
    """No DataLoader worker hangs that is forked while NCCL's threads are at work, in many short epochs of two GPUs."""
    if machine.device.type == "cpu":
        raise NotHere("needs two GPUs: tests/stress/kill_ranks.py forks workers beside gloo's threads")
    _, got = _train_both(machine, "test_convnext", {"num_workers": 4, "cosine_epochs": NUM_EPOCHS_OF_WORKERS - 1})
    return judge(
        len(got.losses) == NUM_EPOCHS_OF_WORKERS,
        f"{len(got.losses)} epochs in {got.seconds:.0f} s",
        f"{NUM_EPOCHS_OF_WORKERS} epochs",
    )


def sync_batch_norm(machine: Machine) -> Outcome:
    """With sync_batch_norm=True two GPUs train a model with batch norm as one GPU does."""
    if machine.device.type == "cpu":
        raise NotHere("needs two GPUs: torch has no synchronised batch norm for CPUs")
    return _compare_ranks(machine, "test_resnet", {"sync_batch_norm": True}, NORM_LOSS)


def folds_parallel(machine: Machine) -> Outcome:
    """folds_parallel=True on two GPUs gives the predictions of one, bit for bit."""
    reference, got = _train_both(machine, "test_resnet", {"folds": None, "folds_parallel": True})
    is_same = got.predictions.equals(reference.predictions)
    return judge(is_same, "the same bits" if is_same else "other predictions", "the same bits")


def _compare_ranks(machine: Machine, backbone: str, changes: dict[str, Any], bound: float) -> Outcome:
    reference, got = _train_both(machine, backbone, changes)
    losses = float(np.abs(got.losses / reference.losses - 1).max())
    columns = reference.predictions.columns[3:]
    apart = float(np.abs(got.predictions[columns].to_numpy() - reference.predictions[columns].to_numpy()).max())
    return judge(
        losses <= bound and apart <= SAME_PROBABILITY,
        f"losses {losses:.1e} apart, probabilities {apart:.1e}; {got.images_per_second:.0f} images/s beside "
        f"{reference.images_per_second:.0f}",
        f"at most {bound:g} and {SAME_PROBABILITY:g}, {'gloo' if machine.device.type == 'cpu' else 'NCCL'}",
    )


def _train_both(
    machine: Machine, backbone: str, changes: dict[str, Any]
) -> tuple[distributed.Trained, distributed.Trained]:
    """The same settings in one process, and by torchrun in two; of a dry run by gloo on the CPU."""
    if machine.num_gpus < 2 and machine.device.type == "cuda":
        raise NotHere("needs two GPUs, one is seen")
    folder = machine.folder / "ranks_of_one_model"
    folder.mkdir(exist_ok=True)
    settings = distributed.make_settings(folder, num_images=machine.size(240, 40), num_epochs=machine.size(4, 2))
    settings = dataclasses.replace(settings, backbone_model=backbone, use_amp=False, **changes)
    os.environ["NVIDIA_TF32_OVERRIDE"] = "0"  # of cuBLAS and cuDNN: float32's own rounding is small enough to compare
    name = "_".join([backbone, *changes])
    return distributed.train(settings, folder, f"{name}_1", 1), distributed.train(settings, folder, f"{name}_2", 2)
