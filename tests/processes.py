"""Training in a process of its own, to be signalled, starved or killed: forked, so that it need not import anything."""

import contextlib
import functools
import io
import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ParamSpec

import torch
from tqdm import tqdm

from catheters.commands.command_line import run_command
from catheters.config.settings import Settings
from catheters.runs.stages import train_in_stages
from catheters.training.manager import AnyExtension
from tests import hangs

P = ParamSpec("P")


class Command:
    """A forked process that runs a command, with its output in a file."""

    def __init__(
        self,
        command: Callable[[list[str]], int],
        output: Path,
        environment: dict[str, str] | None = None,
        *,
        in_group: bool = False,
    ) -> None:
        """Start it; `environment` is added to the process's own. With `in_group`, it leads a group of processes."""
        self.output = output
        self.pid = os.fork()
        if self.pid == 0:
            self._run(command, environment or {}, in_group=in_group)
        if in_group:
            with contextlib.suppress(PermissionError):  # it has done so itself
                os.setpgid(self.pid, self.pid)

    def _run(self, command: Callable[[list[str]], int], environment: dict[str, str], *, in_group: bool) -> None:
        status: Any = 1
        if in_group:
            os.setpgid(0, 0)
        try:
            os.environ.update(environment)
            tqdm.set_lock(threading.RLock())  # the lock it is born with is the tests' own too, and would die with it
            descriptor = os.open(self.output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(descriptor, 1)
            os.dup2(descriptor, 2)
            sys.stdout, sys.stderr = (io.TextIOWrapper(os.fdopen(number, "wb", 0)) for number in (1, 2))
            sys.__stderr__ = sys.stderr
            sys.stderr.reconfigure(line_buffering=True)
            run_command(command)
        except SystemExit as end:
            status = end.code
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    @property
    def text(self) -> str:
        """What it has printed."""
        return self.output.read_text() if self.output.exists() else ""

    def poll(self) -> int | None:
        """Its exit status, negative for the signal that killed it; None while it runs."""
        exited, status = os.waitpid(self.pid, os.WNOHANG)
        return os.waitstatus_to_exitcode(status) if exited else None

    def wait(self) -> int:
        """Its exit status, once it has exited."""
        status: int | None = None

        def has_exited() -> bool:
            nonlocal status
            status = self.poll()
            return status is not None

        try:
            hangs.wait_until(has_exited, lambda: self.text)
        except AssertionError:
            self.signal(signal.SIGKILL)
            os.waitpid(self.pid, 0)
            raise
        assert status is not None
        return status

    def signal(self, number: int) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL, while it runs."""
        self.signal(signal.SIGKILL)
        assert self.wait() == -signal.SIGKILL, self.text


class Training(Command):
    """A forked process that trains by `settings`, with its output in a file."""

    def __init__(
        self,
        settings: Settings,
        output: Path,
        environment: dict[str, str] | None = None,
        extensions: Sequence[AnyExtension] = (),
        *,
        fresh: bool = False,
    ) -> None:
        """Start it; `environment` is added to the process's own, `extensions` to the training's."""
        super().__init__(
            lambda arguments: train_in_stages(settings, fresh=fresh, extensions=extensions) or 0, output, environment
        )


def wait_until(is_so: Callable[[], bool], training: Command) -> None:
    """Look again and again; a training that exits first fails the test, with what it printed."""

    def is_so_now() -> bool:
        if is_so():
            return True
        assert training.poll() is None, f"it exited before:\n{training.text}"
        return False

    hangs.wait_until(is_so_now, lambda: training.text)


def num_snapshots(folder: Path) -> int:
    """The number of the newest snapshot in a model's folder."""
    names = [path.name for path in (folder / "last").glob("*") if path.name.isdecimal()]
    return max(map(int, names), default=0)


def outcome(run_folder: Path) -> dict[str, Any]:
    """The results of a run, but for what a clock measured."""
    content: dict[str, Any] = {}
    for file in sorted(run_folder.rglob("*")):
        name = str(file.relative_to(run_folder))
        if "last/" in name:
            continue
        if file.suffix == ".pt":
            checkpoint = torch.load(file, weights_only=True)
            content[name] = {key: value.numpy().tobytes() for key, value in checkpoint["model"].items()}
            content[f"{name} score"] = (checkpoint["epoch"], checkpoint.get("macro_auc"))
        elif file.name == "log.jsonl":
            content[name] = [{**json.loads(line), "speed": None} for line in file.read_text().splitlines()]
        elif file.suffix == ".csv":
            content[name] = file.read_bytes()
    return content


def environments_of_ranks(count: int) -> list[dict[str, str]]:
    """The environments that torchrun would give to so many ranks of this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return [
        {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(count),
            "LOCAL_WORLD_SIZE": str(count),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }
        for rank in range(count)
    ]


def run_in_fork(work: Callable[[], object]) -> None:
    """Do in a process of its own what starts autograd's threads, after which no process that learns can be forked."""
    run_in_forks([work])


def in_fork(test: Callable[P, object]) -> Callable[P, None]:
    """A test that is done in a process of its own, see `run_in_fork`."""

    @functools.wraps(test)
    def run(*arguments: P.args, **named: P.kwargs) -> None:
        run_in_fork(lambda: test(*arguments, **named))

    return run


def run_in_forks(works: Sequence[Callable[[], object]]) -> None:
    """Do each work in a process of its own, at the same time; all have to succeed."""
    pids = []
    for work in works:
        pids.append(os.fork())
        if pids[-1] == 0:
            status = 1
            try:
                work()
                status = 0
            except BaseException:
                import traceback

                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(status)
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids] == [0] * len(works)


def start_ranks(settings: Settings, folder: Path, count: int, *, fresh: bool = False) -> list[Training]:
    """So many ranks of one run, each with its output in `out<rank>`."""
    return [
        Training(settings, folder / f"out{rank}", environment, fresh=fresh)
        for rank, environment in enumerate(environments_of_ranks(count))
    ]


def train_with_ranks(settings: Settings, folder: Path, count: int, *, fresh: bool = False) -> None:
    """Train with so many ranks until all have finished with status 0."""
    trainings = start_ranks(settings, folder, count, fresh=fresh)
    statuses = [training.wait() for training in trainings]
    assert statuses == [0] * count, "\n".join(training.text for training in trainings)
