"""Where a model computes: which device, how exactly, and how tensors get there."""

import os

import torch
from torch import Tensor

from catheters.errors import SettingsError, UserError
from catheters.host import local_rank, num_local_processes, num_processes


def choose_device(name: str) -> torch.device:
    """The device of the setting `device`; with several processes each gets a GPU of its own.

    Raises:
        UserError: there is no such GPU, or one for each process.
    """
    num_gpus = torch.cuda.device_count()
    if name == "cpu" or (name == "auto" and not num_gpus):
        return torch.device("cpu")
    if num_processes() > 1:
        if name.startswith("cuda:"):
            raise SettingsError(f"device={name}: {num_processes()} processes need a GPU each; set device=auto")
        if num_local_processes() > num_gpus:
            raise UserError(
                f"torchrun started {num_local_processes()} processes on this machine, which has {num_gpus} CUDA GPUs; "
                "start one a GPU, or set device=cpu"
            )
        return torch.device("cuda", local_rank())
    index = (torch.device(name).index or 0) if name != "auto" else 0
    if index >= num_gpus:
        raise UserError(f"device={name}: this machine has {num_gpus} CUDA GPUs; set device=auto")
    return torch.device("cuda", index)


def prepare_device(device: torch.device, *, deterministic: bool) -> None:
    """Make a GPU this process's own, and let it compute the same bits every time if that is asked for.

    Float32 products are made of TF32 factors (10 bits of mantissa) where a GPU has such units, and where they are not
    deterministic, convolutions by the algorithm that a short trial finds fastest for each shape.
    """
    if device.type == "cpu":
        return  # always computes the same, with the same number of threads
    torch.cuda.set_device(device)
    torch.set_float32_matmul_precision("high")  # convolutions do so by torch's default
    torch.backends.cudnn.deterministic = deterministic
    torch.backends.cudnn.benchmark = not deterministic
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS' condition for it
    # Where there is no such algorithm torch warns, and the run goes on.
    torch.use_deterministic_algorithms(deterministic, warn_only=True)
    # Filling memory costs time. What reads it before it is written is wrong with any filling: torch's fused SGD does
    # after a skipped first step, so that its momentum is made beforehand (`begin_momentum`).
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def device_name(device: torch.device) -> str:
    """What a person calls the device."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "the CPU"


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on the device, without waiting for the GPU to have done what it was given before."""
    if device.type == "cuda" and tensor.device.type == "cpu" and not tensor.is_pinned():
        tensor = tensor.pin_memory()  # from other memory, the copy would be waited for
    return tensor.to(device, non_blocking=True)


def wait_for(device: torch.device) -> None:
    """Wait until a GPU has done what it was given, so that a clock can be read."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
