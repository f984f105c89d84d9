"""Kill one rank of torchrun at random moments: all have to end, and the same command to resume to the same bytes.

    python tests/stress/kill_ranks.py --num-kills 20

Synthetic radiographs are cached, and predicted by a small model, once by one process; another model is trained by
several ranks. Then the same is done by several ranks, again and again, of which one is killed (SIGKILL) at a random
moment of its work, until so many kills have come and one launch has ended by itself. The files are compared byte by
byte, a training as `kill_training.py` does. The exit status is 1 where anything differs, where a launch has outlived
its rank by more than a minute, or where one of the other ranks has not said in one line why it stops.
"""

import argparse
import contextlib
import dataclasses
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from kill_training import outcome, with_everything

from catheters.config.loading import settings_to_json
from catheters.synthetic import generate_sample

REPOSITORY = Path(__file__).parents[2]
MAX_SECONDS = 60.0
"""In which all have to end."""
SECONDS_OF_WORK = 6.0
"""A kill comes so long after the first file has been written, or changed, at most."""
KILLS_PER_EARLY_ONE = 5
"""Of so many one comes before that, while the ranks start: then torchrun alone may have words for it."""
LIMIT_SECONDS = 3600.0
"""In which a launch that nothing disturbs has ended."""
OF_RUN = ("image_size=64", "num_folds=2", "folds=[0]", "warmup_epochs=1", "cosine_epochs=0")


@dataclass(frozen=True, kw_only=True)
class Work:
    """A command of which ranks do a share each.

    Attributes:
        name: of the work.
        arguments: folder of the results -> the script and its arguments.
        checksums: folder of the results -> what is in it.
        ranks_undisturbed: that do what is compared with. Any number of them caches and predicts the same bytes; a
            training's follow from their number.
    """

    name: str
    arguments: Callable[[Path], Sequence[str]]
    checksums: Callable[[Path], Mapping[str, str]]
    ranks_undisturbed: int = 1


def children(pid: int) -> list[int]:
    """The processes that one has started, none where it has ended."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def launch(arguments: Sequence[str], num_ranks: int, said: Path) -> "subprocess.Popen[bytes]":
    """By torchrun; what the ranks say is in `said`."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={num_ranks}"]
    with said.open("wb") as file:
        return subprocess.Popen([*torchrun, *arguments], stdout=file, stderr=file, cwd=REPOSITORY)


@dataclass(frozen=True)
class Kill:
    """What came of one.

    Attributes:
        after: seconds of the launch before it.
        seconds: in which all had ended.
        words: lines in which the other ranks said why they stop.
        wants_words: whether they have stopped for it.
    """

    after: float
    seconds: float
    words: tuple[str, ...]
    wants_words: bool


def kill_until_done(
    work: Work, folder: Path, num_kills: int, num_ranks: int, rng: np.random.Generator, expected: Mapping[str, str]
) -> list[Kill]:
    """Launch it again and again, until so many kills have come and one launch has ended by itself.

    Args:
        work: to do.
        folder: of its results.
        num_kills: that have to come.
        num_ranks: of each launch.
        rng: draws when, and which rank.
        expected: checksums of what is done; empty where nothing is known of it yet.
    """
    kills: list[Kill] = []
    said = folder.with_suffix(".txt")
    while True:
        started = time.monotonic()
        begun = time.time()
        process = launch(work.arguments(folder), num_ranks, said)
        if len(kills) < num_kills:
            is_early = len(kills) % KILLS_PER_EARLY_ONE == KILLS_PER_EARLY_ONE - 1
            while not is_early and process.poll() is None and last_change(folder) < begun:
                time.sleep(0.05)
            time.sleep(rng.uniform(0, SECONDS_OF_WORK))
            ranks = children(process.pid)
            if process.poll() is None and len(ranks) == num_ranks:
                os.kill(ranks[int(rng.integers(num_ranks))], signal.SIGKILL)
                killed = time.monotonic()
                process.wait(timeout=MAX_SECONDS)  # a launch that outlives its rank for longer ends this program
                while any(Path(f"/proc/{rank}").exists() for rank in ranks) and time.monotonic() < killed + MAX_SECONDS:
                    time.sleep(0.1)
                text = said.read_text()
                words = tuple(
                    line for line in text.splitlines() if line.startswith("error") and "stopped, since" in line
                )
                # The work was done, and only the processes had not ended: nobody waits for the one that was killed.
                wants_words = not is_early and not is_done(work, folder, expected)
                kills.append(Kill(killed - started, time.monotonic() - killed, words, wants_words))
                print(
                    f"{work.name}: killed after {kills[-1].after:.1f} s, all ended in {kills[-1].seconds:.1f} s: "
                    f"{' | '.join(words) or 'no line'}{'' if wants_words else ' (none wanted)'}",
                    flush=True,
                )
                continue
        if process.wait(timeout=LIMIT_SECONDS) != 0:
            raise RuntimeError(f"{work.name}: exited with status {process.returncode}\n{said.read_text()}")
        if len(kills) >= num_kills:
            return kills
        shutil.rmtree(folder)  # it was done before all kills had come: once more from the beginning
        folder.mkdir()


