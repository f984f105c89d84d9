"""Memory of training as the data set grows: train.py on 1,000 and on 100,000 rows, with 2 loading processes.

    python benchmarks/memory.py

The table has ids as long as RANZCR's, the cache is a sparse file whose pages are read as any others; the pictures are
black, and nothing is learnt. Looked at twice a second while batches are learnt from: the resident set of the training
process, and that of all its processes together, in which shared pages count once (proportional set size).
"""

import hashlib
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from config_file import write_config
from preproc import family, proportional_set_size
from rows import compare_sizes, create_parser, finish

from catheters.data.cache_index import FORMAT_VERSION, CacheIndex, CacheRow, decoder_versions, write_index
from catheters.data.preprocessing import Preprocessing
from catheters.host import kilobytes_in
from catheters.labels import RANZCR_LABELS
from catheters.settings import Settings

REPOSITORY = Path(__file__).parents[1]
IMAGE_SIZE = 256
SECONDS_BETWEEN_LOOKS = 0.5
MAX_SECONDS_TO_START = 300.0
AIM = 1.05


def main() -> int:
    """Measure and print."""
    parser = create_parser(__doc__)
    parser.add_argument("--rows", type=int, nargs=2, default=[1000, 100_000], metavar=("FEW", "MANY"))
    parser.add_argument("--seconds", type=float, default=30.0, help="of each training that are watched (default: 30)")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    sizes: dict[tuple[int, str], list[float]] = {
        (number, what): [] for number in options.rows for what in ("alone", "family")
    }
    with tempfile.TemporaryDirectory() as name:
        configs = {number: make_data(Path(name), number) for number in options.rows}
        for _ in range(options.rounds):
            for number, config in configs.items():
                alone, together = watch(config, options.seconds)
                sizes[number, "alone"].append(alone)
                sizes[number, "family"].append(together)
    few, many = options.rows
    rows = [
        compare_sizes(
            "memory",
            f"{of_whom}, {many:,} rows",
            sizes[many, what],
            f"{few:,} rows",
            sizes[few, what],
            unit="MB",
            at_most=AIM,
        )
        for what, of_whom in (("alone", "train.py"), ("family", "train.py and its loading processes"))
    ]
    return finish(rows, options)


def make_data(folder: Path, num_rows: int) -> Path:
    """A label table and a sparse cache of so many black images whose X-rays are gone; the config that trains on it."""
    rng = np.random.default_rng(0)
    settings = Settings(
        dataset_folder=str(folder),
        label_table=f"rows{num_rows}.csv",
        cache_folder=str(folder),
        cache_name=f"rows{num_rows}",
        image_size=IMAGE_SIZE,
        allow_leaking_folds=True,  # all pictures are alike
        folds=(0,),
        grey_mean=0.5,
        grey_std=0.25,
        train_transforms=(("HorizontalFlip", {"p": 0.5}), ("Affine", {"rotate": (-15, 15), "p": 0.8})),
        batch_size=16,
        num_workers=2,
        backbone_model="test_efficientnet",
        channels_last=True,
        pretrained=False,
        saved_models_folder=str(folder / "saved_models"),
        run_name=f"rows{num_rows}",
    )
    uids = [f"1.2.826.0.1.3680043.8.498.{rng.integers(10**18):018}{number:020}" for number in range(num_rows)]
    table = pd.DataFrame({"StudyInstanceUID": uids})
    table[list(RANZCR_LABELS)] = (rng.random((num_rows, len(RANZCR_LABELS))) < 0.2).astype(int)
    table["PatientID"] = [f"{number // 9:09x}" for number in range(num_rows)]
    table.to_csv(folder / settings.label_table, index=False)
    shape = (num_rows, *settings.image_shape)
    np.lib.format.open_memmap(settings.cache_file, "w+", np.uint8, shape).flush()
    digest = hashlib.sha256(bytes(IMAGE_SIZE**2)).hexdigest()
    index = CacheIndex(
        format_version=FORMAT_VERSION,
        shape=shape,
        preprocessing=Preprocessing.of(settings).describe(),
        decoders=decoder_versions(),
        mean=0.0,
        std=0.0,
        rows=[
            CacheRow(uid=uid, file=f"train/{uid}.jpg", size=10**6, mtime_ns=10**18, digest=digest, notes={})
            for uid in uids
        ],
    )
    write_index(settings.cache_file, index)
    return write_config(settings, folder / f"rows{num_rows}.py")


def watch(config: Path, num_seconds: float) -> tuple[float, float]:
    """Median MB of a fresh training's process, and of it with its loading processes."""
    command = [sys.executable, str(REPOSITORY / "train.py"), "--config", str(config), "--fresh"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + MAX_SECONDS_TO_START
    looks: list[tuple[float, float]] = []
    try:
        while time.monotonic() < deadline and process.poll() is None:
            time.sleep(SECONDS_BETWEEN_LOOKS)
            members = family(process.pid)
            if len(members) < 2:  # between epochs, or before the first: nothing is loaded
                continue
            if not looks:
                deadline = time.monotonic() + num_seconds
            looks.append(
                (
                    kilobytes_in(Path(f"/proc/{process.pid}/status"), "VmRSS") * 1024 / 1e6,
                    sum(map(proportional_set_size, members)) / 1e6,
                )
            )
    finally:
        process.terminate()
        _, errors = process.communicate()
    if len(looks) < 5:
        raise RuntimeError(f"train.py --config {config} was not seen loading: {errors}")
    looks = looks[len(looks) // 3 :]  # the first batches make what stays
    return statistics.median(alone for alone, _ in looks), statistics.median(together for _, together in looks)


if __name__ == "__main__":
    sys.exit(main())
