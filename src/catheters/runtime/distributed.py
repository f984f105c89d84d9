"""The ranks that torchrun starts: they train one model together (data parallel), or share out folds or images.

Each rank has a share of every global batch. torch.distributed combines what they compute, over NCCL between GPUs and
gloo between CPUs. Small things (who has failed, which fold is free) go through torchrun's key-value store.
"""

import collections
import contextlib
import functools
import itertools
import json
import os
import pickle
import re
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from catheters.errors import UserError, one_line
from catheters.runtime.host import num_processes, num_restarts
from catheters.runtime.interrupts import Interrupted, begin_to_stop, raise_if_interrupted
from catheters.runtime.process_monitor import ProcessMonitor

T = TypeVar("T")

_numbers = itertools.count()
COMMUNICATION = re.compile(r"gloo|NCCL|Connection (closed|reset|refused)|Broken pipe|Socket Timeout")
"""What torch.distributed's errors say that are no `DistError`."""
EXCHANGES_KEPT = 64
"""More than gloo's threads, of which each still holds its last one, can have."""
MAX_WAIT = timedelta(hours=1)
"""How long a rank waits for what another one has to send. If that one has died, the monitor says so within a minute."""
MAX_WAIT_FOR_STORE = timedelta(minutes=5)
"""How long it looks for the store: torchrun has it before it starts a rank."""
SECONDS_BETWEEN_LOOKS = 0.5
SECONDS_BETWEEN_CHECKS = 0.02


class Processes:
    """The ranks that train one model together, as one of them sees them; with world size 1 nothing is sent."""

    def __init__(self, rank: int = 0, count: int = 1) -> None:
        """Be `rank`, from 0, of `count` processes (the world size), whose process group exists if there are several."""
        self.rank = rank
        self.count = count
        self._exchanges: collections.deque[dist.Work] = collections.deque(maxlen=EXCHANGES_KEPT)

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0, which writes files and prints."""
        return self.rank == 0

    def mean(self, values: Tensor) -> Tensor:
        """The mean of each value over the ranks, in place where there are several."""
        if self.count > 1:
            self._wait_for(dist.all_reduce(values, async_op=True))
            values /= self.count
        return values

    def highest(self, number: int) -> int:
        """The highest of the numbers that the ranks give; all of them have to call it."""
        if self.count == 1:
            return number
        value = torch.tensor(number)
        self._wait_for(dist.all_reduce(value, dist.ReduceOp.MAX, async_op=True))
        return int(value)

    def gather_rows(self, rows: Tensor, counts: Sequence[int]) -> Tensor:
        """The rows of all ranks, in the order of the ranks.

        Args:
            rows: (counts[rank], K), this rank's.
            counts: how many rows each rank has.

        Returns:
            (sum of counts, K) on every rank.
        """
        if self.count == 1:
            return rows
        padded = rows.new_zeros((max(counts), *rows.shape[1:]))
        padded[: len(rows)] = rows
        gathered = [torch.empty_like(padded) for _ in counts]
        self._wait_for(dist.all_gather(gathered, padded, async_op=True))
        return torch.cat([part[:count] for part, count in zip(gathered, counts, strict=True)])

    def broadcast(self, value: T) -> T:
        """Rank 0's value, on every rank."""
        if self.count == 1:
            return value
        sent = pickle.dumps(value) if self.is_first else b""
        size = torch.tensor(len(sent))
        self._wait_for(dist.broadcast(size, 0, async_op=True))
        data = torch.zeros(int(size), dtype=torch.uint8)
        if self.is_first:
            data.numpy()[:] = np.frombuffer(sent, dtype=np.uint8)
        self._wait_for(dist.broadcast(data, 0, async_op=True))
        received: T = pickle.loads(data.numpy().tobytes())
        data.data = data.new_empty(0)  # the exchange, which is kept, would keep a whole snapshot
        return received

    def share_buffers(self, model: nn.Module) -> None:
        """Give rank 0's buffers to all: batch norm's running statistics follow the batches that a rank has seen."""
        if self.count > 1:
            for buffer in model.buffers():
                self._wait_for(dist.broadcast(buffer, 0, async_op=True))

    def _wait_for(self, exchange: dist.Work | None) -> None:
        """Wait, and keep it for a while, so that it is this thread that lets go of its tensors.

        gloo's threads would do so at any moment, and with Python's lock over the list of threads. A DataLoader worker
        that is forked meanwhile waits for that lock for ever (github.com/python/cpython/issues/112275, until 3.11.9).
        """
        assert exchange is not None
        self._exchanges.append(exchange)
        exchange.wait()


ALONE = Processes()
"""World size 1: one process that trains by itself."""


