"""Mutated files against the reader: it may refuse them, and must not crash, hang or eat up the memory.

    python tests/stress/fuzz_reader.py --num-files 10000 FOLDER_OF_IMAGES...

Each file is one of the given images with bits flipped, bytes replaced, a part cut out or its end missing. It prints how
many were read as if whole, read with other pixels (damage that no checksum of the format and no decoder noticed) and
refused, for each kind of file, and what the decoders did not survive: the worker that decoded it did, and the image is
reported as unreadable like any other. The exit status is 1 where a worker took more than the memory it was allowed, or
more than a minute.
"""

import argparse
import resource
import sys
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from catheters.data.decoding.image import UnreadableImage
from catheters.data.decoding.radiograph import decode_radiograph
from catheters.runtime.host import available_cores
from catheters.runtime.progress import track
from catheters.runtime.workers import Failure, map_guarded


def mutate(content: bytes, rng: np.random.Generator) -> bytes:
    """One of the ways in which files break."""
    data = bytearray(content)
    way = rng.integers(5)
    if way == 0:
        return bytes(data[: rng.integers(1, len(data))])
    if way == 1:  # header and tags
        for position in rng.integers(0, min(len(data), 2048), rng.integers(1, 9)):
            data[position] = rng.integers(256)
    elif way == 2:
        for position in rng.integers(0, len(data), rng.integers(1, 65)):
            data[position] ^= 1 << rng.integers(8)
    elif way == 3:
        start = int(rng.integers(0, len(data)))
        del data[start : start + int(rng.integers(1, 4096))]
    else:  # a lost block of a disk
        start = int(rng.integers(0, len(data)))
        data[start : start + 4096] = bytes(len(data[start : start + 4096]))
    return bytes(data)


def decode_mutant(contents: dict[str, bytes], seed: int, number: int) -> tuple[str, str, int]:
    """(kind of file, what became of mutant `number`, the worker's peak memory in bytes)."""
    rng = np.random.default_rng((seed, number))
    name = sorted(contents)[int(rng.integers(len(contents)))]
    try:
        shown = decode_radiograph(mutate(contents[name], rng)).image
        whole: npt.NDArray[np.uint8] = decode_radiograph(contents[name]).image
        outcome = "as if whole" if np.array_equal(shown, whole) else "other pixels"
    except UnreadableImage:
        outcome = "refused"
    return kind_of(name), outcome, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def kind_of(name: str) -> str:
    """What the counts are given for."""
    return Path(name).suffix.lower() or "none"


def readable_files(folders: list[Path]) -> dict[str, bytes]:
    """Name -> content of the files that the reader takes when they are whole."""
    contents = {}
    for path in sorted(file for folder in folders for file in folder.rglob("*") if file.is_file()):
        try:
            decode_radiograph(path.read_bytes())
        except UnreadableImage:
            continue
        contents[str(path)] = path.read_bytes()
    return contents


def main() -> int:
    """Run it; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    parser.add_argument("--num-files", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    contents = readable_files(options.folders)
    print(f"{options.num_files} mutants of {len(contents)} files")
    counts: Counter[tuple[str, str]] = Counter()
    peak = 0
    numbers = range(options.num_files)
    outcomes = map_guarded(partial(decode_mutant, contents, options.seed), numbers, available_cores())
    for number, outcome in track(outcomes, "decoding mutants", len(numbers), unit="file"):
        if isinstance(outcome, Failure):
            counts["all", outcome.reason] += 1
            print(f"mutant {number}: {outcome.reason}")
        else:
            kind, what, memory = outcome
            counts[kind, what] += 1
            peak = max(peak, memory)
    for (kind, what), count in sorted(counts.items()):
        print(f"{kind:>8} {what:<40} {count:>6}")
    print(f"peak memory of a worker: {peak / 1e6:.0f} MB")
    return int(any("given up" in what or "takes more" in what for _, what in counts) or peak > 1e9)


if __name__ == "__main__":
    sys.exit(main())
