"""Memory that runs out: how torch and the libraries that it calls say so, and files that there is no memory to read."""

import re
from pathlib import Path

import torch

from catheters.errors import UserError, one_line

OUT_OF_MEMORY_TEXTS = re.compile(
    "DefaultCPUAllocator|out of memory|_ALLOC_FAILED|ALLOCATION_FAILED|"
    "could not create a primitive$"  # oneDNN, where it has no memory for any of its algorithms
)
"""In the texts of errors that have no class of their own."""


class NoMemoryToReadError(UserError):
    """A file that this machine has no memory to read; nothing is known against the file."""


def is_out_of_memory(error: Exception) -> bool:
    """Whether torch says so, or a library that it calls."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and OUT_OF_MEMORY_TEXTS.search(str(error)) is not None
    )


def raise_if_out_of_memory(error: Exception, file: Path) -> None:
    """Raise a NoMemoryToReadError where it was memory that `error`, of reading `file`, wanted."""
    if is_out_of_memory(error):
        raise NoMemoryToReadError(
            f"{file}: this machine has no memory left to read it ({one_line(error)}); close other programs, or use a "
            "machine with more"
        ) from None
