"""What a run benchmarks before it starts: the memory layout of images, the largest batch, the learning rate for it."""

import dataclasses
import gc
import json
import subprocess
import sys
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from catheters.config.loading import settings_from_json
from catheters.config.settings import Settings
from catheters.errors import SettingsError, UserError
from catheters.runs import autotune
from catheters.runs.autotune import (
    LAYOUTS_FILE,
    choose_batch_size,
    choose_layout,
    largest_that_fits,
    settings_of_run,
    with_batch_size,
)
from catheters.runs.probe import probe_batch, probe_step
from catheters.runs.run import train_run
from catheters.training.step import TrainStep
from tests.processes import start_ranks, train_with_ranks

CPU = torch.device("cpu")
NO_ENGINE = "GET was unable to find an engine to execute this computation"
AUTO = Settings(batch_size="auto", lr_batch_size=16, init_lr=1e-3)


@pytest.mark.parametrize(
    ("optimizer", "batch_size", "init_lr"),
    [("Adam", 64, 2e-3), ("LAMB", 4, 5e-4), ("SGD", 64, 4e-3), ("momentum", 8, 5e-4), ("AdamW", 16, 1e-3)],
)
def test_learning_rate_follows_the_batch(optimizer: str, batch_size: int, init_lr: float) -> None:
    """Worked out by hand: 4 times the batch is twice the learning rate, or 4 times where it is in proportion."""
    settled = with_batch_size(dataclasses.replace(AUTO, optimizer=optimizer), batch_size)
    assert settled.batch_size == settled.images_per_batch == batch_size
    assert settled.init_lr == pytest.approx(init_lr)


def test_a_number_stays(capsys: pytest.CaptureFixture[str]) -> None:
    settings = Settings(batch_size=5)
    assert choose_batch_size(settings, None, CPU, 1, 100) == 5
    assert with_batch_size(settings, 5) == settings
    assert capsys.readouterr().out == ""


