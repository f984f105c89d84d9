"""What two ranks of torchrun take beside one: python benchmarks/ranks.py.

preproc_npy.py and predict.py on the same drawn X-rays, once by one rank on one core and once by two ranks on a core
each, taking turns. Seconds are those of the whole command less those of the same command on few images: starting
Python and loading torch takes as long for any number of images. That the files are the same, byte for byte, is checked.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from prediction import make_files
from rows import Row, compare_seconds, create_parser, finish

from catheters.checkpoints.checkpoint import save_checkpoint
from catheters.checkpoints.parts import build_classifier
from catheters.config.loading import config_text
from catheters.config.settings import Settings

REPOSITORY = Path(__file__).parents[1]


def main() -> int:
    """Print the table."""
    parser = create_parser(__doc__)
    parser.add_argument("--backbone", default="efficientnet_b0")
    parser.add_argument("--image-size", type=int, default=512, help="pixels (default: 512)")
    parser.add_argument("--few", type=int, default=20, help="images of the runs that are taken off (default: 20)")
    parser.add_argument("--preproc-images", type=int, default=1500, help="(default: 1500)")
    parser.add_argument("--predict-images", type=int, default=500, help="(default: 500)")
    parser.add_argument("--rounds", type=int, default=3, help="(default: 3)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = make_files(folder)
        settings = Settings(backbone_model=options.backbone, pretrained=False, image_size=options.image_size)
        save_checkpoint(folder / "model.pt", build_classifier(settings, 0.48, 0.22), settings, {}, {"epoch": 1})
        rows = [
            compare("preproc_npy.py", folder, files, options.preproc_images, options),
            compare("predict.py", folder, files, options.predict_images, options),
        ]
    return finish(rows, options)


def compare(script: str, folder: Path, files: Sequence[Path], num_images: int, options: argparse.Namespace) -> Row:
    """One script by two ranks beside one."""
    seconds: dict[int, list[float]] = {1: [], 2: []}
    written: list[bytes] = []
    for _ in range(options.rounds):
        for num_ranks, taken in seconds.items():
            few, many = (
                run(script, folder, files, number, num_ranks, options.image_size)
                for number in (options.few, num_images)
            )
            taken.append(many[0] - few[0])
            written.append(many[1])
    assert len(set(written)) == 1, "the files of one and of two ranks are the same"
    return compare_seconds(
        "ranks",
        f"{script}, two ranks on two cores",
        seconds[2],
        "one on one core",
        seconds[1],
        each=num_images - options.few,
        unit="ms/image",
        at_least=1.8,
    )


def run(
    script: str, folder: Path, files: Sequence[Path], num_images: int, num_ranks: int, image_size: int
) -> tuple[float, bytes]:
    """Seconds of the whole command, and what it has written."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        here = Path(name)
        images = here / "images"
        images.mkdir()
        for number in range(num_images):
            os.link(files[number % len(files)], images / f"{number:05d}.jpg")
        if script == "predict.py":
            out = here / "p.csv"
            arguments = ["--model", str(folder / "model.pt"), str(images), "--out", str(out)]
        else:
            table = here / "table.csv"
            table.write_text("id,patient,line\n" + "".join(f"{n:05d},{n},{n % 2}\n" for n in range(num_images)))
            out = here / f"cache_{image_size}.npy"
            settings = Settings(
                dataset_folder=str(here),
                label_table="table.csv",
                uid_column="id",
                patient_column="patient",
                label_columns=("line",),
                path_pattern="images/{uid}.jpg",
                cache_folder=str(here),
                cache_name="cache",
                image_size=image_size,
            )
            config = here / "config.py"
            config.write_text(config_text(settings))
            arguments = ["--config", str(config)]
        launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={num_ranks}"]
        cores = sorted(os.sched_getaffinity(0))[:num_ranks]
        started = time.perf_counter()
        subprocess.run(
            [*launch, str(REPOSITORY / script), *arguments],
            check=True,
            capture_output=True,
            cwd=REPOSITORY,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            preexec_fn=lambda: os.sched_setaffinity(0, cores),
        )
        return time.perf_counter() - started, out.read_bytes()


if __name__ == "__main__":
    sys.exit(main())
