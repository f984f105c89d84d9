"""Mixed precision: of which type, and where."""

import torch

from catheters.settings import Settings

AMP_DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}


def amp_dtype(settings: Settings, device: torch.device) -> torch.dtype | None:
    """Type of mixed precision, or None for full precision, which a CPU always gets: there it is slower."""
    if not settings.use_amp or device.type == "cpu":
        return None
    return AMP_DTYPES[settings.amp_dtype]


def autocast(device: torch.device, dtype: torch.dtype | None) -> torch.autocast:
    """Mixed precision of this type on this device, or nothing for None."""
    return torch.autocast(device.type, dtype=dtype, enabled=dtype is not None)
