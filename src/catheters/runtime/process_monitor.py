"""When one rank dies, all stop: else the others would wait for it, each holding a GPU, until somebody looks.

torchrun stops the ranks of its own machine when one of them dies, by the signal of somebody who wants all to stop.
Nobody tells those of other machines, and a machine that loses its network dies in silence. So each rank writes a sign
of life to the store every second, and checks that the others do.
"""

import os
import signal
import socket
import sys
import threading
import time

from torch.distributed.distributed_c10d import PrefixStore, Store

from catheters.runtime.interrupts import has_interrupt_arrived

SECONDS_BETWEEN_SIGNS = 1.0
SECONDS_BETWEEN_TRIES = 5.0
"""The same while the store cannot be reached: torch prints a trace of each try."""
MAX_SILENCE_SECONDS = 30.0
"""A rank that gives no sign of life for so long is taken for dead. A busy one still gives them, from a thread."""
SECONDS_TO_ANSWER = 15.0
"""The same from a signal on: torchrun sends it when a rank has died, and kills those that are left after 30 s."""
MAX_START_SECONDS = 300.0
"""How long a rank may take to give its first sign of life."""
MAX_LEAVE_SECONDS = 5.0
"""How long rank 0 waits for the others to leave."""
FAILED_STATUS = 1
"""Exit status of a process that stops because another rank has failed."""
FAILURE = "failure"
INTERRUPTED = "interrupted"
STOPPED = "stopped"
LEFT = "left"


