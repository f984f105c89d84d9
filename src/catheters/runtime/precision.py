"""Mixed precision: of which type, and where."""

from collections.abc import Iterable

import torch

from catheters.runtime.console import warn

AMP_DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}


def choose_dtype(use_amp: bool, amp_dtype: str, device: torch.device) -> torch.dtype | None:
    """Type of mixed precision, or None for full precision.

    A CPU always gets full precision, since it is slower with mixed one; and so does Apple's GPU, on which the gradient
    scaler was not tried.
    """
    if not use_amp or device.type in ("cpu", "mps"):
        return None
    return AMP_DTYPES[amp_dtype]


def autocast(device: torch.device, dtype: torch.dtype | None) -> torch.autocast:
    """Mixed precision of this type on this device, or nothing for None."""
    return torch.autocast(device.type, dtype=dtype, enabled=dtype is not None)


def create_scaler(device: torch.device, dtype: torch.dtype | None) -> torch.amp.GradScaler:
    """Of the gradients of such mixed precision; disabled, so that it passes all on, but for float16.

    bfloat16 has float32's range. Micikevicius et al. 2018, "Mixed Precision Training", section 3.2.
    """
    return torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)


def warn_of_precision(dtypes: Iterable[torch.dtype | None], device: torch.device) -> None:
    """Say so on stderr where a model computes in bfloat16 on a GPU that has no units for it; `dtypes` are theirs."""
    if device.type == "cuda" and torch.bfloat16 in dtypes:
        warning = bfloat16_warning(torch.cuda.get_device_name(device), torch.cuda.get_device_capability(device))
        if warning:
            warn(warning)


def bfloat16_warning(name: str, capability: tuple[int, int]) -> str:
    """Why a GPU of this compute capability should not compute in bfloat16; empty from Ampere (8.0) on."""
    if capability >= (8, 0):
        return ""
    return (
        f"amp_dtype=bfloat16: {name} (sm_{capability[0]}{capability[1]}) is older than Ampere (sm_80) and has no units "
        "for it, so that it is slow or fails; float16 is what such a GPU is quick in"
    )
