"""The scripts started by torchrun itself: on two nodes, and again after a rank has died."""

import contextlib
import dataclasses
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from catheters.config.settings import Settings
from tests.conftest import REPOSITORY
from tests.hangs import wait_until
from tests.processes import outcome, train_with_ranks

pytestmark = pytest.mark.slow


class Torchrun:
    """A launch, with its output in a file."""

    def __init__(self, options: Sequence[str], script: Sequence[str | Path], output: Path) -> None:
        """Start it with a folder for temporary files of its own, as another machine has."""
        self.output = output
        temporary = output.with_suffix(".tmp")
        temporary.mkdir()
        command = [sys.executable, "-m", "torch.distributed.run", *options, *map(str, script)]
        environment = {**os.environ, "TMPDIR": str(temporary), "PYTHONPATH": str(REPOSITORY / "src")}
        with output.open("w") as stream:
            self.process = subprocess.Popen(
                command, stdout=stream, stderr=subprocess.STDOUT, cwd=REPOSITORY, env=environment
            )

    @property
    def text(self) -> str:
        """What it has printed."""
        return self.output.read_text()

    @property
    def ranks(self) -> list[int]:
        """The processes that it has started and that run; none when it is over."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [] if self.process.poll() is not None else [int(pid) for pid in children.read_text().split()]

    def wait(self) -> int:
        """Its exit status."""
        wait_until(lambda: self.process.poll() is not None, lambda: self.text)
        return self.process.returncode

    def end(self) -> None:
        """Whatever it does."""
        for pid in (*self.ranks, self.process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()


Launch = Callable[[Sequence[str], Sequence[str | Path]], Torchrun]


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Launch]:
    """Starts torchrun; nothing of it outlives the test."""
    launches: list[Torchrun] = []

    def start(options: Sequence[str], script: Sequence[str | Path]) -> Torchrun:
        launches.append(Torchrun(options, script, tmp_path / f"launch{len(launches)}"))
        return launches[-1]

    yield start
    for each in launches:
        each.end()


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@pytest.fixture
def plain(cached: Settings) -> Settings:
    """A fold of a few epochs."""
    return dataclasses.replace(cached, folds=(1,), epochs=4, cosine_epochs=9, early_stop=0, batch_size=4)


def test_two_nodes_with_local_disks(
    plain: Settings, write_config: Callable[[Settings], Path], tmp_path: Path, launch: Launch
) -> None:
    """The second one has a copy of the cache elsewhere, and no run folder: as two ranks of one machine."""
    together = dataclasses.replace(plain, run_name="together")
    train_with_ranks(together, tmp_path, 2)
    config = write_config(plain)
    copy, elsewhere = tmp_path / "copy", tmp_path / "elsewhere"
    shutil.copytree(plain.cache_folder, copy)
    endpoint = f"127.0.0.1:{free_port()}"
    of_all = ["--nnodes=2", "--nproc-per-node=1", "--rdzv-backend=c10d", f"--rdzv-endpoint={endpoint}"]
    local = [f"cache_folder={copy}", f"saved_models_folder={elsewhere}"]
    nodes = [
        launch([*of_all, f"--rdzv-conf=is_host={int(node == 0)}"], ["train.py", "--config", config, *overrides])
        for node, overrides in enumerate(([], local))
    ]
    assert [node.wait() for node in nodes] == [0, 0], nodes[0].text + nodes[1].text
    written = [folder for folder in (plain.run_folder, elsewhere / plain.run_folder.name) if folder.exists()]
    assert len(written) == 1, "whichever node has rank 0"
    assert outcome(written[0]) == outcome(together.run_folder)


def test_restarts_resume_by_themselves(
    plain: Settings, write_config: Callable[[Settings], Path], tmp_path: Path, launch: Launch
) -> None:
    """A rank is killed after an epoch; torchrun starts all again, and the bits are those of an undisturbed run.

    Also with --fresh, which was meant for the first start.
    """
    undisturbed = dataclasses.replace(plain, run_name="undisturbed", epochs=8)
    train_with_ranks(undisturbed, tmp_path, 2)
    config = write_config(dataclasses.replace(plain, epochs=8))
    for _ in range(5):  # where this process is so late that all is trained by then, once more
        of_two = launch(
            ["--standalone", "--nproc-per-node=2", "--max-restarts=1"], ["train.py", "--config", config, "--fresh"]
        )
        wait_until(lambda: "epoch 2/8" in of_two.text, lambda: of_two.text)  # noqa: B023
        ranks = of_two.ranks
        if ranks and (plain.run_folder / "fold1" / "last").exists() and "epoch 8/8" not in of_two.text:
            os.kill(ranks[1], signal.SIGKILL)
            break
        of_two.wait()
        shutil.rmtree(plain.run_folder)
    assert of_two.wait() == 0, of_two.text
    assert "fold 1: resumes from its snapshot, after epoch " in of_two.text
    assert outcome(plain.run_folder) == outcome(undisturbed.run_folder)
