"""Several processes, on one machine or several, that train one model or a fold each; torchrun starts them.

Each process has a part of every batch. What they compute is put together by torch.distributed, over NCCL between GPUs
and gloo between CPUs. Small things (who has failed, which fold is free) go through torchrun's key-value store.
"""

import contextlib
import itertools
import json
import time
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from catheters.errors import UserError, one_line
from catheters.runtime.host import num_processes
from catheters.runtime.interrupts import Interrupted, raise_if_interrupted
from catheters.runtime.process_monitor import Watch

T = TypeVar("T")

_numbers = itertools.count()
MAX_WAIT = timedelta(hours=1)
"""How long a process waits for what another one has to send. That one has died, the watch says within a minute."""
SECONDS_BETWEEN_LOOKS = 0.5


class Processes:
    """The processes that train one model together, as one of them sees it; one alone has nobody to talk to."""

    def __init__(self, rank: int = 0, count: int = 1) -> None:
        """Be number `rank`, from 0, of `count` processes, whose process group stands if there are several."""
        self.rank = rank
        self.count = count

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes files and talks to the user."""
        return self.rank == 0

    def mean(self, values: Tensor) -> Tensor:
        """The mean of each value over the processes, in place where there are several."""
        if self.count > 1:
            dist.all_reduce(values)
            values /= self.count
        return values

    def highest(self, number: int) -> int:
        """The highest of the numbers that the processes give; all of them have to ask."""
        if self.count == 1:
            return number
        value = torch.tensor(number)
        dist.all_reduce(value, dist.ReduceOp.MAX)
        return int(value)

    def gather_rows(self, rows: Tensor, counts: Sequence[int]) -> Tensor:
        """The rows of all processes, in the order of the processes.

        Args:
            rows: (counts[rank], K), this process's.
            counts: how many rows each process has.

        Returns:
            (sum of counts, K) on every process.
        """
        if self.count == 1:
            return rows
        padded = rows.new_zeros((max(counts), *rows.shape[1:]))
        padded[: len(rows)] = rows
        gathered = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(gathered, padded)
        return torch.cat([part[:count] for part, count in zip(gathered, counts, strict=True)])

    def broadcast(self, value: T) -> T:
        """The first process's value, on every process."""
        if self.count == 1:
            return value
        values: list[Any] = [value if self.is_first else None]
        dist.broadcast_object_list(values, device=torch.device("cpu"))
        received: T = values[0]
        return received

    def share_buffers(self, model: nn.Module) -> None:
        """Give the first process's buffers to all: batch norm's averages follow the batches that a process has seen."""
        if self.count > 1:
            for buffer in model.buffers():
                dist.broadcast(buffer, 0)


ALONE = Processes()
"""One process that trains by itself."""


class Team:
    """All processes that torchrun has started, whether they train one model together or a fold each."""

    def __init__(self, rank: int, count: int, store: Store | None) -> None:
        """Be number `rank`, from 0, of `count` processes that share a store; None where there is one process."""
        self.rank = rank
        self.count = count
        self.store = store
        self._num_meetings = 0

    def take(self, name: str) -> int:
        """The next number, from 0, of a counter; no two processes are given the same."""
        assert self.store is not None
        return int(self.store.add(f"counter/{name}", 1)) - 1

    def share(self, name: str, value: T) -> T:
        """The first process's value, on every process; it has to be plain data."""
        if self.store is None:
            return value
        if self.rank == 0:
            self.store.set(f"shared/{name}", json.dumps(value))
            return value
        shared: T = json.loads(self.store.get(f"shared/{name}"))
        return shared

    def gather(self, name: str, value: str) -> list[str]:
        """What each process gives, on every process, in the order of the ranks."""
        if self.store is None:
            return [value]
        self.store.set(f"gathered/{name}/{self.rank}", value)
        return [self.store.get(f"gathered/{name}/{rank}").decode() for rank in range(self.count)]

    def meet(self) -> None:
        """Wait for all processes, however long it takes; the watch ends those that wait for a dead one."""
        if self.store is None:
            return
        self._num_meetings += 1
        key = f"meeting/{self._num_meetings}"
        self.store.add(key, 1)
        while self.store.add(key, 0) < self.count:
            time.sleep(SECONDS_BETWEEN_LOOKS)
            raise_if_interrupted()


@contextlib.contextmanager
def joined_team() -> Iterator[Team]:
    """Join the processes that torchrun has started; this one alone where it was not started so.

    Raises:
        UserError: the work in here ended because another process had failed; names it and its reason.
    """
    if num_processes() == 1:
        yield Team(0, 1, None)
        return
    # What init_process_group does by itself; done here because the store has other uses as well.
    store, rank, count = next(iter(rendezvous("env://", timeout=MAX_WAIT)))
    number = next(_numbers)  # another training of these processes has other words in the same store
    watch = Watch(PrefixStore(f"watch{number}", store), rank, count)
    team = Team(rank, count, PrefixStore(f"team{number}", store))
    try:
        yield team
        team.meet()  # nobody leaves while others may still need what it serves
    except KeyboardInterrupt:
        watch.pass_on_interrupt()
        raise
    except BaseException as error:
        if isinstance(error, RuntimeError) and _is_of_communication(error):
            raise UserError(f"ended, since {_reason_of_silence(watch)} ({one_line(error)})") from None
        watch.report(f"{one_line(error)}" if isinstance(error, UserError) else type(error).__name__)
        raise
    finally:
        watch.leave()


@contextlib.contextmanager
def process_group(team: Team, device: torch.device) -> Iterator[Processes]:
    """The team as processes that train one model together."""
    if team.count == 1:
        yield ALONE
        return
    assert team.store is not None
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
        store=PrefixStore("training", team.store),
        rank=team.rank,
        world_size=team.count,
        timeout=MAX_WAIT,
    )
    try:
        yield Processes(team.rank, team.count)
    except Interrupted:
        dist.destroy_process_group()
        raise
    # After a failure it would wait for processes that are stuck; this one ends, and the watch tells the others why.
    dist.destroy_process_group()


def _reason_of_silence(watch: Watch) -> str:
    """Why another process cannot be reached."""
    try:
        return watch.wait_for_reason()
    except KeyboardInterrupt:  # torchrun has noticed first, and ends them all
        return "another process died; torchrun's report names it"


def _is_of_communication(error: RuntimeError) -> bool:
    """Whether torch.distributed says that it could not reach another process."""
    return isinstance(error, dist.DistError) or any(
        word in str(error) for word in ("gloo", "Connection", "connection", "NCCL")
    )
