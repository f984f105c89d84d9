"""Does a change of the code change a bit of the results of training, evaluation and prediction?

    python tests/stress/same_bits.py --write before.json      # on the commit before the change
    python tests/stress/same_bits.py --compare before.json    # after it, on the same machine

The real scripts train and evaluate these on the synthetic sample, in a folder of their own: single-head and multi-head
for three epochs; EMA, mixup, gradient accumulation and a plateau schedule; two seeds on all images; two ranks by
torchrun; then predictions of the sample's test images, and an ensemble of the first two. What is compared: every
tensor of every checkpoint, predictions byte by byte, log lines but for what a clock measured, metrics and ensemble
weights. The exit status is 1 where anything differs.
"""

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

REPOSITORY = Path(__file__).parents[2]
EPOCHS = ("warmup_epochs=1", "cosine_epochs=2")
RUNS: dict[str, list[str]] = {
    "single": ["train.py", "--config", "configs/sample.py", *EPOCHS],
    "multi": ["multi_train.py", "--config", "configs/sample_multi.py", *EPOCHS],
    "averaged": [
        *("train.py", "--config", "configs/sample.py", "ema_decay=0.95", "mixup_alpha=0.4", "accumulation_steps=2"),
        *("batch_size=8", "schedule=plateau", "plateau_patience=1", "epochs=3", "warmup_epochs=1", "clip_grad_norm=1"),
        *("drop_rate=0.2", "drop_path_rate=0.1", "label_smoothing={'CVC - Normal': 0.05}", "folds=[0,1]"),
    ],
    "all_data": ["train.py", "--config", "configs/sample.py", *EPOCHS, "all_data=True", "seeds=[0,1]"],
    "two_ranks": ["train.py", "--config", "configs/sample.py", *EPOCHS, "folds=[0]"],
}
"""Name of each run and its command; paths and the run's name are added."""


def main() -> int:
    """Run it; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--write", type=Path, metavar="FILE", help="keep the checksums")
    action.add_argument("--compare", type=Path, metavar="FILE", help="compare with checksums that were kept")
    parser.add_argument("--runs", nargs="+", choices=list(RUNS), default=list(RUNS), help="only these")
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="keep the sample and its cache here, for next time")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        sums = dict(_all_sums(Path(name), options.data or Path(name), options.runs))
    for what in sorted({key.partition("/")[0] for key in sums}):
        print(f"{_digest(json.dumps(_part(sums, what)).encode())[:16]}  {what}")
    if options.write is not None:
        options.write.write_text(json.dumps(sums, indent=1) + "\n")
        return 0
    expected = json.loads(options.compare.read_text())
    expected = {key: value for key, value in expected.items() if key.partition("/")[0] in {*options.runs, *_AFTER}}
    differing = sorted(key for key in expected.keys() | sums.keys() if expected.get(key) != sums.get(key))
    for key in differing:
        state = "is missing" if key not in sums else "is new" if key not in expected else "differs"
        print(f"{key}: {state}")
    print(f"{len(sums)} checksums, {len(differing)} differ")
    return int(bool(differing))


_AFTER = ("predicted", "ensemble")


def _all_sums(folder: Path, data_folder: Path, runs: list[str]) -> Iterator[tuple[str, str]]:
    sample = data_folder / "sample"
    data = f"dataset_folder={sample}", f"cache_folder={data_folder / 'cache'}", f"saved_models_folder={folder}"
    if not sample.exists():
        _run([sys.executable, "-m", "catheters.synthetic", str(sample)])
    _run([sys.executable, "preproc_npy.py", "--config", "configs/sample.py", *data[:2]])
    for name in runs:
        launcher = ["-m", "torch.distributed.run", "--nproc-per-node=2"] if name == "two_ranks" else []
        _run([sys.executable, *launcher, *RUNS[name], *data, "device=cpu", f"run_name={name}"])
        yield from _sums_of_run(name, folder / name)
    if not {"single", "multi"} <= set(runs):
        return
    _run([sys.executable, "evaluate.py", str(folder / "single"), str(folder / "multi"), "--ensemble", "weights"])
    for file in sorted(folder.rglob("*")):
        if file.name in ("metrics.json", "calibration.json", "ensemble.json"):
            yield f"ensemble/{file.relative_to(folder)}", _digest(file.read_bytes().replace(str(folder).encode(), b""))
    csv = folder / "predicted.csv"
    models = [str(folder / "single"), str(folder / "multi")]
    # One image at a time: larger batches are made of what is decoded first, and round accordingly.
    command = ["predict.py", "--batch-size", "1", "--model", *models, str(sample / "test"), "--out", str(csv)]
    _run([sys.executable, *command])
    yield "predicted/predicted.csv", _digest(csv.read_bytes())


def _run(command: list[str]) -> None:
    print("$", " ".join(command[1:]), flush=True)
    subprocess.run(command, check=True, cwd=REPOSITORY, stdout=subprocess.DEVNULL)


def _sums_of_run(name: str, folder: Path) -> Iterator[tuple[str, str]]:
    for file in sorted(folder.rglob("*")):
        where = f"{name}/{file.relative_to(folder)}"
        if file.suffix == ".pt" and "last" not in file.parts:
            for tensor_name, tensor in torch.load(file, weights_only=True)["model"].items():
                yield f"{where}/{tensor_name}", _digest(_bytes_of(tensor))
        elif file.name == "predictions.csv":
            yield where, _digest(file.read_bytes())
        elif file.name == "log.jsonl":
            entries = [json.loads(line) for line in file.read_text().splitlines()]
            for number, entry in enumerate(entries, start=1):
                yield f"{where}/{number}", _digest(json.dumps({**entry, "speed": None}).encode())


def _bytes_of(tensor: torch.Tensor) -> bytes:
    content: Any = tensor.contiguous().numpy()
    return f"{tensor.dtype} {tuple(tensor.shape)} ".encode() + bytes(content.tobytes())


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _part(sums: dict[str, str], what: str) -> dict[str, str]:
    return {key: value for key, value in sums.items() if key.startswith(f"{what}/")}


if __name__ == "__main__":
    sys.exit(main())
