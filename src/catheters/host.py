"""What the machine offers."""

import os


def available_cores() -> int:
    """CPU cores that this process may use, which in a container can be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def process_rank() -> int:
    """This process's number among those that torchrun has started, from 0; 0 without torchrun."""
    return int(os.environ.get("RANK", "0"))


def num_processes() -> int:
    """How many processes torchrun has started, on all machines; 1 without torchrun."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1


def num_local_processes() -> int:
    """How many of them share this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if "RANK" in os.environ else 1


def local_rank() -> int:
    """This process's number among those of this machine."""
    return int(os.environ.get("LOCAL_RANK", "0"))
