"""Waiting by events: work may be slow, but not idle."""

import subprocess
import sys

import pytest

from tests import hangs


def test_what_computes_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU time counts, that of a grandchild too."""
    monkeypatch.setattr(hangs, "MIN_CPU_SECONDS", 0.01)
    monkeypatch.setattr(hangs, "SECONDS_BETWEEN_CHECKS", 0.05)
    work = "import time\nwhile time.process_time() < 1: pass\nprint('done')"
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {work!r}])"
    before = hangs.cpu_seconds_of_children()
    done = hangs.run_watched([sys.executable, "-c", child])
    assert (done.stdout, done.returncode) == ("done\n", 0)
    assert hangs.cpu_seconds_of_children() - before >= 1


def test_what_is_idle_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hangs, "IDLE_SECONDS", 0.5)
    monkeypatch.setattr(hangs, "SECONDS_BETWEEN_CHECKS", 0.1)
    with (
        subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, text=True) as process,
        pytest.raises(AssertionError, match="it hangs:\nthe reason"),
    ):
        hangs.wait_until(lambda: process.poll() is not None, lambda: "the reason")
    with pytest.raises(AssertionError, match="it hangs"):
        hangs.run_watched([sys.executable, "-c", "import signal; signal.pause()"])
