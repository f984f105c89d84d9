"""What caching costs: `preproc_npy.py` against the straightforward loop and against pure decoding, in one run.

    python benchmarks/preproc.py

JPEGs of the sizes that RANZCR CLiP has most, 2500 x 2048 and 3056 x 2544, drawn by the sample's generator, with grain
that makes them as large as real ones (about 0.4 MB), are cached at 640 px. The references take turns with it:

    straightforward   one loop: full decoding, OpenCV's INTER_AREA, a list, np.save
    full decoding     cv2.imread of every file in as many processes as there are cores, and nothing else
    half decoding     the same at half the size
    quick             preproc_npy.py resampling=quick: half decoding, bilinear and blocks, as version 0.2.0 did

Memory is that of all processes together (proportional set size: shared pages count once), looked at every 20 ms.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import numpy.typing as npt
import simplejpeg
from rows import compare_seconds, compare_sizes, create_parser, finish

from catheters.runtime.host import available_cores, kilobytes_in
from catheters.runtime.workers import map_guarded
from catheters.synthetic import generate_sample

SIZES = ((2500, 2048), (2500, 2048), (3056, 2544))
NUM_JPEGS = 24
GRAIN = 1.5
JPEG_QUALITY = 85
IMAGE_SIZE = 640
SCRIPT = Path(__file__).parents[1] / "preproc_npy.py"


def make_data_set(folder: Path, jpegs: list[bytes], num_images: int) -> list[Path]:
    """A RANZCR-like folder of so many files."""
    (folder / "train").mkdir(parents=True)
    files = [folder / "train" / f"{number}.jpg" for number in range(num_images)]
    for number, file in enumerate(files):
        file.write_bytes(jpegs[number % len(jpegs)])
    rows = "".join(f"{number},p{number},{number % 2}\n" for number in range(num_images))
    (folder / "train.csv").write_text(f"StudyInstanceUID,PatientID,L\n{rows}")
    return files


def draw_jpegs(folder: Path) -> list[bytes]:
    """JPEG files of RANZCR's usual sizes."""
    generate_sample(folder, num_images=NUM_JPEGS, num_test_images=0, image_size=1024)
    rng = np.random.default_rng(0)
    jpegs = []
    for number, file in enumerate(sorted((folder / "train").glob("*.jpg"))):
        size = SIZES[number % len(SIZES)]
        drawn = cv2.resize(read_grey(file), size, interpolation=cv2.INTER_CUBIC)
        grainy = np.clip(drawn + rng.normal(0, GRAIN, drawn.shape), 0, 255).astype(np.uint8)
        jpegs.append(cv2.imencode(".jpg", grainy, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes())
    return jpegs


def read_grey(file: Path) -> npt.NDArray[np.uint8]:
    """(H, W), by OpenCV."""
    image = cv2.imread(str(file), cv2.IMREAD_GRAYSCALE)
    assert image is not None
    return cast("npt.NDArray[np.uint8]", image)


def straightforward(files: list[Path], result: Path) -> None:
    """What one would write first."""
    images = []
    for file in files:
        images.append(cv2.resize(read_grey(file), (IMAGE_SIZE, IMAGE_SIZE), interpolation=cv2.INTER_AREA))
    np.save(result, images)


def decode_fully(file: Path) -> int:
    """Nothing but decoding."""
    return int(read_grey(file).size)


def decode_to_half(file: Path) -> int:
    """Nothing but decoding, to half the size."""
    data = file.read_bytes()
    height, width, *_ = simplejpeg.decode_jpeg_header(data)
    return int(simplejpeg.decode_jpeg(data, "GRAY", min_height=height // 2, min_width=width // 2).size)


def in_processes(function: Callable[[Path], int], files: list[Path]) -> None:
    """Apply `function` to all files, one process per core."""
    for _ in map_guarded(function, files, available_cores()):
        pass


def cache_command(data: Path, cache: Path) -> list[str]:
    """What a user runs."""
    settings = {"dataset_folder": data, "cache_folder": cache, "image_size": IMAGE_SIZE}
    table: dict[str, Any] = {"label_columns": ["L"], "pos_weight": {}, "heads": {}, "lines": None}
    return [sys.executable, str(SCRIPT), *(f"{name}={value}" for name, value in {**settings, **table}.items())]


def peak_memory(command: list[str]) -> int:
    """Bytes that a command and its processes take at most."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    peak = 0
    while process.poll() is None:
        peak = max(peak, sum(map(proportional_set_size, family(process.pid))))
        time.sleep(0.02)
    if process.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} exited with status {process.returncode}")
    return peak


def family(pid: int) -> list[int]:
    """A process and its children."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [pid, *(member for child in children for member in family(int(child)))]


def proportional_set_size(pid: int) -> int:
    """Bytes; 0 for a process that has ended."""
    return kilobytes_in(Path(f"/proc/{pid}/smaps_rollup"), "Pss") * 1024


def timed(work: Callable[[], object]) -> float:
    """Seconds that `work` takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> int:
    """Measure and print."""
    parser = create_parser(__doc__)
    parser.add_argument("--num-images", type=int, default=1000, help="files of the timings (default: 1000)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory-images", type=int, nargs=2, default=[200, 2000], help="files of the memory's peaks")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        jpegs = draw_jpegs(work / "drawn")
        files = make_data_set(work / "data", jpegs, options.num_images)
        megabytes = sum(map(len, jpegs)) / len(jpegs) / 1e6
        print(f"{len(files)} JPEGs of {megabytes:.2f} MB on average, to {IMAGE_SIZE} px, {os.cpu_count()} cores")
        command = cache_command(work / "data", work / "cache")
        cache_files = [work / "cache" / f"ranzcr_{IMAGE_SIZE}.{suffix}" for suffix in ("npy", "json")]

        def build(*overrides: str) -> None:
            for file in cache_files:
                file.unlink(missing_ok=True)
            subprocess.run([*command, *overrides], check=True, capture_output=True)

        ways: dict[str, Callable[[], object]] = {
            "straightforward": lambda: straightforward(files, work / "reference.npy"),
            "full decoding": lambda: in_processes(decode_fully, files),
            "half decoding": lambda: in_processes(decode_to_half, files),
            "quick": lambda: build("resampling=quick"),
            "preproc_npy.py": build,
            "its start": lambda: subprocess.run([*command[:2], "--help"], check=True, capture_output=True),
        }
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(options.rounds):
            for name, way in ways.items():
                seconds[name].append(timed(way))
        difference = np.load(work / "reference.npy").astype(np.int16) - np.load(cache_files[0])
        start = seconds.pop("its start")
        print(f"preproc_npy.py starts in {statistics.median(start):.2f} s, which is part of its time")
        own = seconds.pop("preproc_npy.py")
        rows = [
            compare_seconds(
                "preproc",
                f"preproc_npy.py, {len(files):,} JPEGs to {IMAGE_SIZE} px",
                own,
                name,
                measured,
                each=len(files),
                unit="ms/image",
            )
            for name, measured in seconds.items()
        ]
        print(f"mean difference to the straightforward result: {np.abs(difference).mean():.3f} grey levels")
        peaks = []
        for num_images in options.memory_images:
            make_data_set(work / f"data{num_images}", jpegs, num_images)
            peaks.append(peak_memory(cache_command(work / f"data{num_images}", work / f"cache{num_images}")) / 1e6)
        few, many = options.memory_images
        what, reference = f"most memory of preproc_npy.py, {many:,} JPEGs", f"{few:,} JPEGs"
        rows.append(compare_sizes("preproc", what, peaks[1:], reference, peaks[:1], unit="MB"))
    return finish(rows, options)


if __name__ == "__main__":
    sys.exit(main())
