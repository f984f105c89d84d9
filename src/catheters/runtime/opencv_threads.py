"""OpenCV's own threads, out of the way where images are spread over processes or threads already."""

import contextlib
from collections.abc import Iterator

import cv2


def end_opencv_threads() -> None:
    """Let OpenCV work in the calling thread alone.

    0 threads, not 1: for 1, OpenCV waits for its other threads to end, which a forked process does not have.
    """
    cv2.setNumThreads(0)


@contextlib.contextmanager
def without_opencv_threads() -> Iterator[None]:
    """The same for a while."""
    before = cv2.getNumThreads()
    end_opencv_threads()
    try:
        yield
    finally:
        cv2.setNumThreads(before)
