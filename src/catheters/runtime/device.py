"""Where a model computes: which device, whether it does, how exactly, and how tensors get there."""

import os
import re
import warnings
from collections.abc import Iterable, Sequence

import torch

from catheters.errors import SettingsError, UserError, one_line
from catheters.runtime.host import avoid_forks, check_device, local_rank, num_local_processes, num_processes

MIN_DRIVERS = {"12": "R525", "13": "R580"}
"""CUDA's major version -> the oldest driver that it runs with (NVIDIA, CUDA Compatibility, minor version
compatibility, table 1)."""
OLDER_WHEEL = (
    "torch==2.14.1 torchvision==0.29.1 from https://download.pytorch.org/whl/cu126 (built for CUDA 12.6) need driver "
    "R525 or newer and cards from sm_50 to sm_90"
)
"""The same versions for older drivers and cards (PyTorch's support matrix of 2.14, which torch itself holds in
`torch.cuda.PYTORCH_RELEASES_CODE_CC`)."""
OLDER_WHEEL_CAPABILITIES = ((5, 0), (7, 0))
"""Compute capabilities, the first and the last, that it is built for and the one from PyPI is not."""
OTHER_GPUS = {"mps": "Apple's GPU", "xpu": "Intel GPUs"}
"""Kinds of devices beside CPUs and what is called CUDA, which AMD's are too -> what they are."""
WITHOUT_GPU = "device=cpu computes without a GPU"


def choose_device(name: str) -> torch.device:
    """The device of the setting `device`, not opened yet; with several ranks each gets a GPU of its own.

    A process that sees one GPU alone takes it, since a batch system may have given each process another one; whether
    it did, `check_own_devices` finds out.

    Raises:
        UserError: no such name or GPU, or not one per rank.
    """
    try:
        check_device(name)
    except ValueError as error:
        raise SettingsError(str(error)) from None
    if torch.device(name if name != "auto" else "cpu").type in OTHER_GPUS:
        return _choose_other(torch.device(name))
    num_gpus = torch.cuda.device_count()
    if name == "cpu" or (name == "auto" and not num_gpus):
        return torch.device("cpu")
    if num_processes() > 1:
        if name.startswith("cuda:"):
            raise SettingsError(f"device={name}: {num_processes()} processes need one GPU each; set device=auto")
        if num_gpus == 1:
            return torch.device("cuda", 0)
        if num_local_processes() > num_gpus:
            raise UserError(
                f"{num_local_processes()} processes of this machine see {num_gpus} CUDA GPUs; start one process per "
                "GPU, let each process see one GPU alone (CUDA_VISIBLE_DEVICES), or set device=cpu"
            )
        return torch.device("cuda", local_rank())
    index = (torch.device(name).index or 0) if name != "auto" else 0
    if index >= num_gpus:
        built = "" if torch.version.cuda or torch.version.hip else f" (torch {torch.__version__} is built without CUDA)"
        raise UserError(f"device={name}: this machine has {num_gpus} CUDA GPUs{built}; set device=auto")
    return torch.device("cuda", index)


def _choose_other(device: torch.device) -> torch.device:
    """A GPU of Apple's or Intel's, which is nobody's choice but the user's: the program was not tried on one."""
    name, kind = str(device), OTHER_GPUS[device.type]
    if num_processes() > 1:
        raise SettingsError(f"device={name}: several processes compute on CUDA GPUs or CPUs; start one, or device=cpu")
    count = int(torch.backends.mps.is_available()) if device.type == "mps" else torch.xpu.device_count()
    index = device.index or 0
    if index >= count:
        raise UserError(
            f"device={name}: torch {torch.__version__} sees {count} {kind} on this machine; set device=auto"
        )
    return torch.device(device.type, index)


def open_device(name: str) -> torch.device:
    """The device of the setting `device`, after one operation on it: a GPU may be counted and yet not compute.

    With auto as well, a GPU that does not compute is an error: on the CPU the same command would take days.

    Raises:
        UserError: see `choose_device`; or the GPU does not compute, with what is wrong and what helps.
    """
    device = choose_device(name)
    if device.type == "cpu":
        return device
    if device.type in OTHER_GPUS:
        avoid_forks()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns, on several lines, of what is said below in one
            torch.ones(1, device=device).add_(1)
            torch.accelerator.synchronize(device)
    except (RuntimeError, AssertionError) as error:
        if device.type in OTHER_GPUS:
            raise UserError(f"device={name}: it does not compute ({one_line(error)}); {WITHOUT_GPU}") from None
        reason = why_unusable(one_line(error), _gpu_of(device), torch.cuda.get_arch_list(), torch.version.cuda)
        raise UserError(f"device={name}: {reason}; {WITHOUT_GPU}") from None
    return device


def _gpu_of(device: torch.device) -> tuple[str, tuple[int, int]] | None:
    """Name and compute capability; None where the driver does not say."""
    try:
        properties = torch.cuda.get_device_properties(device)
    except (RuntimeError, AssertionError):
        return None
    return properties.name, (properties.major, properties.minor)


