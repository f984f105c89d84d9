"""Progress in a log file: whole lines, and none for short work."""

import subprocess
import sys

import pytest

from catheters.runtime import progress


def test_a_log_file_gets_lines_of_words(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LOG_LINES", 0.0)  # a line for each item
    assert list(progress.track(range(2), "reading", 5, unit="batch", num_done=3)) == list(range(2))
    assert capsys.readouterr().err == "reading: 4 of 5 batches, about 0 s left\nreading: 5 of 5 batches, in 0 s\n"
    assert list(progress.track(range(5), "epoch 1/2", 5, leave=False)) == list(range(5))
    lines = capsys.readouterr().err.splitlines()
    assert lines == [f"epoch 1/2: {count} of 5 images, about 0 s left" for count in range(1, 5)]


@pytest.mark.parametrize("leave", [False, True])
def test_work_that_is_given_up_leaves_no_half_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], leave: bool
) -> None:
    """As where a training is stopped in an epoch: nothing comes between the lines that are there and the reason."""
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LOG_LINES", 0.0)
    for item in progress.track(range(5), "reading", 5, leave=leave):
        if item == 2:
            break
    assert capsys.readouterr().err == "".join(f"reading: {n} of 5 images, about 0 s left\n" for n in (1, 2))


def test_short_work_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    assert sum(progress.track(range(5), "reading", 5)) == 10
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "0 s"), (99, "99 s"), (100, "2 min"), (5930, "99 min"), (5999, "1 h 40 min"), (190_000, "2 d 4 h")],
)
def test_durations(seconds: float, text: str) -> None:
    assert progress.duration(seconds) == text


def test_a_bar_leaves_the_start_method_open() -> None:
    """tqdm's own lock would settle Python's default, which is not fork on Python 3.14."""
    code = """
import multiprocessing, sys
sys.stderr.isatty = lambda: True
from catheters.runtime.progress import track
assert list(track(range(3), "reading", 3)) == [0, 1, 2]
print(multiprocessing.get_start_method(allow_none=True))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "None\n", done.stderr
    assert "100%" in done.stderr
