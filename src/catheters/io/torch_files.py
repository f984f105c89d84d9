"""Files of torch, read without trust: every byte compared with its checksum, nothing but tensors and plain data."""

import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch

from catheters.errors import one_line
from catheters.io.files import UnreadableFileError
from catheters.runtime.memory import raise_if_out_of_memory


def read_torch_file(file: Path) -> Any:
    """What `torch.save` wrote, on the CPU.

    torch.load compares no checksum: a flipped bit of a weight would be taken. The zip that torch writes has one for
    each tensor (CRC-32).

    Raises:
        UnreadableFileError: says which file, and what is wrong with it.
        NoMemoryToReadError: this machine has no memory for it, whole as it may be.
    """
    check_archive(file)
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise UnreadableFileError(f"{file}: refused, it holds more than tensors and plain data") from None
    except Exception as error:  # whatever torch and its unpickler stumble over; it is the file's fault
        raise_if_out_of_memory(error, file)
        raise UnreadableFileError(f"{file}: damaged ({one_line(error, 120).partition('. ')[0]})") from None


def check_archive(file: Path) -> None:
    """Compare every byte of a zip archive with its checksums.

    Raises:
        UnreadableFileError: it is missing, no archive, or an entry is not what was written.
        NoMemoryToReadError: this machine has no memory for an entry.
    """
    if not file.is_file():
        raise UnreadableFileError(f"{file}: {'is a folder' if file.is_dir() else 'no such file'}")
    try:
        with zipfile.ZipFile(file) as archive:
            damaged = archive.testzip()
    except OSError as error:
        raise UnreadableFileError(f"{file}: cannot be read ({error.strerror})") from None
    except Exception as error:  # zipfile and zlib have many
        raise_if_out_of_memory(error, file)
        raise UnreadableFileError(f"{file}: damaged ({one_line(error, 120)})") from None
    if damaged is not None:
        raise UnreadableFileError(f"{file}: damaged ({damaged} is not what was written)")
