"""DataLoader workers: of every start method, kept or not, that die, fail, or hold too much."""

import contextlib
import hashlib
import multiprocessing
import pickle
import subprocess
import sys
from itertools import chain
from pathlib import Path

import pytest
import torch

from catheters.config.settings import Settings
from catheters.data.batch import Batch
from catheters.data.loader import EpochBatches, EpochLoader, Loader, WorkerDied, create_loader
from tests.data.test_loader import CPU, samples
from tests.hangs import run_watched

KEPT_MEMORY = """
import torch
from torch.utils.data import DataLoader
from catheters.data.batch import Batch
from catheters.data.loader import _start_worker
from catheters.runtime.host import keep_freed_memory, resident_memory

class Memory(torch.utils.data.Dataset):
    def __len__(self):
        return 1

    def __getitem__(self, position):
        return resident_memory()

keep_freed_memory(1 << 30)
before = resident_memory()
blocks = [bytearray(b"x") * (4 << 20) for _ in range(75)]
del blocks
kept = resident_memory() - before
assert kept > 290 << 20, kept
(held,) = DataLoader(Memory(), num_workers=1, worker_init_fn=_start_worker)
assert held.item() - before < 50 << 20, held.item() - before
"""


@pytest.mark.slow
def test_loading_processes_do_not_hold_what_a_step_has_freed() -> None:
    """The training process keeps it for the next step; a DataLoader worker, forked from it, would hold it once more."""
    subprocess.run([sys.executable, "-c", KEPT_MEMORY], check=True)


@pytest.mark.slow
def test_a_dataloader_worker_that_dies(cached: Settings) -> None:
    """It is said where its batch is asked for: torch's handler would raise at once, wherever the process is."""
    data = samples(cached, list(range(40)))
    others = set(multiprocessing.active_children())
    batches = iter(create_loader(data, EpochBatches(len(data), 4, cached.seed), 2, CPU))
    next(batches)
    process = min(set(multiprocessing.active_children()) - others, key=lambda process: process.pid or 0)
    process.kill()
    process.join()
    with pytest.raises(WorkerDied, match=r"^SIGKILL$"):
        list(batches)


@pytest.mark.slow
def test_a_worker_that_dies_between_two_passes(cached: Settings) -> None:
    """Kept ones, as of forkserver and spawn, are asked for at the next pass."""
    data = samples(cached, list(range(40)))
    batches = EpochBatches(len(data), 8, cached.seed)
    with contextlib.closing(Loader(data, batch_sampler=batches, num_workers=2, persistent_workers=True)) as kept:
        others = set(multiprocessing.active_children())
        list(kept)
        process = min(set(multiprocessing.active_children()) - others, key=lambda process: process.pid or 0)
        process.kill()
        process.join()
        with pytest.raises(WorkerDied, match=r"^SIGKILL$"):
            list(kept)


STARTED = """
import contextlib
import hashlib
import multiprocessing
import os
import pickle
import signal
import sys

import torch

from catheters.data.batch import Batch
from catheters.data.loader import EpochBatches, create_loader
from catheters.runtime.interrupts import deferred_interrupts, interrupt_signal, note_interrupts

if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])
    note_interrupts()
    samples = pickle.load(sys.stdin.buffer)
    digest, workers = hashlib.sha256(), set()
    batches = EpochBatches(len(samples), 8, 0)
    with contextlib.suppress(KeyboardInterrupt), deferred_interrupts():
        with contextlib.closing(create_loader(samples, batches, 2, torch.device("cpu"))) as loader:
            for epoch in range(3):
                loaded = iter(loader)
                workers |= {process.pid for process in multiprocessing.active_children()}
                if epoch == 0:
                    os.killpg(0, signal.SIGTERM)  # as a scheduler does, while they import torch
                for batch in loaded:
                    digest.update(batch.images.numpy().tobytes() + batch.targets.numpy().tobytes())
        print(digest.hexdigest(), len(workers), len(multiprocessing.active_children()), interrupt_signal())
"""


