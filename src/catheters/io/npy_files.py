"""`.npy` files, opened without trust."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from catheters.errors import one_line
from catheters.io.files import UnreadableFileError


def open_npy(file: Path) -> npt.NDArray[Any]:
    """The array of a `.npy` file, mapped from disk; not the zip or the pickle that np.load takes for one as well.

    Raises:
        UnreadableFileError: it is missing, truncated, or no such file.
    """
    try:
        return np.lib.format.open_memmap(file, mode="r")
    except FileNotFoundError:
        raise UnreadableFileError(f"{file}: no such file") from None
    except Exception as error:  # of numpy's parser of the header, which is Python's, and of the system
        raise UnreadableFileError(f"{file}: damaged, or no .npy file ({one_line(error, 120)})") from None
