"""Kill training at random moments: its result has to be that of an uninterrupted run, bit for bit.

    python tests/stress/kill_training.py --num-kills 30

A small model learns from the synthetic sample, with two DataLoader workers, EMA weights, gradient accumulation,
mixup, dropout, stochastic depth and a plateau schedule, once uninterrupted. Then the same is started again and again,
each time killed (SIGKILL) at a random moment of its training, and every third time of its start, until so many kills
have come. Whenever a run finishes by itself it is compared, and the next one starts from nothing. Compared are every
tensor of `best.pt` and `best_raw.pt`, `predictions.csv` byte by byte, and `log.jsonl` but for what a clock measured.
The exit status is 1 where anything differs.
"""

import argparse
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from catheters.config.loading import settings_to_json
from catheters.config.settings import Settings
from catheters.synthetic import generate_sample

REPOSITORY = Path(__file__).parents[2]


def with_everything(folder: Path) -> Settings:
    """Settings in which everything that has a state, or draws, takes part."""
    return Settings(
        dataset_folder=str(folder / "data"),
        cache_folder=str(folder),
        cache_name="killed",
        saved_models_folder=str(folder),
        image_size=48,
        num_folds=2,
        train_transforms=(("HorizontalFlip", {"p": 0.5}), ("Affine", {"rotate": (-10, 10), "p": 0.8})),
        batch_size=8,
        num_workers=2,
        accumulation_steps=2,
        backbone_model="test_efficientnet",
        pretrained=False,
        drop_rate=0.2,
        drop_path_rate=0.1,
        mixup_alpha=0.4,
        ema_decay=0.95,
        clip_grad_norm=1.0,
        optimizer="AdamW",
        init_lr=1e-3,
        warmup_epochs=1,
        warmup_multiplier=2.0,
        schedule="plateau",
        plateau_patience=1,
        epochs=10,
        early_stop=8,
        device="cpu",
        snapshot_iterations=2,
    )


def command(script: str, config: Path, run_name: str) -> list[str]:
    """What a user would run."""
    return [sys.executable, str(REPOSITORY / script), "--config", str(config), f"run_name={run_name}"]


def outcome(run_folder: Path) -> dict[str, str]:
    """Checksums of a run's results; what the clock measured is left out."""
    sums = {"predictions.csv": hashlib.sha256((run_folder / "predictions.csv").read_bytes()).hexdigest()}
    for fold in sorted(run_folder.glob("fold*")):
        for name in ("best.pt", "best_raw.pt"):
            digest = hashlib.sha256()
            for key, value in torch.load(fold / name, weights_only=True)["model"].items():
                digest.update(f"{key} {value.dtype} {tuple(value.shape)}".encode())
                digest.update(value.numpy().tobytes())
            sums[f"{fold.name}/{name}"] = digest.hexdigest()
        entries = [json.loads(line) for line in (fold / "log.jsonl").read_text().splitlines()]
        without_clock = json.dumps([{**entry, "speed": None} for entry in entries])
        sums[f"{fold.name}/log.jsonl"] = hashlib.sha256(without_clock.encode()).hexdigest()
    return sums


def kill(arguments: list[str], seconds: float, *, in_training: bool) -> bool:
    """Start a command and kill it after so long, counted from the start of training; whether that was in time."""
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    if in_training:
        for line in process.stdout:
            if " -> " in line:  # it has entered the run folder
                break
    time.sleep(seconds)
    is_running = process.poll() is None
    if is_running:
        os.kill(process.pid, signal.SIGKILL)
    process.stdout.close()
    process.wait()
    if not is_running and process.returncode != 0:
        raise RuntimeError(f"train.py exited with status {process.returncode}")
    return is_running


def main() -> int:
    """Run it; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-kills", type=int, default=30)
    parser.add_argument("--num-images", type=int, default=240)
    parser.add_argument("--max-seconds", type=float, default=4.0, help="a kill comes so long after the start at most")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        generate_sample(folder / "data", num_images=options.num_images, num_test_images=0, image_size=64)
        config = folder / "killed.py"
        text = settings_to_json(with_everything(folder))
        config.write_text(
            f"from catheters.config.loading import settings_from_json\nsettings = settings_from_json({text!r}, '')\n"
        )
        subprocess.run(command("preproc_npy.py", config, "uninterrupted"), check=True, stdout=subprocess.DEVNULL)
        start = time.monotonic()
        subprocess.run(command("train.py", config, "uninterrupted"), check=True, stdout=subprocess.DEVNULL)
        seconds = time.monotonic() - start
        expected = outcome(folder / "uninterrupted")

        kills, kills_of_run = 0, 0
        differing: set[str] = set()
        num_compared = 0
        while kills < options.num_kills or kills_of_run:
            arguments = command("train.py", config, f"killed{num_compared}")
            if kills == options.num_kills:
                subprocess.run(arguments, check=True, stdout=subprocess.DEVNULL)
            elif kill(arguments, rng.uniform(0, options.max_seconds), in_training=kills % 3 != 2):
                kills, kills_of_run = kills + 1, kills_of_run + 1
                continue
            got = outcome(folder / f"killed{num_compared}")
            differing |= {name for name in expected if got[name] != expected[name]}
            num_compared += 1
            print(f"run {num_compared}: killed {kills_of_run} times; differs in: {', '.join(differing) or 'nothing'}")
            kills_of_run = 0
        num_damaged = len(list(folder.rglob("*.damaged")))
    print(f"{kills} kills in {num_compared} runs of {seconds:.0f} s uninterrupted, damaged snapshots: {num_damaged}")
    for name, checksum in expected.items():
        print(f"{checksum[:16]}  {name:<24}{'DIFFERS' if name in differing else 'the same in all'}")
    return int(bool(differing))


if __name__ == "__main__":
    sys.exit(main())