def why_unusable(
    error: str, gpu: tuple[str, tuple[int, int]] | None, arch_list: Sequence[str], cuda: str | None
) -> str:
    """What keeps a GPU that is counted from computing, and what helps.

    Args:
        error: what torch says.
        gpu: its name and compute capability, where the driver says.
        arch_list: what this torch is built for, such as sm_75.
        cuda: the version of CUDA that it is built for, such as 13.0.
    """
    major = (cuda or "").partition(".")[0]
    needs = f"torch {torch.__version__} needs driver {MIN_DRIVERS[major]} or newer" if major in MIN_DRIVERS else ""
    older = f"; {OLDER_WHEEL}" if major == "13" else ""
    if "no NVIDIA driver" in error:
        return f"a GPU is counted, but no NVIDIA driver responds; install one ({needs})" if needs else error
    found = re.search(r"driver on your system is too old \(found version (\d+)\)", error)
    if found and needs:
        version = int(found[1])
        return f"the NVIDIA driver is too old: it has CUDA {version // 1000}.{version % 1000 // 10}, and {needs}{older}"
    if gpu is not None and arch_list and not is_built_for(gpu[1], arch_list):
        first, last = OLDER_WHEEL_CAPABILITIES
        helps = older if first <= gpu[1] <= (last[0], 9) and gpu[1] < (7, 5) else ""
        return (
            f"{gpu[0]} (sm_{gpu[1][0]}{gpu[1][1]}) is none of the cards that torch {torch.__version__} is built for "
            f"({' '.join(arch_list)}){helps}"
        )
    return f"{gpu[0] if gpu else 'a GPU'} is counted, but does not compute ({error})"


def is_built_for(capability: tuple[int, int], arch_list: Iterable[str]) -> bool:
    """Whether code for these architectures runs on a GPU of this compute capability.

    sm_XY runs on the same X with a Y as high or higher, sm_XYa on that very one, and compute_XY (PTX, compiled where it
    runs) on all later ones too (NVIDIA, CUDA C++ Programming Guide, "Binary Compatibility", "PTX Compatibility").
    """
    for arch in arch_list:
        match = re.fullmatch(r"(sm|compute)_(\d+)(\d)([af]?)", arch)
        if match is None:
            return True  # AMD's, such as gfx90a, of which nothing is known here
        kind, major, minor, only = match.groups()
        built = (int(major), int(minor))
        if capability == built or (
            not only and capability > built and (kind == "compute" or capability[0] == built[0])
        ):
            return True
    return False


def identity_of(device: torch.device) -> str:
    """An identifier that two ranks share only where they compute on one GPU; of another device than those its kind."""
    return str(torch.cuda.get_device_properties(device).uuid) if device.type == "cuda" else device.type


def check_own_devices(identities: Sequence[str]) -> None:
    """Two ranks never share a GPU, and all of them compute on GPUs or none.

    Args:
        identities: of each rank's device, in the order of the ranks.

    Raises:
        UserError: names two ranks.
    """
    for rank, identity in enumerate(identities):
        if identity != "cpu" and identity in identities[:rank]:
            raise UserError(
                f"ranks {identities.index(identity)} and {rank} have the same GPU ({identity}); start one process "
                "per GPU, or give each a CUDA_VISIBLE_DEVICES of its own"
            )
    if "cpu" in identities and any(identity != "cpu" for identity in identities):
        raise UserError(
            f"rank {identities.index('cpu')} sees no GPU, others do; start processes where there are GPUs, or set "
            "device=cpu"
        )


def prepare_device(device: torch.device, *, deterministic: bool) -> None:
    """Make a GPU this process's own, and deterministic (the same bits every time) if that is asked for.

    Float32 products are made of TF32 factors (10 bits of mantissa) where a GPU has such units, and where they are not
    deterministic, convolutions by the algorithm that a short benchmark finds fastest for each shape.
    """
    if device.type == "cpu":
        return  # always computes the same, with the same number of threads
    if device.type in OTHER_GPUS:
        torch.use_deterministic_algorithms(deterministic, warn_only=True)
        return
    torch.cuda.set_device(device)
    torch.set_float32_matmul_precision("high")  # convolutions do so by torch's default
    torch.backends.cudnn.deterministic = deterministic
    torch.backends.cudnn.benchmark = not deterministic
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS' condition for it
    # Where there is no such algorithm torch warns, and the run continues.
    torch.use_deterministic_algorithms(deterministic, warn_only=True)
    # Filling memory costs time. What reads it before it is written is wrong with any filling: torch's fused SGD does
    # after a skipped first step, so that its momentum is made beforehand (`create_momentum`).
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def device_name(device: torch.device) -> str:
    """What a person calls the device."""
    if device.type == "xpu":
        name: str = torch.xpu.get_device_name(device)
        return name
    names = {"mps": OTHER_GPUS["mps"], "cpu": "the CPU"}
    return names.get(device.type) or torch.cuda.get_device_name(device)


def wait_for(device: torch.device) -> None:
    """Wait until a GPU has done what it was given, so that a clock can be read."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
