"""What torch and the libraries that it calls say where a device has no room, in one line that says what takes less."""

import contextlib
import gc
import re
import traceback
from collections.abc import Callable, Iterator

import torch

from catheters.errors import UserError, one_line
from catheters.runtime.memory import is_out_of_memory

NO_ENGINE_TEXTS = re.compile("unable to find an engine|Unable to find a valid cuDNN algorithm")
"""What torch says where cuDNN has no algorithm that it may use, be it for want of memory or since there is none."""


class DeviceError(UserError):
    """A device that has no memory for what was asked of it; work that needs less may still run."""


def finds_no_engine(error: Exception) -> bool:
    """Whether cuDNN has no algorithm: for want of memory, or as `deterministic=True` allows none that there is."""
    return isinstance(error, RuntimeError) and NO_ENGINE_TEXTS.search(str(error)) is not None


def lacks_operation(error: Exception) -> bool:
    """Whether torch has not written what was asked for on this kind of device, as happens on Apple's and Intel's."""
    return isinstance(error, NotImplementedError) and "not currently implemented for the" in str(error)


def no_operation(error: Exception) -> str:
    """What to do then."""
    return (
        f"torch lacks an operation on this device ({one_line(error).partition('. ')[0]}); device=cpu runs, and on "
        "Apple's GPU the environment variable PYTORCH_ENABLE_MPS_FALLBACK=1 lets the CPU do that operation"
    )


def shortage_of(error: Exception) -> str:
    """What is short, and how much of it was asked for."""
    if not isinstance(error, torch.OutOfMemoryError):
        return f"out of memory ({one_line(error)})"
    tried = re.search(r"Tried to allocate ([\d.]+ \w+)", str(error))
    return f"the GPU is out of memory{f' ({tried[1]} more were asked for)' if tried else ''}"


def release_memory(error: Exception) -> None:
    """Let go of what the work that failed had on the device, so that less of it can be tried."""
    traceback.clear_frames(error.__traceback__)  # their variables hold tensors
    gc.collect()
    torch.cuda.empty_cache()  # does nothing without a GPU


def is_for_want_of_memory(error: Exception, try_half: Callable[[], object]) -> bool:
    """Whether memory is what is short: where cuDNN has no algorithm, half the images pass, or say that it is.

    Args:
        error: what the whole batch failed with.
        try_half: does the same with half the images.
    """
    if not finds_no_engine(error):
        return is_out_of_memory(error)
    release_memory(error)
    try:
        try_half()
    except (RuntimeError, ValueError, MemoryError) as error_of_half:
        release_memory(error_of_half)
        return is_out_of_memory(error_of_half)
    return True


@contextlib.contextmanager
def device_work(what: str, remedies: str) -> Iterator[None]:
    """Work on a device that may be too small for it.

    Args:
        what: is done, for the message.
        remedies: what takes less.

    Raises:
        DeviceError: it is.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            reason = shortage_of(error)
        elif lacks_operation(error):
            raise UserError(f"{what}: {no_operation(error)}") from None
        elif finds_no_engine(error):
            reason = f"cuDNN has no algorithm, as where memory is short ({one_line(error)})"
        else:
            raise
        release_memory(error)
        raise DeviceError(f"{what}: {reason}; {remedies}") from None
