"""What the machine offers, and what this process has of it."""

import ctypes
import multiprocessing
import os
import re
import sys
from pathlib import Path


def available_cores() -> int:
    """CPU cores that this process may use, which in a container can be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def start_method() -> str:
    """How worker processes start, those of a DataLoader and those that decode: as the user has set it, else by fork.

    A forked worker shares what its parent has imported. By another method it imports torch again, which takes seconds;
    Python 3.14 made one of these the default of Linux.
    """
    chosen = multiprocessing.get_start_method(allow_none=True)
    return chosen or ("fork" if sys.platform == "linux" else "spawn")


def avoid_forks() -> None:
    """Let worker processes start from a server, unless the user has chosen: for a device whose driver has no fork."""
    if start_method() == "fork" and multiprocessing.get_start_method(allow_none=True) is None:
        multiprocessing.set_start_method("forkserver")


def process_rank() -> int:
    """This process's rank among those that torchrun has started, from 0; 0 without torchrun."""
    return int(os.environ.get("RANK", "0"))


def num_processes() -> int:
    """The world size: processes that torchrun has started, on all machines; 1 without torchrun."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1


def num_local_processes() -> int:
    """The local world size: how many of them share this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if "RANK" in os.environ else 1


def is_on_several_hosts() -> bool:
    """Whether some of them are on another machine."""
    return num_local_processes() < num_processes()


def local_rank() -> int:
    """The local rank: this process's number among those of this machine."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def num_restarts() -> int:
    """How often torchrun has started these ranks again since it was started itself (`--max-restarts`)."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


def resident_memory() -> int:
    """Bytes of memory that this process has; 0 where the system does not say (it is no Linux)."""
    return kilobytes_in(Path("/proc/self/status"), "VmRSS") * 1024


def peak_memory() -> int:
    """The most bytes that it had since `reset_peak_memory`; 0 where the system does not say."""
    return kilobytes_in(Path("/proc/self/status"), "VmHWM") * 1024


def reset_peak_memory() -> bool:
    """Restart the measurement of `peak_memory`; returns whether the system allows it."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return peak_memory() > 0


def keep_freed_memory(num_bytes: int) -> None:
    """Let the C library keep up to so much of what is freed for what comes next, where it would give it back at once.

    The system zeroes each page that was given back and is taken again. What glibc does by default depends on what was
    freed before, so that the same work takes more or less memory and time.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:  # glibc's; parameters by malloc.h: mmap threshold, trim threshold, pad
        for parameter, value in ((-3, 32 << 20), (-1, num_bytes), (-2, 16 << 20)):
            mallopt(parameter, value)


def release_free_memory() -> None:
    """Give the system back what this process has freed, where the C library can."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:  # glibc's
        trim(0)


def available_memory() -> int:
    """Bytes that a new process could get, a container's own limit considered (cgroup v2, as it sees it itself; a batch
    system's limits are not); 0 where the system does not say."""
    free = kilobytes_in(Path("/proc/meminfo"), "MemAvailable") * 1024
    group = Path("/sys/fs/cgroup")
    try:
        limit, used = ((group / name).read_text().strip() for name in ("memory.max", "memory.current"))
        # Files that were read count as used, until somebody needs the room.
        of_kind = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        return min(free, int(limit) - int(used) + int(of_kind["inactive_file"])) if limit.isdigit() else free
    except (OSError, ValueError, KeyError):
        return free


def kilobytes_in(file: Path, name: str) -> int:
    """A line such as `VmRSS:  1234 kB` of a file of /proc; 0 where there is none."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{name}:")), 0)


def check_device(name: str) -> str:
    """The name of a device, if it is one that models compute on."""
    if re.fullmatch(r"auto|cpu|mps|(cuda|xpu)(:\d+)?", name):
        return name
    raise ValueError(
        f"device: {name!r} came, auto (the first NVIDIA or AMD GPU, else the CPU), cpu, cuda, cuda:<index>, "
        "xpu (Intel), xpu:<index> or mps (Apple) is expected"
    )