@pytest.mark.slow
def test_an_epoch_keeps_some_steps(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    """Memory would take all the images at once."""
    settings = dataclasses.replace(settings, batch_size="auto")
    assert choose_batch_size(settings, None, CPU, 1, 200) == 10
    assert choose_batch_size(settings, None, CPU, 2, 200) == 10  # 5 per rank
    assert choose_batch_size(dataclasses.replace(settings, accumulation_steps=5), None, CPU, 1, 200) == 2
    said = capsys.readouterr().out
    assert "batch_size='auto': 10 images, 5 per rank, the most that 200 training images allow" in said
    # So few images that an epoch cannot have them all at once: as many as there are for a step of each.
    assert choose_batch_size(dataclasses.replace(settings, accumulation_steps=8), None, CPU, 1, 10) == 1
    assert choose_batch_size(settings, None, CPU, 2, 3) == 2


def test_a_system_that_does_not_say_what_memory_is_taken(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(autotune, "reset_peak_memory", lambda: False)
    with pytest.raises(SettingsError, match="does not say how much memory a batch takes; set a number"):
        choose_batch_size(dataclasses.replace(settings, batch_size="auto"), None, CPU, 1, 1000)


def test_a_learning_rate_that_follows_below_the_lowest() -> None:
    settings = dataclasses.replace(AUTO, optimizer="SGD", warmup_epochs=0, min_lr=3e-4)
    with pytest.raises(SettingsError, match=r"'auto': 2 images, so init_lr=0.000125: min_lr=0.0003 is above the peak"):
        with_batch_size(settings, 2)


def test_accumulated_batches_are_one_step() -> None:
    settings = dataclasses.replace(AUTO, accumulation_steps=4)
    assert with_batch_size(settings, 16).init_lr == pytest.approx(2e-3)


def images_that_fit(most: int, text: str) -> tuple[int, list[int]]:
    """What is found, of 100 foreseen, where batches above `most` raise an error; and what was tried."""
    tried = []

    def try_batch(num_images: int) -> None:
        tried.append(num_images)
        if num_images > most:
            raise RuntimeError(text)

    return largest_that_fits(AUTO, 100, try_batch), tried


def test_fewer_images_until_they_fit(capsys: pytest.CaptureFixture[str]) -> None:
    """By hand: 100, and each time 5% fewer, rounded down."""
    assert images_that_fit(100, "") == (100, [100])
    assert images_that_fit(86, "CUDA out of memory") == (85, [100, 95, 90, 85])
    # Where cuDNN has no algorithm, half of them have to pass.
    assert images_that_fit(91, NO_ENGINE) == (90, [100, 50, 95, 47, 90])
    assert capsys.readouterr().err == ""
    with pytest.raises(RuntimeError, match="a bug"):
        images_that_fit(50, "a bug")


@pytest.mark.parametrize("text", ["CUDA out of memory", NO_ENGINE])
def test_nothing_of_a_failed_try_is_left_for_the_next(settings: Settings, text: str) -> None:
    """Model, optimizer and all that the step had: of a failure's traceback, in its handler too, and of a success."""
    alive: weakref.WeakSet[TrainStep] = weakref.WeakSet()

    def try_batch(num_images: int) -> None:
        autotune._release(CPU)
        assert not alive
        step = probe_step(settings, CPU, num_batches=1)
        alive.add(step)
        step(probe_batch(settings, num_images))
        if num_images > 7:
            raise RuntimeError(text)

    assert largest_that_fits(settings, 8, try_batch) == 7
    gc.collect()
    assert not alive


@pytest.mark.slow
def test_a_batch_never_shrinks_to_two_unsaid(capsys: pytest.CaptureFixture[str]) -> None:
    """No deterministic algorithm is named as that; memory that is short in spite of what was foreseen is warned of."""
    said = r"^batch_size='auto', 100 images: cuDNN has no algorithm .*; set deterministic=False, which allows more"
    for most in (2, 4, 49):
        with pytest.raises(UserError, match=said):
            images_that_fit(most, NO_ENGINE)
    assert images_that_fit(2, "CUDA out of memory")[0] == 2
    assert (
        "warning: batch_size='auto': 2 images fit where 100 were foreseen (CUDA out of memo" in capsys.readouterr().err
    )


LARGEST_BATCH = """
import dataclasses
import sys
import torch
from catheters import Settings
from catheters.runs import autotune
from catheters.runs.probe import probe_batch, probe_step
from catheters.runtime.host import peak_memory, resident_memory

settings = Settings(
    batch_size="auto", image_size=512, backbone_model="resnet18", pretrained=False, channels_last=False,
    accumulation_steps=int(sys.argv[1]),
)
room = 2_000_000_000
autotune.available_memory = lambda: room  # of a smaller machine
cpu = torch.device("cpu")
number = autotune.choose_batch_size(settings, None, cpu, 1, 10**6)
assert 5 < number < 100, number
autotune._release(cpu)
before = resident_memory()
settings = dataclasses.replace(settings, batch_size=number)
step = probe_step(settings, cpu, 12)
for _ in range(2 * settings.accumulation_steps):
    step(probe_batch(settings, number))
assert 0.5 * room < peak_memory() - before < room, (number, peak_memory() - before)
"""


@pytest.mark.slow
@pytest.mark.parametrize("accumulation_steps", [1, 3])
def test_memory_bounds_the_batch(accumulation_steps: int) -> None:
    """What a step of the batch really takes agrees with what was foreseen; in a process that has freed nothing yet."""
    subprocess.run([sys.executable, "-c", LARGEST_BATCH, str(accumulation_steps)], check=True)


MEMORY_OF_A_PROCESS = """
from catheters.runtime.host import available_memory, peak_memory
from catheters.runtime.host import release_free_memory, reset_peak_memory, resident_memory

before = resident_memory()
block = bytearray(b"x") * 120_000_000
assert 110e6 < resident_memory() - before < 150e6
del block
release_free_memory()
assert resident_memory() < before + 30e6
assert peak_memory() > before + 110e6
reset_peak_memory()
assert peak_memory() < before + 30e6
assert available_memory() > 1e8
"""


def test_memory_of_a_process() -> None:
    """In one of its own, which has freed nothing yet."""
    subprocess.run([sys.executable, "-c", MEMORY_OF_A_PROCESS], check=True)


def test_layout_is_measured_once(settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = dataclasses.replace(settings, channels_last=None, cache_folder=str(tmp_path))
    chosen = choose_layout(settings, None, CPU, 8)
    said = capsys.readouterr().out
    assert f"channels_last={chosen}: forward and backward take " in said
    ((key, seconds),) = json.loads((tmp_path / LAYOUTS_FILE).read_text()).items()
    assert key.startswith("test_resnet, linear of 1, 4x1x32x32, float32, CPU with 1 threads, deterministic, torch ")
    assert chosen == (seconds["channels_last"] < 0.97 * seconds["contiguous"])
    # What is remembered decides, not the clock; a gain of 2% may be the clock's.
    for contiguous, channels_last, is_taken in ((1.0, 2.0, False), (2.0, 1.0, True), (1.0, 0.98, False)):
        layouts = {key: {"contiguous": contiguous, "channels_last": channels_last}}
        (tmp_path / LAYOUTS_FILE).write_text(json.dumps(layouts))
        assert choose_layout(settings, None, CPU, 8) == is_taken
    assert choose_layout(dataclasses.replace(settings, channels_last=False), None, CPU, 8) is False


def test_two_runs_that_measure_at_once(settings: Settings, tmp_path: Path) -> None:
    """What one has written while the other measured stays."""
    settings = dataclasses.replace(settings, channels_last=None, cache_folder=str(tmp_path))
    sizes = (32, 40)
    with ThreadPoolExecutor(len(sizes)) as pool:
        list(pool.map(lambda size: choose_layout(dataclasses.replace(settings, image_size=size), None, CPU, 2), sizes))
    known = json.loads((tmp_path / LAYOUTS_FILE).read_text())
    assert sorted(key.split(", ")[2] for key in known) == ["2x1x32x32", "2x1x40x40"]


@pytest.mark.parametrize("content", ["", "[]", '{"a": 3}', '{"a": {"contiguous": "x"}}'])
def test_a_damaged_benchmark_file_is_measured_again(settings: Settings, tmp_path: Path, content: str) -> None:
    (tmp_path / LAYOUTS_FILE).write_text(content)
    settings = dataclasses.replace(settings, channels_last=None, cache_folder=str(tmp_path))
    choose_layout(settings, None, CPU, 2)
    assert len(json.loads((tmp_path / LAYOUTS_FILE).read_text())) == 1


@pytest.mark.slow
def test_a_resumed_run_keeps_its_choices(cached: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    """Batch and layout are those it was started with, whatever a benchmark finds now; bit for bit as uninterrupted."""
    settings = dataclasses.replace(
        cached, batch_size="auto", channels_last=None, lr_batch_size=4, folds=(1,), early_stop=0, cosine_epochs=2
    )
    train_run(dataclasses.replace(settings, run_name="whole"), fresh=False)
    layouts = Path(settings.cache_folder) / LAYOUTS_FILE
    train_run(dataclasses.replace(settings, epochs=1), fresh=False)
    started = settings_from_json((settings.run_folder / "settings.json").read_text(), "")
    assert started.channels_last is not None
    known = json.loads(layouts.read_text())
    other = {key: dict(zip(of_key, reversed(of_key.values()), strict=True)) for key, of_key in known.items()}
    layouts.write_text(json.dumps(other))
    capsys.readouterr()
    train_run(settings, fresh=False)
    assert "channels_last" not in capsys.readouterr().out
    assert settings_of_run(settings, fresh=False) == dataclasses.replace(started, epochs=None)
    assert settings_of_run(settings, fresh=True) is None
    whole = dataclasses.replace(settings, run_name="whole").run_folder
    assert (settings.run_folder / "predictions.csv").read_bytes() == (whole / "predictions.csv").read_bytes()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Grad strides do not match bucket view strides")
def test_another_world_size_keeps_the_batch(cached: Settings, tmp_path: Path) -> None:
    """It is the global batch; a world size that does not divide it is refused in one line."""
    settings = dataclasses.replace(
        cached, backbone_model="test_convnext", batch_size="auto", lr_batch_size=4, folds=(1,), early_stop=0
    )
    train_run(dataclasses.replace(settings, epochs=1), fresh=False)
    started = settings_from_json((settings.run_folder / "settings.json").read_text(), "")
    number = started.images_per_batch
    assert number == 2
    train_with_ranks(dataclasses.replace(settings, epochs=2), tmp_path, 2)
    assert "the snapshot is of world size 1, this is 2" in (tmp_path / "out0").read_text()
    assert settings_of_run(settings, fresh=False) == dataclasses.replace(started, epochs=2)
    more = start_ranks(settings, tmp_path, 3)
    statuses = [training.wait() for training in more]
    assert statuses[0] == 2
    assert (
        "error: batch_size='auto': the run was started with 2 images, which 3 processes cannot share equally; start a"
    ) in (tmp_path / "out0").read_text()


def test_auto_resumes_with_the_learning_rate_of_the_run(cached: Settings) -> None:
    """Here it was started with numbers, and another learning rate would follow from what fits."""
    settings = dataclasses.replace(cached, batch_size=2, folds=(1,), epochs=1)
    train_run(settings, fresh=False)
    auto = dataclasses.replace(settings, batch_size="auto", lr_batch_size=8)
    with pytest.raises(
        SettingsError,
        match=r"run was started with batch_size=2 init_lr=0\.001, and init_lr=0\.0005 would follow now; set those two",
    ):
        train_run(auto, fresh=False)
    train_run(dataclasses.replace(auto, lr_batch_size=2), fresh=False)


@pytest.mark.slow
def test_a_batch_of_one_that_is_too_small(cached: Settings) -> None:
    """Two images were tried before it was known how many there would be."""
    settings = dataclasses.replace(cached, batch_size="auto", accumulation_steps=16, backbone_model="resnest14d")
    with pytest.raises(UserError, match=r"backbone_model=resnest14d, .* cannot learn from 1 images of 32 px: Expected"):
        train_run(settings, fresh=False)
    assert not settings.run_folder.exists()


@pytest.mark.gpu
@pytest.mark.parametrize("changes", [{}, {"accumulation_steps": 2, "optimizer": "LAMB"}])
def test_largest_batch_of_a_gpu(settings: Settings, changes: dict[str, Any]) -> None:
    """A run's steps with it fit, and take more than a half of the memory."""
    settings = dataclasses.replace(
        settings, batch_size="auto", image_size=1024, backbone_model="resnet18", device="cuda", **changes
    )
    device = torch.device("cuda")
    number = choose_batch_size(settings, None, device, 1, 10**6)
    step = probe_step(dataclasses.replace(settings, batch_size=number), device, num_batches=4)
    torch.cuda.reset_peak_memory_stats()
    for _ in range(4):
        step(probe_batch(settings, number))
    assert torch.cuda.max_memory_allocated() / torch.cuda.mem_get_info()[1] > 0.5
