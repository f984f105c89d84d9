"""What a check is: a function of the machine that gives an outcome, which is its row of the table.

A check says what it expects by `judge`, or gives a number. It raises `NotHere` where the machine lacks what it needs.
Whatever else it raises is a failure of its own row, and so is a process that dies or never ends.
"""

import dataclasses
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import torch

from acceptance.processes import Died, run_apart
from catheters.errors import one_line
from catheters.runtime.device import wait_for

T = TypeVar("T")

Status = Literal["pass", "fail", "number", "skipped"]
GB = 1e9


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a check found.

    Attributes:
        status: pass or fail; a number that nothing is expected of; skipped where it could not be done.
        found: what was measured, with its unit.
        note: what was expected, or why it failed or was skipped.
    """

    status: Status
    found: str = ""
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class CheckRow(Outcome):
    """The outcome of a check in the table.

    Attributes:
        name: of the check.
        title: what passes.
        seconds: what it took, with its process.
    """

    name: str
    title: str
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What the checks are given.

    Attributes:
        device: what is checked: a GPU, or with `is_dry` the CPU.
        is_dry: whether sizes are so small that the checks themselves are tried, and no GPU.
        num_gpus: that are seen.
        folder: what checks write, and share.
    """

    device: torch.device
    is_dry: bool
    num_gpus: int
    folder: Path

    def size(self, full: T, dry: T) -> T:
        """The size of what is done on a GPU, or of a dry run."""
        return dry if self.is_dry else full

    def need_memory(self, gigabytes: float) -> None:
        """Raise NotHere where so much of the GPU's memory is not free."""
        if self.device.type == "cuda":
            free = torch.cuda.mem_get_info(self.device)[0] / GB
            if free < gigabytes:
                raise NotHere(f"needs {gigabytes:.0f} GB of GPU memory, {free:.0f} GB are free")

    def of_gpu_alone(self, outcome: Outcome, why: str) -> Outcome:
        """The outcome of a GPU; on a CPU, which has no such thing, it says why it is none."""
        if self.device.type == "cuda" or outcome.status == "fail":
            return outcome
        on_cpu = f"; the CPU: {outcome.found}" if outcome.found else ""
        return Outcome(status="skipped", note=f"needs a GPU: {why}{on_cpu}")

    def most_memory(self) -> str:
        """The most memory of the GPU that this process had, in words; of a CPU nothing."""
        if self.device.type == "cpu":
            return ""
        wait_for(self.device)
        return f", {torch.cuda.max_memory_allocated(self.device) / GB:.1f} GB at most"


Check = Callable[[Machine], Outcome]


class NotHere(Exception):
    """This machine lacks what a check needs; the message is the reason."""


def judge(is_right: bool, found: str, expected: str) -> Outcome:
    """Pass or fail, with what was found and what is expected."""
    return Outcome(status="pass" if is_right else "fail", found=found, note=expected)


def run_check(check: Check, machine: Machine, log: Path, limit_s: float) -> Outcome:
    """The outcome of a check in a process of its own, which nothing of it outlives.

    Args:
        check: the function.
        machine: what it is given.
        log: gets what it prints.
        limit_s: seconds after which it is stopped.
    """
    try:
        outcome = run_apart(lambda: _outcome(check, machine), log, limit_s)
    except Died as error:
        return Outcome(status="fail", note=str(error))
    return dataclasses.replace(outcome, found=one_line_of(outcome.found), note=one_line_of(outcome.note))


def _outcome(check: Check, machine: Machine) -> Outcome:
    try:
        return check(machine)
    except NotHere as reason:
        return Outcome(status="skipped", note=str(reason))
    except Exception as error:
        traceback.print_exc()
        return Outcome(status="fail", note=f"{type(error).__name__}: {one_line(error)}")


def one_line_of(text: str) -> str:
    """Without line breaks."""
    return " ".join(text.split())