class TorchrunProcesses:
    """All ranks that torchrun has started, whatever they share out."""

    def __init__(self, rank: int, count: int, store: Store | None) -> None:
        """Be `rank`, from 0, of `count` processes (world size) that share a store; None where there is one process."""
        self.rank = rank
        self.count = count
        self.store = store
        self._num_barriers = 0

    def take(self, name: str) -> int:
        """The next number, from 0, of a counter; no two ranks are given the same."""
        assert self.store is not None
        return int(self.store.add(f"counter/{name}", 1)) - 1

    def share(self, name: str, value: T) -> T:
        """Rank 0's value, on every rank; it has to be plain data."""
        if self.store is None:
            return value
        if self.rank == 0:
            self.store.set(f"shared/{name}", json.dumps(value))
            return value
        shared: T = json.loads(self._wait_for(f"shared/{name}"))
        return shared

    def gather(self, name: str, value: str) -> list[str]:
        """The values of all ranks, on every rank, in their order."""
        if self.store is None:
            return [value]
        self.store.set(f"gathered/{name}/{self.rank}", value)
        return [self._wait_for(f"gathered/{name}/{rank}").decode() for rank in range(self.count)]

    def _wait_for(self, key: str) -> bytes:
        """What another rank sets, however long it takes; a signal is heard meanwhile."""
        assert self.store is not None
        while not self.store.check([key]):
            raise_if_interrupted()
            time.sleep(SECONDS_BETWEEN_CHECKS)
        value: bytes = self.store.get(key)
        return value

    def check_alike(self, what: str, facts: Mapping[str, object]) -> None:
        """Refuse ranks of which one has other settings, data or versions than rank 0.

        Args:
            what: the facts are of.
            facts: name -> plain data.

        Raises:
            UserError: names the first rank and fact that differ.
        """
        if self.store is None:
            return
        of_ranks = [json.loads(text) for text in self.gather(what, json.dumps({"host": socket.gethostname(), **facts}))]
        for rank, theirs in enumerate(of_ranks):
            for name in facts:
                if theirs[name] != of_ranks[0][name]:
                    raise UserError(
                        f"rank {rank} ({theirs['host']}) has another {what} than rank 0 ({of_ranks[0]['host']}): "
                        f"{name} is {theirs[name]!r} on rank {rank}, {of_ranks[0][name]!r} on rank 0; start the same "
                        "command with the same files on all machines"
                    )

    def barrier(self) -> None:
        """Wait for all ranks, however long it takes; the monitor stops those that wait for a dead one."""
        if self.store is None:
            return
        self._num_barriers += 1
        key = f"barrier/{self._num_barriers}"
        self.store.add(key, 1)
        while self.store.add(key, 0) < self.count:
            time.sleep(SECONDS_BETWEEN_LOOKS)
            raise_if_interrupted()


WITHOUT_TORCHRUN = TorchrunProcesses(0, 1, None)
"""One process that works by itself."""


@contextlib.contextmanager
def joined_torchrun() -> Iterator[TorchrunProcesses]:
    """Join the ranks that torchrun has started; world size 1 where it was not started so.

    Raises:
        UserError: torchrun's store is not there, or the work in here failed because another rank had failed; names it
            and its reason.
    """
    if num_processes() == 1:
        yield WITHOUT_TORCHRUN
        return
    store, rank, count = _find_ranks()
    number = next(_numbers)  # another training of these ranks has other keys in the same store
    monitor = ProcessMonitor(PrefixStore(f"monitor{number}", store), rank, count)
    torchrun = TorchrunProcesses(rank, count, PrefixStore(f"torchrun{number}", store))
    try:
        yield torchrun
        torchrun.barrier()  # nobody leaves while others may still need what it serves
    except KeyboardInterrupt as interrupt:
        begin_to_stop()
        monitor.pass_on_interrupt()
        reason = monitor.reason_of_signal()
        if reason is None:
            raise
        raise UserError(f"stopped, since {reason}{f'; {interrupt}' if str(interrupt) else ''}") from None
    except BaseException as error:
        if isinstance(error, RuntimeError) and _is_of_communication(error):
            begin_to_stop()
            reason = monitor.wait_for_reason()
            if reason is None:  # all of them are alive
                reason = f"another rank could not be reached ({one_line(error)})"
                monitor.report(reason)
            raise UserError(f"stopped, since {reason}") from None
        monitor.report(f"{one_line(error)}" if isinstance(error, UserError) else type(error).__name__)
        raise
    finally:
        monitor.leave()


@functools.cache
def _find_ranks() -> tuple[Store, int, int]:
    """The store that all ranks share, this rank and the world size.

    What init_process_group does by itself; done here because the store has other uses as well. Once for a process:
    where rank 0 has the store, the others may look for it again, for another training, before rank 0 lets go of it.
    """
    try:
        store, rank, count = next(iter(rendezvous("env://", timeout=MAX_WAIT_FOR_STORE)))
    except (RuntimeError, ValueError) as error:
        address = ":".join(os.environ.get(name, "?") for name in ("MASTER_ADDR", "MASTER_PORT"))
        raise UserError(
            f"the store of torchrun at {address} cannot be reached ({one_line(error)}); start all ranks by torchrun, "
            "or unset RANK"
        ) from None
    store.set_timeout(MAX_WAIT)
    # torchrun may keep its store when it starts all ranks again: what the ones before have written is not for these.
    return PrefixStore(f"start{num_restarts()}_of_{count}", store), rank, count


@contextlib.contextmanager
def process_group(torchrun: TorchrunProcesses, device: torch.device) -> Iterator[Processes]:
    """The ranks of torchrun as those that train one model together."""
    if torchrun.count == 1:
        yield ALONE
        return
    assert torchrun.store is not None
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
        store=PrefixStore("training", torchrun.store),
        rank=torchrun.rank,
        world_size=torchrun.count,
        timeout=MAX_WAIT,
    )
    try:
        yield Processes(torchrun.rank, torchrun.count)
    except Interrupted:
        dist.destroy_process_group()
        raise
    # After a failure it would wait for ranks that are stuck; this one exits, and the monitor tells the others why.
    dist.destroy_process_group()


def _is_of_communication(error: RuntimeError) -> bool:
    """Whether torch.distributed says that it could not reach another process."""
    return isinstance(error, dist.DistError) or COMMUNICATION.search(str(error)) is not None
