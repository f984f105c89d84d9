"""Memory of training as the data set grows: train.py on 1,000 and on 100,000 rows, with 2 DataLoader workers.

    python benchmarks/memory.py

The table has ids as long as RANZCR's, the cache is a sparse file whose pages are read as any others; the images are
black, and nothing is learnt. Two whole epochs of one fold with their validation, and more of the few rows, since theirs
are short. While batches are loaded, the median over all looks at the resident set of the training process, and at that
of all its processes together, in which shared pages count once (proportional set size); of the training process also
the most ever, the reading of table and index before the first batch and all that follows the last one included. The
model is tiny, so that what grows with the rows is not lost in what does not.
"""

import hashlib
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from config_file import write_config
from preproc import family, proportional_set_size
from rows import compare_sizes, create_parser, finish

from catheters.checkpoints.parts import build_preprocessing
from catheters.config.settings import Settings
from catheters.data.cache.index import FORMAT_VERSION, CacheIndex, CacheRow, decoder_versions, write_index
from catheters.labels import RANZCR_LABELS
from catheters.runtime.host import kilobytes_in

REPOSITORY = Path(__file__).parents[1]
IMAGE_SIZE = 32
NUM_EPOCHS = 2
MAX_EPOCHS = 20
"""Of the few rows: more would tell no more."""
SECONDS_BETWEEN_LOOKS = 0.25
MAX_SECONDS = 1200.0
AIM = 1.05


class MemoryUse(NamedTuple):
    """MB of the training process and of it with its DataLoader workers, while there are any; its peak MB."""

    alone: float
    together: float
    ever: float


def main() -> int:
    """Measure and print."""
    parser = create_parser(__doc__)
    parser.add_argument("--rows", type=int, nargs=2, default=[1000, 100_000], metavar=("FEW", "MANY"))
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    few, many = options.rows
    seen: dict[int, list[MemoryUse]] = {few: [], many: []}
    with tempfile.TemporaryDirectory() as name:
        num_epochs = {few: min(MAX_EPOCHS, NUM_EPOCHS * many // few), many: NUM_EPOCHS}
        configs = {number: make_data(Path(name), number, num_epochs[number]) for number in options.rows}
        for _ in range(options.rounds):
            for number, config in configs.items():
                seen[number].append(measure_memory(config))
    rows = []
    for column, (what, aim) in enumerate(
        (("train.py", AIM), ("train.py and its DataLoader workers", AIM), ("train.py, at its most", None))
    ):
        of_many, of_few = ([looked[column] for looked in seen[number]] for number in (many, few))
        growth = statistics.median(of_many) - statistics.median(of_few)
        print(f"{what}: {growth:.0f} MB more with {many:,} rows than with {few:,}")
        row = compare_sizes(
            "memory", f"{what}, {many:,} rows", of_many, f"{few:,} rows", of_few, unit="MB", at_most=aim
        )
        rows.append(row)
    return finish(rows, options)


def make_data(folder: Path, num_rows: int, num_epochs: int) -> Path:
    """A label table and a sparse cache of so many black images whose X-rays are gone; the config that trains on it."""
    rng = np.random.default_rng(0)
    settings = Settings(
        dataset_folder=str(folder),
        label_table=f"rows{num_rows}.csv",
        cache_folder=str(folder),
        cache_name=f"rows{num_rows}",
        image_size=IMAGE_SIZE,
        allow_leaking_folds=True,  # all images are equal
        folds=(0,),
        grey_mean=0.5,
        grey_std=0.25,
        train_transforms=(("HorizontalFlip", {"p": 0.5}), ("Affine", {"rotate": (-15, 15), "p": 0.8})),
        batch_size=50,
        num_workers=2,
        backbone_model="test_resnet",
        channels_last=True,
        pretrained=False,
        warmup_epochs=0,
        cosine_epochs=num_epochs,
        early_stop=0,
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
        preprocessing=build_preprocessing(settings).describe(),
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


def measure_memory(config: Path) -> MemoryUse:
    """The memory of a fresh training."""
    command = [sys.executable, str(REPOSITORY / "train.py"), "--config", str(config), "--fresh"]
    alone, together, ever = [], [], 0.0
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors)
        deadline = time.monotonic() + MAX_SECONDS
        try:
            while process.poll() is None and time.monotonic() < deadline:
                time.sleep(SECONDS_BETWEEN_LOOKS)
                processes = family(process.pid)
                resident = kilobytes_in(Path(f"/proc/{process.pid}/status"), "VmRSS") * 1024 / 1e6
                ever = max(ever, kilobytes_in(Path(f"/proc/{process.pid}/status"), "VmHWM") * 1024 / 1e6)
                if len(processes) > 1:
                    alone.append(resident)
                    together.append(sum(map(proportional_set_size, processes)) / 1e6)
        finally:
            process.terminate()
            process.wait()
        errors.seek(0)
        if process.returncode != 0 or not together:
            raise RuntimeError(f"train.py --config {config} was not seen to the end: {errors.read()}")
    return MemoryUse(statistics.median(alone), statistics.median(together), ever)


if __name__ == "__main__":
    sys.exit(main())