@pytest.mark.slow
@pytest.mark.parametrize(("start_method", "num_started"), [("fork", 6), ("forkserver", 2), ("spawn", 2)])
def test_workers_of_every_start_method(cached: Settings, tmp_path: Path, start_method: str, num_started: int) -> None:
    """They give the same batches, are started once where that takes seconds, and outlive a signal to all of them."""
    script = tmp_path / "started.py"
    script.write_text(STARTED)
    data = samples(cached, list(range(40)))
    expected = hashlib.sha256()
    loader = create_loader(data, EpochBatches(len(data), 8, 0), 0, CPU)
    for batch in chain(loader, loader, loader):
        expected.update(batch.images.numpy().tobytes() + batch.targets.numpy().tobytes())
    done = subprocess.run(
        [sys.executable, script, start_method],
        input=pickle.dumps(data),
        capture_output=True,
        start_new_session=True,
        check=False,
    )
    assert done.stdout.decode() == f"{expected.hexdigest()} {num_started} 0 15\n"
    assert (done.stderr, done.returncode) == (b"", 0)


PRELOADED = """
import contextlib
import multiprocessing
import os
from pathlib import Path

import torch

from catheters.data.loader import BatchesInOrder, create_loader

class Parents:
    def __getitem__(self, key):
        has_torch = torch.tensor("libtorch" in Path(f"/proc/{os.getppid()}/maps").read_text())
        return {"images": has_torch, "targets": has_torch}

if __name__ == "__main__":
    multiprocessing.set_start_method("forkserver")
    with contextlib.closing(create_loader(Parents(), BatchesInOrder(2, 1), 1, torch.device("cpu"))) as loader:
        print([batch.targets.item() for batch in loader])
"""


@pytest.mark.slow
def test_a_forkserver_imports_torch_once_for_all_workers(tmp_path: Path) -> None:
    """What they are forked from has it: each of them would else spend seconds on it."""
    script = tmp_path / "preloaded.py"
    script.write_text(PRELOADED)
    done = run_watched([sys.executable, script])
    assert (done.stdout, done.stderr) == ("[True, True]\n", "")


@pytest.mark.slow
def test_workers_that_are_kept_go_to_another_place(cached: Settings) -> None:
    """What they have loaded already is not what is asked for then."""
    data = samples(cached, list(range(40)))
    batches = EpochBatches(len(data), 8, cached.seed)
    expected = list(create_loader(data, EpochBatches(40, 8, cached.seed), 0, CPU))
    kept = Loader(data, batch_sampler=batches, collate_fn=Batch.collate, num_workers=2, persistent_workers=True)
    others = set(multiprocessing.active_children())  # that an error's traceback keeps in another test
    with contextlib.closing(EpochLoader(kept)) as loader:
        loader.start(1)
        started = set(multiprocessing.active_children()) - others
        assert len(started) == 2
        loader.go_to(0, 2)
        got = list(loader)
        assert set(multiprocessing.active_children()) - others == started
    assert len(got) == 3
    for a, b in zip(got, expected[2:], strict=True):
        assert torch.equal(a.images, b.images)
        assert torch.equal(a.targets, b.targets)
    assert not started & set(multiprocessing.active_children())


IGNORED_ENDS = """
import multiprocessing
import signal

signal.signal(signal.SIGCHLD, signal.SIG_IGN)
from catheters.data.batch import Batch
from catheters.data.loader import Loader, WorkerDied

batches = iter(Loader(range(40), batch_size=4, num_workers=1))
next(batches)
(process,) = multiprocessing.active_children()
process.kill()
try:
    list(batches)
except WorkerDied as error:
    print(error)
"""


@pytest.mark.slow
def test_a_loading_process_that_dies_where_ends_are_ignored() -> None:
    """As some launchers have it: the system would not say that it has died, and the training would wait for ever."""
    done = run_watched([sys.executable, "-c", IGNORED_ENDS])
    assert (done.stdout, done.stderr) == ("SIGKILL\n", "")


@pytest.mark.slow
def test_errors_of_a_loading_process_stay_what_they_are(cached: Settings) -> None:
    batches = [[(0, 0)], [(0, 99)]]
    loader = Loader(samples(cached, [0, 1]), batch_sampler=batches, num_workers=1)
    with pytest.raises(IndexError, match="out of bounds"):
        list(loader)
