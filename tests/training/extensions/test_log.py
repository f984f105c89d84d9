"""The log: a line for every group of batches and every epoch, in numbers that do not hang on when they were read."""

import dataclasses
import json
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from catheters.checkpoints.parts import build_classifier
from catheters.config.settings import Settings
from catheters.data.batch import Batch
from catheters.errors import UserError
from catheters.runs.build import build_step
from catheters.runs.run import train_run
from catheters.training.extensions.log import LINE_EVERY, read_epochs
from catheters.training.loop import train_epoch
from tests.conftest import CreateManager

CPU = torch.device("cpu")


def lines_of(folder: Path) -> list[dict[str, float | str | dict[str, float | None]]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_lines_are_means_of_the_batches(settings: Settings, tmp_path: Path, create_manager: CreateManager) -> None:
    """Against the same steps by hand, two batches per step: learning rates, losses, norms of the gradients."""
    settings = dataclasses.replace(settings, accumulation_steps=2, batch_size=2)
    num_batches = LINE_EVERY + 20
    torch.manual_seed(2)
    batches = [
        Batch(
            images=torch.randint(0, 256, (2, 1, 32, 32), dtype=torch.uint8),
            targets=torch.randint(0, 2, (2, 11)).float(),
        )
        for _ in range(num_batches)
    ]
    torch.manual_seed(0)
    by_hand = build_step(settings, build_classifier(settings, 0.5, 0.25), num_batches, CPU)
    losses, norms, rates = [], [], []
    for batch in batches:
        rates.append(by_hand.learning_rate)
        result = by_hand(batch)
        losses.append(float(result.loss))
        norms.append(np.nan if result.grad_norm is None else float(result.grad_norm))
    assert np.isnan(norms).tolist() == [True, False] * (num_batches // 2)

    torch.manual_seed(0)
    step = build_step(settings, build_classifier(settings, 0.5, 0.25), num_batches, CPU)
    manager, log = create_manager(step, tmp_path, num_batches=num_batches)
    train_epoch(batches, step, manager, log, "")
    log.end_epoch(num_batches, 0.5, {"val/loss": 0.25, "val/auc/x": float("nan")})
    first, second, epoch = lines_of(tmp_path)
    for line, start, end in ((first, 0, LINE_EVERY), (second, LINE_EVERY, num_batches)):
        assert (line["kind"], line["epoch"], line["iteration"]) == ("batches", 1, end)
        assert line["train/loss"] == pytest.approx(np.mean(losses[start:end]))
        assert line["train/grad_norm"] == pytest.approx(np.nanmean(norms[start:end]))
        assert line["lr"] == rates[end - 1]
        speed = line["speed"]
        assert isinstance(speed, dict)
        assert speed["images_per_second"] > 0
        assert 0 <= speed["waiting_share"] <= 1
        assert speed["gpu_memory_gb"] is None
    assert epoch["kind"] == "epoch"
    assert epoch["train/loss"] == pytest.approx(np.mean(losses))
    assert (epoch["lr"], epoch["val/loss"], epoch["val/auc/x"]) == (0.5, 0.25, None)


def test_waiting_is_measured(settings: Settings, tmp_path: Path, create_manager: CreateManager) -> None:
    """Batches that take a known part of the time."""
    step = build_step(settings, build_classifier(settings, 0.5, 0.25), 10, CPU)
    manager, log = create_manager(step, tmp_path, num_batches=10)
    batch = Batch(images=torch.zeros((2, 1, 32, 32), dtype=torch.uint8), targets=torch.zeros((2, 11)))

    class Slow:
        def __len__(self) -> int:
            return 10

        def __iter__(self):
            for _ in range(10):
                started = __import__("time").monotonic()
                while __import__("time").monotonic() < started + 0.05:
                    pass
                yield batch

    train_epoch(Slow(), step, manager, log, "")
    speed = lines_of(tmp_path)[0]["speed"]
    assert isinstance(speed, dict)
    seconds = 20 / speed["images_per_second"]
    assert 0.49 <= speed["waiting_share"] * seconds < seconds


def test_a_group_that_a_snapshot_splits_is_the_same(
    settings: Settings, tmp_path: Path, create_manager: CreateManager
) -> None:
    """State taken in the middle of a group: lines written after it go, the group's mean comes out the same."""
    torch.manual_seed(2)
    batches = [
        Batch(
            images=torch.randint(0, 256, (2, 1, 32, 32), dtype=torch.uint8),
            targets=torch.randint(0, 2, (2, 11)).float(),
        )
        for _ in range(12)
    ]

    class PartOfEpoch:
        """Breaks off after some of them."""

        def __init__(self, start: int, end: int) -> None:
            self.part = batches[start:end]

        def __len__(self) -> int:
            return 12

        def __iter__(self):
            return iter(self.part)

    torch.manual_seed(0)
    step = build_step(settings, build_classifier(settings, 0.5, 0.25), 12, CPU)
    (tmp_path / "whole").mkdir()
    manager, log = create_manager(step, tmp_path / "whole", num_batches=12)
    train_epoch(PartOfEpoch(0, 5), step, manager, log, "")
    log.read()
    state = log.state_dict()
    train_epoch(PartOfEpoch(5, 12), step, manager, log, "")
    whole = {**lines_of(tmp_path / "whole")[0], "speed": None}

    torch.manual_seed(0)
    step = build_step(settings, build_classifier(settings, 0.5, 0.25), 12, CPU)
    (tmp_path / "again").mkdir()
    manager, log = create_manager(step, tmp_path / "again", num_batches=12)
    for batch in batches[:5]:
        step(batch)
    (tmp_path / "again" / "log.jsonl").write_text("a line that came after the snapshot, half wri")
    log.load_state_dict(state)
    manager.iteration = 5
    train_epoch(PartOfEpoch(5, 12), step, manager, log, "")
    assert [{**line, "speed": None} for line in lines_of(tmp_path / "again")] == [whole]


@pytest.mark.slow
def test_tensorboard_shows_the_same_numbers(cached: Settings) -> None:
    """The event files of a resumed run have each number once."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    settings = dataclasses.replace(
        cached, folds=(1,), cosine_epochs=3, epochs=2, early_stop=0, trackers=("tensorboard",)
    )
    train_run(settings, fresh=False)
    train_run(dataclasses.replace(settings, epochs=4), fresh=False)
    folder = settings.run_folder / "fold1"
    assert len(list((folder / "tensorboard").iterdir())) == 2
    events = accumulator.EventAccumulator(str(folder / "tensorboard"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        events.Reload()
    log = read_epochs(folder)
    for tag, key in (("val/macro_auc", "val/macro_auc"), ("train/loss_of_epoch", "train/loss")):
        scalars = events.Scalars(tag)
        assert [scalar.step for scalar in scalars] == [entry["iteration"] for entry in log]
        assert [scalar.value for scalar in scalars] == pytest.approx([entry[key] for entry in log])
    assert {"train/loss", "train/grad_norm", "lr", "speed/images_per_second"} <= set(events.Tags()["scalars"])


def test_a_failing_run_closes_tensorboards_file(cached: Settings) -> None:
    """The thread that writes it would else outlive the run."""
    pytest.importorskip("tensorboard")
    settings = dataclasses.replace(
        cached,
        trackers=("tensorboard",),
        batch_size=40,
        warmup_epochs=3,
        init_lr=1e-9,
        warmup_multiplier=1e39,
        optimizer="momentum",
    )
    before = set(threading.enumerate())
    with pytest.raises(UserError, match="the validation loss is"):
        train_run(settings, fresh=False)
    assert (settings.run_folder / "fold0" / "tensorboard").is_dir()
    assert set(threading.enumerate()) <= before