class ProcessMonitor:
    """Gives this rank's signs of life and checks the others', in threads of its own."""

    def __init__(self, store: Store, rank: int, count: int) -> None:
        """Start; `count` processes share the store, this one being `rank`."""
        self._store = PrefixStore("monitor", store.clone())  # a connection of its own: the other one may be waiting
        self._rank = rank
        self._others = [other for other in range(count) if other != rank]
        self._name = f"rank {rank} ({socket.gethostname()}, pid {os.getpid()})"
        self._is_ended, self._has_left = threading.Event(), threading.Event()
        self._is_stopping = self._has_one_died = False
        self._num_contacts = 0
        self._reason: str | None = None
        self._store.set(self._sign_of(rank), "0")  # before anything can go wrong
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        threading.Thread(target=self._watch_store, daemon=True).start()

    def report(self, reason: str) -> None:
        """Tell the others that this rank fails, and why."""
        try:
            self._store.compare_set(FAILURE, "", f"{self._name} failed: {reason}")
        except RuntimeError:  # nobody is there to be told
            return

    def pass_on_interrupt(self) -> None:
        """Pass the signal that this rank got on to the others, on other machines too."""
        self._is_stopping = True
        try:
            self._store.set(INTERRUPTED, self._name)
        except RuntimeError:
            return

    def wait_for_reason(self) -> str | None:
        """Why another rank, which can no longer be reached, is gone; None where none is found."""
        started = time.monotonic()
        while self._reason is None and time.monotonic() - started < _max_silence() + 5 * SECONDS_BETWEEN_SIGNS:
            time.sleep(SECONDS_BETWEEN_SIGNS / 2)
        return self._reason

    def reason_of_signal(self) -> str | None:
        """Which other rank has failed or died, so that torchrun wants all to stop.

        None where all of them hear somebody's signal.
        """
        try:
            self._store.set(f"{STOPPED}/{self._rank}", "")
            silent = {other: self._sign(other) for other in self._others}
            while silent and self._reason is None:
                for other, sign in list(silent.items()):
                    has_answered = self._store.check([f"{STOPPED}/{other}"]) or self._sign(other) != sign
                    if has_answered or sign in (b"", STOPPED.encode()):
                        del silent[other]
                time.sleep(SECONDS_BETWEEN_SIGNS / 10)
            return self._reason or self._failure()
        except RuntimeError:  # the store has gone with the rank that had it
            return self._reason

    def leave(self) -> None:
        """Stop; from now on nobody expects signs of life.

        Rank 0 may be the one that has the store: it waits for the others, but not for dead ones.
        """
        self._is_ended.set()
        self._thread.join()
        self._report_leaving()
        deadline = time.monotonic() + MAX_LEAVE_SECONDS
        num_expected = 1 + len(self._others) - self._has_one_died
        try:
            while self._rank == 0 and self._store.add(LEFT, 0) < num_expected and time.monotonic() < deadline:
                time.sleep(SECONDS_BETWEEN_SIGNS / 10)
        except RuntimeError:  # the store's process has exited
            return
        finally:
            self._has_left.set()

    def _report_leaving(self) -> None:
        try:
            self._store.set(self._sign_of(self._rank), STOPPED)
            self._store.add(LEFT, 1)
        except RuntimeError:
            return

    def _run(self) -> None:
        last_signs: dict[int, tuple[bytes, float]] = {}
        heard: float | None = None
        number = 0
        pause = SECONDS_BETWEEN_SIGNS
        while not self._is_ended.wait(pause):
            number += 1
            try:
                self._store.set(self._sign_of(self._rank), f"{number}")
                reason = self._failure() or self._silent(last_signs, heard)
                if heard is None and has_interrupt_arrived():
                    heard = time.monotonic()
                if heard is None and not self._is_stopping and self._store.check([INTERRUPTED]):
                    os.kill(os.getpid(), signal.SIGTERM)
            except RuntimeError:
                pause = SECONDS_BETWEEN_TRIES
                continue
            pause = SECONDS_BETWEEN_SIGNS
            self._num_contacts += 1
            if reason is not None:
                self._exit_process(reason)

    def _watch_store(self) -> None:
        """Exit when the store cannot be reached: a question to a machine that is silent may wait for ever in C.

        Counted are the seconds in which this thread could run: where another one keeps Python's lock, all stand still.
        """
        num_contacts, seconds = 0, 0.0
        while not self._has_left.wait(SECONDS_BETWEEN_SIGNS):
            seconds = 0.0 if self._num_contacts != num_contacts else seconds + SECONDS_BETWEEN_SIGNS
            num_contacts = self._num_contacts
            if seconds > _max_silence():
                address = ":".join(os.environ.get(name, "?") for name in ("MASTER_ADDR", "MASTER_PORT"))
                self._exit_process(f"the store at {address}, by which all find each other, cannot be reached any more")

    def _failure(self) -> str | None:
        return self._store.get(FAILURE).decode() if self._store.check([FAILURE]) else None

    def _silent(self, last_signs: dict[int, tuple[bytes, float]], heard: float | None) -> str | None:
        """The first of the others that has been silent for too long, if any.

        Args:
            last_signs: rank -> its last sign of life, and when that came; kept up here.
            heard: when this rank heard a signal, if it has.
        """
        now = time.monotonic()
        for other in self._others:
            sign = self._sign(other)
            before, since = last_signs.get(other, (b"", now))
            if sign != before or sign == STOPPED.encode():
                since = now
            last_signs[other] = (sign, since)
            if sign == b"" and now - since > MAX_START_SECONDS:
                reason = f"rank {other} has not started within {MAX_START_SECONDS / 60:.0f} min"
            elif sign == b"":
                continue
            elif now - since > MAX_SILENCE_SECONDS:
                reason = f"rank {other} gave no sign of life for {MAX_SILENCE_SECONDS:.0f} s: it or its machine died"
            elif heard is not None and now - max(since, heard) > SECONDS_TO_ANSWER:
                reason = f"rank {other} died; torchrun's report has the signal"
            else:
                continue
            self._has_one_died = True
            self._store.compare_set(FAILURE, "", reason)
            return reason
        return None

    def _exit_process(self, reason: str) -> None:
        """Exit, whatever the main thread is waiting for; files are whole or absent at any moment."""
        self._reason = reason
        # A main thread that has noticed by itself says so in its own words meanwhile.
        if self._is_ended.wait(SECONDS_BETWEEN_SIGNS):
            return
        print(f"error on rank {self._rank}: stopped, since {reason}", file=sys.__stderr__, flush=True)
        if threading.current_thread() is self._thread:  # else the store does not answer
            self._report_leaving()
        os._exit(FAILED_STATUS)

    def _sign(self, rank: int) -> bytes:
        key = self._sign_of(rank)
        return self._store.get(key) if self._store.check([key]) else b""

    @staticmethod
    def _sign_of(rank: int) -> str:
        return f"sign/{rank}"


def _max_silence() -> float:
    return SECONDS_TO_ANSWER if has_interrupt_arrived() else MAX_SILENCE_SECONDS
