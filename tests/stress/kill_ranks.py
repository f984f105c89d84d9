"""Kill one rank of torchrun at random moments: all have to end, and the same command to resume to the same bytes.

    python tests/stress/kill_ranks.py --num-kills 20

Synthetic radiographs are cached, and predicted by a small model, once by one process. Then the same is done by several
ranks, again and again, of which one is killed (SIGKILL) at a random moment, until so many kills have come and one
launch has ended by itself. The files are compared byte by byte. The exit status is 1 where they differ, or where a
launch has outlived its rank by more than a minute.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from catheters.synthetic import generate_sample

REPOSITORY = Path(__file__).parents[2]
MAX_SECONDS = 60.0
"""In which all have to end."""
LIMIT_SECONDS = 3600.0
"""In which a launch that nothing disturbs has ended."""
OF_RUN = ("image_size=64", "num_folds=2", "folds=[0]", "warmup_epochs=1", "cosine_epochs=0")


@dataclass(frozen=True, kw_only=True)
class Work:
    """A command of which ranks do a share each.

    Attributes:
        name: of the work.
        arguments: folder of the results -> the script and its arguments.
        files: of the result.
    """

    name: str
    arguments: Callable[[Path], Sequence[str]]
    files: tuple[str, ...]


def children(pid: int) -> list[int]:
    """The processes that one has started, none where it has ended."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def launch(arguments: Sequence[str], num_ranks: int) -> "subprocess.Popen[bytes]":
    """By torchrun, in a folder where nothing else is."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={num_ranks}"]
    return subprocess.Popen(
        [*torchrun, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=REPOSITORY
    )


def kill_until_done(work: Work, folder: Path, num_kills: int, num_ranks: int, rng: np.random.Generator) -> list[float]:
    """Launch it again and again; returns the seconds in which all ended after each kill."""
    ended: list[float] = []
    while True:
        started = time.monotonic()
        process = launch(work.arguments(folder), num_ranks)
        if len(ended) < num_kills:
            time.sleep(rng.uniform(3, 20))
            ranks = children(process.pid)
            if process.poll() is None and len(ranks) == num_ranks:
                os.kill(ranks[int(rng.integers(num_ranks))], signal.SIGKILL)
                killed = time.monotonic()
                process.wait(timeout=MAX_SECONDS)  # a launch that outlives its rank for longer ends this program
                while any(Path(f"/proc/{rank}").exists() for rank in ranks) and time.monotonic() < killed + MAX_SECONDS:
                    time.sleep(0.1)
                ended.append(time.monotonic() - killed)
                print(f"{work.name}: killed after {killed - started:.1f} s, all ended in {ended[-1]:.1f} s", flush=True)
                continue
        if process.wait(timeout=LIMIT_SECONDS) != 0:
            raise RuntimeError(f"{work.name}: exited with status {process.returncode}")
        if len(ended) >= num_kills:
            return ended
        for path in folder.iterdir():  # it was done before all kills had come: once more from the beginning
            path.unlink()


def main() -> int:
    """Run it; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-kills", type=int, default=20, help="of each work (default: %(default)s)")
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

        def preproc(cache: Path, size: int = 1024) -> list[str]:
            return ["preproc_npy.py", *of_data, f"cache_folder={cache}", "cache_name=killed", f"image_size={size}"]

        def predict(results: Path) -> list[str]:
            images = [str(data / "train"), "--workers", "1", "--batch-size", "1", "--tta"]
            return ["predict.py", "--model", str(run), *images, "--out", str(results / "p.csv")]

        of_cache = [f"cache_folder={folder / 'small'}", "cache_name=killed", f"saved_models_folder={run.parent}"]
        for command in (
            preproc(folder / "small", 64),
            ["train.py", *of_data, *of_cache, "run_name=run", *OF_RUN],
            ["evaluate.py", str(run)],
        ):
            subprocess.run([sys.executable, *command], check=True, capture_output=True, cwd=REPOSITORY)
        for work in (
            Work(name="preproc_npy.py", arguments=preproc, files=("killed_1024.npy", "killed_1024.json")),
            Work(name="predict.py", arguments=predict, files=("p.csv", "p_details.csv")),
        ):
            alone, killed = (folder / f"{work.name}_{how}" for how in ("alone", "killed"))
            for of in (alone, killed):
                of.mkdir()
            subprocess.run([sys.executable, *work.arguments(alone)], check=True, capture_output=True, cwd=REPOSITORY)
            ended = kill_until_done(work, killed, options.num_kills, options.ranks, rng)
            differing = [file for file in work.files if (alone / file).read_bytes() != (killed / file).read_bytes()]
            names = sorted(path.name for path in killed.iterdir())
            left = [name for name in names if ".part" in name or ".journal" in name or ".unfinished" in name]
            print(
                f"{work.name}: {len(ended)} kills of one of {options.ranks} ranks, all ended in "
                f"{max(ended, default=0):.1f} s at most; files that differ: {', '.join(differing) or 'none'}; left "
                f"behind: {', '.join(left) or 'nothing'}",
                flush=True,
            )
            status = max(status, int(bool(differing or left or max(ended, default=0) > MAX_SECONDS)))
    return status


if __name__ == "__main__":
    sys.exit(main())
