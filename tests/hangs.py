"""Waiting for events: work that hangs is told from work that is slow, on however busy a machine.

Nothing here fails by the clock alone: what the tests have started may take any time as long as it computes.
"""

import os
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

IDLE_SECONDS = 120.0
"""A hang: so long without as much CPU time as `MIN_CPU_SECONDS` in all processes that the tests have started. On a
machine with ten times as much work as cores, one that computes gets ten times as much."""
MIN_CPU_SECONDS = 1.0
SECONDS_BETWEEN_CHECKS = 1.0


class HangGuard:
    """Fails a test that waits for processes which do nothing any more."""

    def __init__(self) -> None:
        """Start the clock."""
        self._used = cpu_seconds_of_children()
        self._since = self._checked = time.monotonic()

    def check(self, explain: Callable[[], str]) -> None:
        """To be called again and again while one waits; `explain` says what there is to know of a hang."""
        now = time.monotonic()
        if now - self._checked < SECONDS_BETWEEN_CHECKS:
            return
        self._checked = now
        used = cpu_seconds_of_children()
        if abs(used - self._used) >= MIN_CPU_SECONDS:  # less, where one has exited whose parent is gone
            self._used, self._since = used, now
        assert now - self._since < IDLE_SECONDS, f"it hangs:\n{explain()}"


def wait_until(is_so: Callable[[], bool], explain: Callable[[], str] = lambda: "it never came") -> None:
    """Look again and again."""
    guard = HangGuard()
    while not is_so():
        guard.check(explain)
        time.sleep(0.001)


def output_of(process: "subprocess.Popen[str]") -> tuple[str, str]:
    """What it writes until it exits, to stdout and stderr."""
    guard = HangGuard()
    while True:
        try:
            output, errors = process.communicate(timeout=SECONDS_BETWEEN_CHECKS)
        except subprocess.TimeoutExpired:
            try:
                guard.check(lambda: str(process.args))
            except AssertionError:
                process.kill()
                raise
        else:
            return output or "", errors or ""


def run_watched(command: Sequence[str | Path], **options: Any) -> subprocess.CompletedProcess[str]:
    """`subprocess.run`, with its output as text, for a command that may hang."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options) as process:
        output, errors = output_of(process)
    return subprocess.CompletedProcess(command, process.returncode, output, errors)


def cpu_seconds_of_children() -> float:
    """CPU time of all processes that this one has started, and of those that they have."""
    of_ended = os.times()
    ticks = sum(map(_ticks, _children(os.getpid())))
    return of_ended.children_user + of_ended.children_system + ticks / os.sysconf("SC_CLK_TCK")


def _ticks(pid: int) -> int:
    """Of a process, its children that have exited, and those that have not."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return sum(map(int, fields[11:15])) + sum(map(_ticks, _children(pid)))


def _children(pid: int) -> list[int]:
    pids: list[int] = []
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            pids += map(int, file.read_text().split())
        except (FileNotFoundError, ProcessLookupError):  # a thread that has exited
            continue
    return pids
