"""What C libraries print about damage that they bridge: they tell nobody but the terminal."""

import contextlib
import os
import sys
import tempfile
import threading
from collections.abc import Iterator

_lock = threading.Lock()


@contextlib.contextmanager
def decoder_messages() -> Iterator[list[str]]:
    """Catch what is printed to the process's stderr meanwhile.

    Yields:
        A list that holds the printed lines once the block has ended. Other threads' lines are caught as well; two
        threads that ask take turns.
    """
    lines: list[str] = []
    with _lock, tempfile.TemporaryFile() as caught:
        sys.stderr.flush()
        stderr = os.dup(2)
        os.dup2(caught.fileno(), 2)
        try:
            yield lines
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            caught.seek(0)
            lines += [line.strip() for line in caught.read().decode(errors="replace").splitlines() if line.strip()]
