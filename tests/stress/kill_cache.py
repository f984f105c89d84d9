"""Kill the writing of a cache at random moments: the finished cache has to be the one of an undisturbed run.

    python tests/stress/kill_cache.py --num-kills 20

Synthetic radiographs are cached once undisturbed. Then the same is started again and again, each time killed (SIGKILL)
at a random moment, until so many kills have come and one run has ended by itself. Both files are compared byte by byte.
The exit status is 1 where they differ.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from catheters.synthetic import generate_sample

CACHE_NAMES = ("killed_1024.npy", "killed_1024.json")


def command(data: Path, cache: Path) -> list[str]:
    """What a user would run."""
    settings = {"dataset_folder": data, "cache_folder": cache, "cache_name": "killed", "image_size": 1024}
    script = Path(__file__).parents[2] / "preproc_npy.py"
    return [sys.executable, str(script), *(f"{name}={value}" for name, value in settings.items())]


def kill_until_done(data: Path, cache: Path, num_kills: int, seconds: float, rng: np.random.Generator) -> int:
    """Start the command again and again; returns how often it was killed before it ended by itself."""
    kills = 0
    while True:
        process = subprocess.Popen(command(data, cache), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if kills < num_kills:
            time.sleep(rng.uniform(0, seconds))
            if process.poll() is None:
                os.kill(process.pid, signal.SIGKILL)
                process.wait()
                kills += 1
                continue
        if process.wait() != 0:
            raise RuntimeError(f"preproc_npy.py exited with status {process.returncode}")
        if kills >= num_kills:
            return kills
        for path in cache.iterdir():  # it was done before all kills had come: once more from the beginning
            path.unlink()


def main() -> int:
    """Run it; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-kills", type=int, default=20)
    parser.add_argument("--num-images", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        data, undisturbed, disturbed = (Path(folder) / name for name in ("data", "undisturbed", "disturbed"))
        generate_sample(data, num_images=options.num_images, num_test_images=0, image_size=512)
        start = time.monotonic()
        subprocess.run(command(data, undisturbed), check=True, capture_output=True)
        seconds = time.monotonic() - start
        disturbed.mkdir()
        kills = kill_until_done(data, disturbed, options.num_kills, seconds, rng)
        differing = [
            name for name in CACHE_NAMES if (undisturbed / name).read_bytes() != (disturbed / name).read_bytes()
        ]
        left = sorted(path.name for path in disturbed.iterdir() if path.suffix in (".part", ".journal"))
    print(f"{kills} kills in runs of up to {seconds:.1f} s, {options.num_images} images")
    print(f"files that differ: {', '.join(differing) or 'none'}; left behind: {', '.join(left) or 'nothing'}")
    return int(bool(differing or left))


if __name__ == "__main__":
    sys.exit(main())
