"""What becomes of the others when a rank dies, fails, hangs or never comes: all end, and say why."""

import os
import signal
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from catheters.runtime import distributed, process_monitor
from catheters.runtime.distributed import TorchrunProcesses, joined_torchrun
from catheters.runtime.interrupts import Interrupted, deferred_interrupts
from tests.hangs import wait_until
from tests.processes import Command, environments_of_ranks, run_in_forks

Work = Callable[[TorchrunProcesses], None]


def start(tmp_path: Path, work: Work, **seconds: float) -> list[Command]:
    """Two ranks that join and do some work, with other time limits of the monitor's."""

    def command(_: list[str]) -> int:
        for name, value in seconds.items():
            setattr(process_monitor, name, value)
        with joined_torchrun() as torchrun:
            work(torchrun)
        return 0

    environments = enumerate(environments_of_ranks(2))
    return [Command(command, tmp_path / f"out{rank}", environment) for rank, environment in environments]


def test_a_rank_that_dies_before_the_others_reach_it(tmp_path: Path) -> None:
    """They wait for it in C, where the main thread hears no signal; torchrun's says that one has died."""

    def work(torchrun: TorchrunProcesses) -> None:
        torchrun.barrier()
        if torchrun.rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        with deferred_interrupts():
            print("waits", flush=True)
            with distributed.process_group(torchrun, torch.device("cpu")):
                pass

    first, second = start(tmp_path, work, SECONDS_TO_ANSWER=5.0)
    assert second.wait() == -signal.SIGKILL
    wait_until(lambda: "waits" in first.text, lambda: first.text)
    first.signal(signal.SIGTERM)
    assert first.wait() == 1
    said = "error on rank 0: stopped, since rank 1 died; torchrun's report has the signal"
    assert first.text.splitlines() == ["waits", said]


def test_a_rank_that_never_starts(tmp_path: Path) -> None:
    """As where its command fails before it joins, on another machine."""

    def command(arguments: list[str]) -> int:
        process_monitor.MAX_START_SECONDS = 3.0
        distributed._find_ranks()  # of torchrun's store, which takes any rank that comes
        if os.environ["RANK"] == "1":
            time.sleep(3600)
        with joined_torchrun() as torchrun:
            torchrun.barrier()
        return 0

    first, second = (
        Command(command, tmp_path / f"out{rank}", environment)
        for rank, environment in enumerate(environments_of_ranks(2))
    )
    try:
        assert first.wait() == 1
        assert first.text == "error on rank 0: stopped, since rank 1 has not started within 0 min\n"
    finally:
        second.signal(signal.SIGKILL)
        second.wait()


def test_an_exchange_that_fails_while_all_are_alive(tmp_path: Path) -> None:
    """Nobody is silent then: the others hear of it from the one that noticed."""

    def work(torchrun: TorchrunProcesses) -> None:
        if torchrun.rank == 1:
            raise RuntimeError("NCCL error in: unhandled cuda error")
        torchrun.barrier()

    first, second = start(tmp_path, work, MAX_SILENCE_SECONDS=8.0)
    unreached = "another rank could not be reached (NCCL error in: unhandled cuda error)"
    assert second.wait() == 2
    assert second.text == f"error on rank 1: stopped, since {unreached}\n"
    assert first.wait() == 1
    assert first.text.startswith("error on rank 0: stopped, since rank 1 (")
    assert first.text.endswith(f") failed: {unreached}\n")


def test_a_loss_of_ones_own_is_no_exchange(tmp_path: Path) -> None:
    """Its error keeps its traceback, and is told at once."""

    def work(torchrun: TorchrunProcesses) -> None:
        if torchrun.rank == 1:
            raise RuntimeError("the skip connection has another shape")
        torchrun.barrier()

    first, second = start(tmp_path, work)
    assert second.wait() == 1
    assert second.text.endswith("RuntimeError: the skip connection has another shape\n")
    assert first.wait() == 1
    assert first.text.endswith("failed: RuntimeError\n")


def test_the_machine_of_the_store_falls_silent(tmp_path: Path) -> None:
    """Questions to it then wait in C, those of the monitor too."""

    def work(torchrun: TorchrunProcesses) -> None:
        torchrun.barrier()
        print("joined", flush=True)
        torchrun.gather("what never comes", "") if torchrun.rank else time.sleep(3600)

    first, second = start(tmp_path, work, MAX_SILENCE_SECONDS=8.0)
    wait_until(lambda: "joined" in first.text and "joined" in second.text, lambda: first.text + second.text)
    first.signal(signal.SIGSTOP)
    try:
        assert second.wait() == 1
        said = second.text.splitlines()[-1]
        assert said.startswith("error on rank 1: stopped, since the store at 127.0.0.1:")
        assert said.endswith(", by which all find each other, cannot be reached any more")
    finally:
        first.signal(signal.SIGKILL)
        first.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_what_was_saved_is_said_whatever_comes_meanwhile(tmp_path: Path, number: signal.Signals) -> None:
    """One rank is signalled, later, again and again; both have agreed to stop for it."""

    def work(torchrun: TorchrunProcesses) -> None:
        if torchrun.rank == 1:
            threading.Timer(0.7, os.kill, (os.getpid(), number)).start()
            threading.Timer(0.8, os.kill, (os.getpid(), signal.SIGTERM)).start()
        torchrun.barrier()
        raise Interrupted("saved", number)

    ranks = start(tmp_path, work)
    assert [rank.wait() for rank in ranks] == [128 + number] * 2
    assert [rank.text for rank in ranks] == [f"\nstopped by {number.name}: saved\n"] * 2


def test_exchanges_are_let_go_of_by_the_main_thread() -> None:
    """Not by gloo's, which would take Python's locks at any moment, as while a DataLoader worker is forked."""

    def work() -> None:
        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
        processes = distributed.Processes(0, 2)  # as if of two: nothing is sent otherwise
        threads: list[int] = []
        for _ in range(64):
            tensor = torch.ones(4)
            weakref.finalize(tensor, lambda: threads.append(threading.get_ident()))
            processes.mean(tensor)
            del tensor
        assert threads == []
        del processes
        assert threads.count(threading.get_ident()) >= 60  # gloo's threads may still have the last ones
        dist.destroy_process_group()

    run_in_forks([work])
