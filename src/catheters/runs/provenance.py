"""Under what a run was trained: versions, commit, command, hardware."""

import importlib.metadata
import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from catheters.runtime.device import device_name
from catheters.runtime.host import available_cores

PACKAGES = ("catheters", "torch", "timm", "albumentations", "numpy", "pytorch-pfn-extras")
"""Packages whose versions are kept with a run: those that decide its numbers."""


def package_versions() -> dict[str, str]:
    """The installed versions of `PACKAGES`."""
    return {package: importlib.metadata.distribution(package).version for package in PACKAGES}


def describe_environment(device: torch.device, num_processes: int) -> dict[str, Any]:
    """Plain data that can be kept as JSON and in a checkpoint.

    Args:
        device: where the run computes.
        num_processes: world size: how many train one model together.
    """
    return {
        "command": shlex.join(sys.argv),
        "git_commit": git_commit(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": package_versions(),
        "device": device_name(device),
        "num_processes": num_processes,
        "num_threads": torch.get_num_threads(),
        "hardware": {
            "cpu": _cpu_name(),
            "cores": available_cores(),
            "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
            "gpus": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
            "cuda": torch.version.cuda,
            "cudnn": _cudnn_version(),
        },
    }


def git_commit() -> str | None:
    """The commit of this program's own checkout, with -dirty where files of it have changed; None without one."""
    here = Path(__file__)
    git = ["git", "-C", str(here.parent)]
    try:
        subprocess.run([*git, "ls-files", "--error-unmatch", here.name], capture_output=True, check=True)
        described = subprocess.run(
            [*git, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return described.stdout.strip()


def _cudnn_version() -> int | None:
    version: int | None = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    return version if torch.cuda.is_available() else None


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
