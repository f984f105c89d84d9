"""When one rank dies, all stop: else the others would wait for it, each holding a GPU, until somebody looks.

torchrun stops the ranks of its own machine when one of them dies. Nobody tells those of other machines, and a
machine that loses its network dies in silence. So each rank writes a sign of life to the store every second, and checks
that the others do.
"""

import os
import signal
import socket
import sys
import threading
import time

from torch.distributed.distributed_c10d import PrefixStore, Store

from catheters.errors import one_line
from catheters.runtime.interrupts import interrupt_signal

SECONDS_BETWEEN_SIGNS = 1.0
MAX_SILENCE_SECONDS = 30.0
"""A rank that gives no sign of life for so long is taken for dead. A busy one still gives them, from a thread."""
MAX_LEAVE_SECONDS = 5.0
"""How long rank 0 waits for the others to leave."""
FAILED_STATUS = 1
"""Exit status of a process that stops because another rank has failed."""
FAILURE = "failure"
INTERRUPTED = "interrupted"
STOPPED = "stopped"
LEFT = "left"


class ProcessMonitor:
    """Gives this rank's signs of life and checks the others', in a thread of its own."""

    def __init__(self, store: Store, rank: int, count: int) -> None:
        """Start; `count` processes share the store, this one being `rank`."""
        self._store = PrefixStore("monitor", store.clone())  # a connection of its own: the other one may be waiting
        self._rank = rank
        self._others = [other for other in range(count) if other != rank]
        self._name = f"rank {rank} ({socket.gethostname()}, pid {os.getpid()})"
        self._is_ended = threading.Event()
        self._reason: str | None = None
        self._store.set(self._sign_of(rank), "0")  # before anything can go wrong
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def report(self, reason: str) -> None:
        """Tell the others that this rank fails, and why."""
        try:
            self._store.compare_set(FAILURE, "", f"{self._name} failed: {reason}")
        except RuntimeError:  # nobody is there to be told
            return

    def pass_on_interrupt(self) -> None:
        """Pass the signal that this rank got on to the others, on other machines too."""
        try:
            self._store.set(INTERRUPTED, self._name)
        except RuntimeError:
            return

    def wait_for_reason(self) -> str:
        """Why another rank, which can no longer be reached, is gone."""
        started = time.monotonic()
        while self._reason is None and time.monotonic() - started < MAX_SILENCE_SECONDS + 10 * SECONDS_BETWEEN_SIGNS:
            # torchrun, which has noticed first, stops all processes, by SIGKILL soon.
            if interrupt_signal() is not None and time.monotonic() - started > 3 * SECONDS_BETWEEN_SIGNS:
                return "another rank died; torchrun's report names it"
            time.sleep(SECONDS_BETWEEN_SIGNS / 2)
        return self._reason or "another rank could not be reached"

    def leave(self) -> None:
        """Stop; from now on nobody expects signs of life.

        Rank 0 may be the one that has the store: it waits for the others, but not for dead ones.
        """
        self._is_ended.set()
        self._thread.join()
        if self._rank > 0:
            self._report_leaving()
            return
        deadline = time.monotonic() + MAX_LEAVE_SECONDS
        while self._store.add(LEFT, 0) < len(self._others) and time.monotonic() < deadline:
            time.sleep(SECONDS_BETWEEN_SIGNS / 10)

    def _report_leaving(self) -> None:
        try:
            self._store.set(self._sign_of(self._rank), STOPPED)
            self._store.add(LEFT, 1)
        except RuntimeError:  # the store's process has exited as well
            return

    def _run(self) -> None:
        last_signs: dict[int, tuple[bytes, float]] = {}
        number = 0
        reached = time.monotonic()
        while not self._is_ended.wait(SECONDS_BETWEEN_SIGNS):
            number += 1
            try:
                self._store.set(self._sign_of(self._rank), f"{number}")
                reason = self._failure() or self._silent(last_signs)
                if interrupt_signal() is None and self._store.check([INTERRUPTED]):
                    os.kill(os.getpid(), signal.SIGTERM)
                reached = time.monotonic()
            except RuntimeError as error:
                if time.monotonic() - reached < MAX_SILENCE_SECONDS:
                    continue
                reason = f"rank 0, through which all find each other, cannot be reached any more ({one_line(error)})"
            if reason is not None:
                self._exit_process(reason)

    def _failure(self) -> str | None:
        return self._store.get(FAILURE).decode() if self._store.check([FAILURE]) else None

    def _silent(self, last_signs: dict[int, tuple[bytes, float]]) -> str | None:
        """The first of the others that has been silent for too long, if any."""
        now = time.monotonic()
        for other in self._others:
            key = self._sign_of(other)
            sign = self._store.get(key) if self._store.check([key]) else b""
            before, since = last_signs.get(other, (b"", now))
            if sign != before or sign in (b"", STOPPED.encode()):  # it may still be starting
                since = now
            last_signs[other] = (sign, since)
            if now - since > MAX_SILENCE_SECONDS:
                reason = f"rank {other} gave no sign of life for {MAX_SILENCE_SECONDS:.0f} s: it or its machine died"
                self._store.compare_set(FAILURE, "", reason)
                return reason
        return None

    def _exit_process(self, reason: str) -> None:
        """Exit, whatever the main thread is waiting for; files are whole or absent at any moment."""
        self._reason = reason
        # A main thread that has noticed by itself says so in its own words meanwhile.
        if self._is_ended.wait(SECONDS_BETWEEN_SIGNS):
            return
        if self._rank > 0:
            self._report_leaving()
        print(f"error on rank {self._rank}: stopped, since {reason}", file=sys.__stderr__, flush=True)
        os._exit(FAILED_STATUS)

    @staticmethod
    def _sign_of(rank: int) -> str:
        return f"sign/{rank}"
