"""Waiting by events: work may be slow, but not idle."""

import os
import signal
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


def test_cpu_time_extends_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """However short the time in which nothing may happen: a grandchild has computed since the look before."""
    child = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'while True: pass'])"
    guard = hangs.HangGuard()

    def wait_for_work() -> None:
        used = hangs.cpu_seconds_of_children()
        hangs.wait_until(lambda: hangs.cpu_seconds_of_children() >= used + 0.2)

    with subprocess.Popen([sys.executable, "-c", child], start_new_session=True) as process:
        try:
            wait_for_work()  # of starting
            for _ in range(3):
                wait_for_work()
                with monkeypatch.context() as patched:
                    patched.setattr(hangs, "IDLE_SECONDS", 1e-9)
                    patched.setattr(hangs, "MIN_CPU_SECONDS", 0.1)
                    patched.setattr(hangs, "SECONDS_BETWEEN_CHECKS", 0.0)
                    guard.check(lambda: "it computes")
        finally:
            os.killpg(process.pid, signal.SIGKILL)