def is_done(work: Work, folder: Path, expected: Mapping[str, str]) -> bool:
    """Whether all that the work writes is there."""
    try:
        return work.checksums(folder) == expected
    except FileNotFoundError:
        return False


def last_change(folder: Path) -> float:
    """When a file of the folder was written last, as time.time() has it; 0 where there is none but locks."""
    times = [0.0]
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            if path.is_file() and path.suffix != ".lock":
                times.append(path.stat().st_mtime)
    return max(times)


def of_files(*names: str) -> Callable[[Path], dict[str, str]]:
    """The checksums of these files of a folder."""
    return lambda folder: {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}


def try_work(work: Work, folder: Path, num_kills: int, num_ranks: int, rng: np.random.Generator) -> int:
    """Do it undisturbed and with kills, and print what came of it; returns 1 where anything is wrong."""
    undisturbed, killed = (folder / f"{work.name}_{how}" for how in ("undisturbed", "killed"))
    for of in (undisturbed, killed):
        of.mkdir()
    kill_until_done(work, undisturbed, 0, work.ranks_undisturbed, rng, {})
    expected = work.checksums(undisturbed)
    kills = kill_until_done(work, killed, num_kills, num_ranks, rng, expected)
    got = work.checksums(killed)
    differing = [name for name in expected if got.get(name) != expected[name]]
    marks = (".part", ".journal", ".unfinished")
    left = sorted(path.name for path in killed.rglob("*") if any(mark in path.name for mark in marks))
    longest = max((kill.seconds for kill in kills), default=0.0)
    without_words = sum(kill.wants_words and len(kill.words) != num_ranks - 1 for kill in kills)
    print(
        f"{work.name}: {len(kills)} kills of one of {num_ranks} ranks, all ended in {longest:.1f} s at most; without a "
        f"line of each of the others: {without_words}; what differs: {', '.join(differing) or 'nothing'}; left behind: "
        f"{', '.join(left) or 'nothing'}",
        flush=True,
    )
    return int(bool(differing or left or without_words or longest > MAX_SECONDS))


def main() -> int:
    """Run it; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-kills", type=int, default=20, help="of each work (default: %(default)s)")
    parser.add_argument("--work", choices=("preproc_npy.py", "predict.py", "train.py"), help="this one (default: all)")
    parser.add_argument("--num-images", type=int, default=600)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    status = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data, run = folder / "data", folder / "models" / "run"
        generate_sample(data, num_images=options.num_images, num_test_images=0, image_size=512)
        of_data = ["--config", "sample", f"dataset_folder={data}"]

        def preproc(cache: Path, size: int = 2048) -> list[str]:
            return ["preproc_npy.py", *of_data, f"cache_folder={cache}", "cache_name=killed", f"image_size={size}"]

        def predict(results: Path) -> list[str]:
            images = [str(data / "train"), "--workers", "1", "--batch-size", "1", "--tta"]
            return ["predict.py", "--model", str(run), *images, "--out", str(results / "p.csv")]

        def train(models: Path) -> list[str]:
            return ["train.py", "--config", str(to_train), f"saved_models_folder={models}", "run_name=killed"]

        to_train = folder / "train.py"
        # A batch that 2, 3, 4 and 6 ranks divide.
        text = settings_to_json(dataclasses.replace(with_everything(folder), batch_size=12))
        to_train.write_text(
            f"from catheters.config.loading import settings_from_json\nsettings = settings_from_json({text!r}, '')\n"
        )
        of_cache = [f"cache_folder={folder / 'small'}", "cache_name=killed", f"saved_models_folder={run.parent}"]
        for command in (
            preproc(folder / "small", 64),
            ["preproc_npy.py", "--config", str(to_train)],
            ["train.py", *of_data, *of_cache, "run_name=run", *OF_RUN],
            ["evaluate.py", str(run)],
        ):
            subprocess.run([sys.executable, *command], check=True, capture_output=True, cwd=REPOSITORY)
        works = [
            Work(name="preproc_npy.py", arguments=preproc, checksums=of_files("killed_2048.npy", "killed_2048.json")),
            Work(name="predict.py", arguments=predict, checksums=of_files("p.csv", "p_details.csv")),
            Work(
                name="train.py",
                arguments=train,
                checksums=lambda models: outcome(models / "killed"),
                ranks_undisturbed=options.ranks,
            ),
        ]
        for work in works:
            if options.work in (None, work.name):
                status = max(status, try_work(work, folder, options.num_kills, options.ranks, rng))
    return status


if __name__ == "__main__":
    sys.exit(main())
