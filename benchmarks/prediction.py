"""What reading X-rays costs beside predicting them, and memory: python benchmarks/prediction.py.

The same model predicts the same images twice, taking turns: from batches that are in memory already, and from JPEG
files of RANZCR CLiP's size, as predict.py reads them. Before that predict.py itself on more and more files: how much
memory its own process takes. The images are drawn, enlarged and made noisy; the weights are random.
"""

import argparse
import contextlib
import io
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from rows import Row, compare_seconds, compare_sizes, create_parser, finish

from catheters.checkpoints.checkpoint import load_checkpoint, save_checkpoint
from catheters.checkpoints.parts import build_classifier, build_preprocessing
from catheters.config.settings import Settings
from catheters.data.decoding.radiograph import read_radiograph
from catheters.evaluation.ensemble import EnsembleSpec
from catheters.inference.batch_prediction import predict_images
from catheters.inference.inputs import Images
from catheters.inference.loading import LoadedMember, Models
from catheters.inference.predictor import Predictor
from catheters.inference.reading import ReadImage, read_image
from catheters.runtime.device import device_name, open_device
from catheters.runtime.host import available_cores, kilobytes_in
from catheters.synthetic import generate_sample

SIZE = (2500, 2048)
"""Width and height of the commonest images of RANZCR CLiP."""
NUM_FILES = 32
"""Different ones; more are further names of the same files."""
REPOSITORY = Path(__file__).parents[1]
SECONDS_BETWEEN_LOOKS = 0.1


def main() -> int:
    """Print both tables."""
    parser = create_parser(__doc__)
    parser.add_argument("--backbones", nargs="+", default=["rexnet_200", "seresnet50", "efficientnet_b3", "resnest50d"])
    parser.add_argument("--image-size", type=int, default=512, help="pixels (default: 512)")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--num-images", type=int, default=32, help="of each round (default: 32)")
    parser.add_argument("--rounds", type=int, default=3, help="of both ways, taking turns (default: 3)")
    parser.add_argument("--memory-images", type=int, nargs="+", default=[200, 2000])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = make_files(folder)
        row = measure_memory(files, folder, options.memory_images)
        print(
            f"{options.num_images} JPEGs of {SIZE[0]} x {SIZE[1]} px, {options.image_size} px for the model, "
            f"batches of {options.batch_size}, {options.rounds} rounds, {available_cores()} cores, "
            f"{device_name(open_device('auto'))}"
        )
        rows = [compare(backbone, files, folder, options) for backbone in options.backbones]
    return finish([*rows, row], options)


def make_files(folder: Path, num_files: int = NUM_FILES) -> list[Path]:
    """Drawn X-rays, so many of them, as large as real ones and as hard to decode."""
    drawn = folder / "drawn"
    with contextlib.redirect_stderr(io.StringIO()):
        generate_sample(drawn, num_images=num_files, num_test_images=1, image_size=1024)
    rng = np.random.default_rng(0)
    files = []
    for number, source in enumerate(sorted((drawn / "train").iterdir())):
        large = cv2.resize(read_radiograph(source).image, SIZE, interpolation=cv2.INTER_CUBIC)
        noisy = np.clip(large + rng.normal(0, 4, large.shape), 0, 255).astype(np.uint8)
        file = folder / f"{number}.jpg"
        cv2.imwrite(str(file), noisy, [cv2.IMWRITE_JPEG_QUALITY, 90])
        files.append(file)
    return files


def create_models(settings: Settings, folder: Path) -> Models:
    """A checkpoint of random weights, written and read as training and prediction do."""
    file = folder / f"{settings.backbone_model}.pt"
    save_checkpoint(file, build_classifier(settings, 0.48, 0.22), settings, {}, {"epoch": 1})
    return Models(
        members=(LoadedMember(name="random", checkpoints=(load_checkpoint(file),)),),
        spec=EnsembleSpec(method="mean", weights={"random": 1.0}),
        labels=settings.label_columns,
        calibrator=None,
        thresholds=None,
    )


def compare(backbone: str, files: list[Path], folder: Path, options: argparse.Namespace) -> Row:
    """Predicting from files beside predicting from memory."""
    settings = Settings(backbone_model=backbone, pretrained=False, image_size=options.image_size)
    predictor = Predictor(create_models(settings, folder), open_device("auto"))
    chosen = [files[number % len(files)] for number in range(options.num_images)]
    images = Images(uids=tuple(map(str, range(len(chosen)))), paths=tuple(chosen))
    in_memory = [read_image(file.read_bytes(), [build_preprocessing(settings)]) for file in chosen]
    from_memory(predictor, in_memory[: options.batch_size], options.batch_size)  # warm-up
    seconds: dict[str, list[float]] = {"memory": [], "files": []}
    for _ in range(options.rounds):
        started = time.perf_counter()
        from_memory(predictor, in_memory, options.batch_size)
        seconds["memory"].append(time.perf_counter() - started)
        part = folder / "part"
        started = time.perf_counter()
        with contextlib.redirect_stderr(io.StringIO()):
            predict_images(
                predictor, images, part, batch_size=options.batch_size, num_workers=available_cores(), key=backbone
            )
        seconds["files"].append(time.perf_counter() - started)
        part.unlink()
    return compare_seconds(
        "prediction",
        f"{backbone} at {options.image_size} px, from JPEG files",
        seconds["files"],
        "batches in memory",
        seconds["memory"],
        each=len(chosen),
        unit="ms/image",
        at_least=0.9,
    )


def from_memory(predictor: Predictor, images: list[ReadImage], batch_size: int) -> None:
    """Predict what is in memory already."""
    for start in range(0, len(images), batch_size):
        predictor.predict(images[start : start + batch_size])
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def measure_memory(files: list[Path], folder: Path, numbers: list[int]) -> Row:
    """The most memory of predict.py's process for the last number of files beside the first."""
    settings = Settings(backbone_model="efficientnet_b0", pretrained=False, image_size=128)
    create_models(settings, folder)
    megabytes = []
    for number in numbers:
        many = folder / f"{number}_files"
        many.mkdir()
        for image in range(number):
            os.link(files[image % len(files)], many / f"{image}.jpg")
        command = [sys.executable, str(REPOSITORY / "predict.py"), "--model", str(folder / "efficientnet_b0.pt")]
        process = subprocess.Popen(
            [*command, str(many), "--out", str(folder / "p.csv")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        most = 0.0  # not by rusage, which counts the memory of the process that started it as well
        while process.poll() is None:
            time.sleep(SECONDS_BETWEEN_LOOKS)
            most = max(most, kilobytes_in(Path(f"/proc/{process.pid}/status"), "VmHWM") * 1024 / 1e6)
        assert process.returncode == 0, "predict.py ended well"
        megabytes.append(most)
    return compare_sizes(
        "prediction",
        f"most memory of predict.py, {numbers[-1]:,} files",
        megabytes[-1:],
        f"{numbers[0]:,} files",
        megabytes[:1],
        unit="MB",
        at_most=1.05,
    )


if __name__ == "__main__":
    sys.exit(main())
