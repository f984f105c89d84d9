"""What goes wrong in long runs fails with an error that says what to change, and the run can be resumed."""

import contextlib
import dataclasses
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from torch import nn

from catheters.checkpoints.parts import build_classifier
from catheters.config.settings import Settings
from catheters.errors import UserError
from catheters.models.backbone import create_backbone
from catheters.runs.build import build_step
from catheters.runs.datasets import create_valid_loader, load_data, plain_samples
from catheters.runs.failures import explain_failures
from catheters.runs.preflight import try_step
from catheters.runs.probe import probe_batch
from catheters.runs.run import train_run
from catheters.runs.run_folder import only_process
from tests.processes import Training, num_snapshots, outcome, wait_until

CPU = torch.device("cpu")
NO_ENGINE = (
    "GET was unable to find an engine to execute this computation",
    "Unable to find a valid cuDNN algorithm to run convolution",
)


def test_memory_that_runs_out_names_what_takes_less(settings: Settings) -> None:
    with (
        pytest.raises(
            UserError,
            match=r"fold 3: out of memory \(.*1152921504606846976 bytes.*\); lower batch_size=8 \(batch_size=4 acc",
        ),
        explain_failures(settings, "fold 3"),
    ):
        torch.empty(1 << 60, dtype=torch.uint8)
    tight = dataclasses.replace(settings, batch_size=12, accumulation_steps=2, use_amp=False)
    text = "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 7.79 GiB of which"
    with pytest.raises(UserError) as error, explain_failures(tight, "fold 0"):
        raise torch.OutOfMemoryError(text)
    assert str(error.value) == (
        "fold 0: the GPU is out of memory (2.50 GiB more were asked for); lower batch_size=12 (batch_size=6 "
        "accumulation_steps=4 learns from as many images per step), set use_amp=True, set grad_checkpointing=True, "
        "lower image_size=32 or valid_batch_size, or choose a smaller backbone_model"
    )


def test_a_first_step_that_finds_no_memory_names_no_batch(settings: Settings) -> None:
    """It is of two images, whatever batch the user has set: a smaller one would not help."""

    def raise_always(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        if isinstance(module, nn.Conv2d):
            raise torch.OutOfMemoryError("CUDA out of memory")

    with (
        nn.modules.module.register_module_forward_pre_hook(raise_always),
        pytest.raises(UserError, match=r"the first step: the GPU is out of memory; set \w+=True") as error,
    ):
        try_step(settings, CPU, 1)
    assert "lower batch_size" not in str(error.value)
    assert "lower image_size=32" in str(error.value)


def test_no_memory_to_build_a_model_is_said_to_be_that(monkeypatch: pytest.MonkeyPatch) -> None:
    """And not that timm cannot make it."""

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:114] DefaultCPUAllocator: not enough memory")

    monkeypatch.setattr(timm, "create_model", fail)
    with pytest.raises(RuntimeError, match="DefaultCPUAllocator"):
        create_backbone("test_resnet", pretrained=False, image_shape=(32, 32), is_pooled=True)


@pytest.mark.parametrize(
    ("text", "is_memory"),
    [
        ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", True),
        ("CUDA error: out of memory", True),
        ("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED", True),
        ("could not create a primitive", True),
        ("could not create a primitive descriptor for a convolution forward propagation primitive", False),
        ("mat1 and mat2 shapes cannot be multiplied", False),
    ],
)
def test_libraries_out_of_memory(settings: Settings, text: str, is_memory: bool) -> None:
    """What NVIDIA's and Intel's say of memory comes as a plain RuntimeError, as their bugs do."""
    kind, said = (UserError, f"profile=True: out of memory ({text}); lower") if is_memory else (RuntimeError, text)
    with pytest.raises(kind, match=re.escape(said)), explain_failures(settings, "profile=True"):
        raise RuntimeError(text)


@pytest.mark.parametrize("text", NO_ENGINE)
@pytest.mark.parametrize(
    ("most", "deterministic", "said"),
    [
        (0, True, r"fold 1: cuDNN has no algorithm .*, with half .*; set deterministic=False, which allows more of"),
        (
            0,
            False,
            r"fold 1: cuDNN has no algorithm .*, with half .* neither \(.*\); choose another image_size",
        ),
        (4, True, r"fold 1: out of memory \(.*\); lower batch_size=8 \(batch_size=4 accumulation_steps=2 "),
        (3, True, r"fold 1: cuDNN has no algorithm .*, with half .*; set deterministic=False, which allows more of"),
    ],
)
def test_no_algorithm_is_memory_only_where_half_the_images_pass(
    settings: Settings, text: str, most: int, deterministic: bool, said: str
) -> None:
    """cuDNN says the same where memory is short and where no algorithm is deterministic."""

    def raise_above(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        if isinstance(module, nn.Conv2d) and len(inputs[0]) > most:
            raise RuntimeError(text)

    settings = dataclasses.replace(settings, deterministic=deterministic)
    step = build_step(settings, build_classifier(settings, 0.5, 0.25), 1, CPU)
    with (
        nn.modules.module.register_module_forward_pre_hook(raise_above),
        pytest.raises(UserError, match=said),
        explain_failures(settings, "fold 1"),
    ):
        step(probe_batch(settings, 8))


def test_no_algorithm_is_memory_where_half_the_images_find_none_left(settings: Settings) -> None:
    """In the middle of a training others may hold what even a smaller batch needs."""

    def raise_always(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        if isinstance(module, nn.Conv2d):
            is_half = len(inputs[0]) == 4
            raise torch.OutOfMemoryError("CUDA out of memory") if is_half else RuntimeError(NO_ENGINE[0])

    step = build_step(settings, build_classifier(settings, 0.5, 0.25), 1, CPU)
    with (
        nn.modules.module.register_module_forward_pre_hook(raise_always),
        pytest.raises(UserError, match=r"fold 1: out of memory \(GET was unable .*\); lower batch_size=8"),
        explain_failures(settings, "fold 1"),
    ):
        step(probe_batch(settings, 8))


@pytest.mark.parametrize(("num_workers", "number"), [(3, 3), (None, 1)])
@pytest.mark.parametrize(
    "text",
    [
        "unable to allocate shared memory(shm) for file </torch_12_3_4>: No space left on device (28)",
        "unable to write to file </torch_12_3_4>: No space left on device (28)",
        "unable to mmap 6291456 bytes from file </torch_12_3_4>: Cannot allocate memory (12)",
    ],
)
def test_no_room_in_shared_memory(settings: Settings, text: str, num_workers: int | None, number: int) -> None:
    """A DataLoader worker says so and lives on: a small /dev/shm, as containers have."""
    settings = dataclasses.replace(settings, num_workers=num_workers, device="cpu")
    message = rf"no room for a batch in shared memory; lower num_workers \(now {number}; 0 needs no shared memory\) or"
    with pytest.raises(UserError, match=message), explain_failures(settings, "fold 0"):
        raise RuntimeError(f"Caught RuntimeError in DataLoader worker process 0.\nOriginal Traceback\n{text}")


@pytest.mark.gpu
def test_a_gpu_out_of_memory(settings: Settings) -> None:
    message = r"the GPU is out of memory \(.* more were asked for\); lower batch_size"
    with pytest.raises(UserError, match=message), explain_failures(settings, "fold 0"):
        torch.empty(1 << 50, dtype=torch.uint8, device="cuda")


def test_other_errors_stay_what_they_are(settings: Settings) -> None:
    with pytest.raises(RuntimeError, match="a bug"), explain_failures(settings, "fold 0"):
        raise RuntimeError("a bug")


@pytest.fixture
def long_run(cached: Settings) -> Settings:
    return dataclasses.replace(cached, folds=(1,), batch_size=4, epochs=20, cosine_epochs=40, early_stop=0)


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.slow
def test_a_dataloader_worker_that_dies(long_run: Settings, tmp_path: Path) -> None:
    """As the kernel kills one when memory runs out; the same command then gives the result of an uninterrupted run."""
    whole = dataclasses.replace(long_run, run_name="whole")
    train_run(whole, fresh=False)
    settings = dataclasses.replace(long_run, num_workers=2)
    training = Training(settings, tmp_path / "out")
    fold = settings.run_folder / "fold1"
    wait_until(lambda: num_snapshots(fold) >= 3 and len(children_of(training.pid)) == 2, training)
    os.kill(children_of(training.pid)[0], signal.SIGKILL)
    assert training.wait() == 2
    last = training.text.splitlines()[-1]
    assert last.startswith("error: fold 1: a DataLoader worker died (SIGKILL): most often memory ran out")
    assert "lower num_workers (now 2; 0 needs no shared memory) or give" in last
    train_run(settings, fresh=False)
    assert outcome(settings.run_folder) == outcome(whole.run_folder)


@pytest.mark.slow
def test_a_cache_that_is_replaced_meanwhile(long_run: Settings, tmp_path: Path) -> None:
    """A mistake that a DataLoader worker finds is one line, as it is everywhere."""
    settings = dataclasses.replace(long_run, num_workers=1)
    training = Training(settings, tmp_path / "out")
    wait_until(lambda: num_snapshots(settings.run_folder / "fold1") >= 1, training)
    other = settings.cache_file.with_name("other")
    other.write_bytes(settings.cache_file.read_bytes())
    other.replace(settings.cache_file)
    assert training.wait() == 2
    assert training.text.splitlines()[-1] == (
        f"error: {settings.cache_file}: was rebuilt meanwhile, and its rows may be others; "
        "run preproc_npy.py with the same settings"
    )


def test_a_run_in_use(long_run: Settings, tmp_path: Path) -> None:
    training = Training(long_run, tmp_path / "out")
    wait_until(lambda: num_snapshots(long_run.run_folder / "fold1") >= 1, training)
    for fresh in (False, True):
        with pytest.raises(
            UserError, match=r"run: another process is training this run; wait until it has finished, or"
        ):
            train_run(long_run, fresh=fresh)
    training.kill()
    with only_process(long_run.run_folder):  # a killed process holds nothing
        pass


def fill(disk: Path) -> Path:
    """Take all the room that a disk has left."""
    ballast = disk / "ballast"
    with ballast.open("ab", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(4096)):
            pass
    return ballast


@pytest.mark.slow
def test_a_full_disk_costs_nothing(long_run: Settings, tmp_path: Path, mount_disk: Callable[[str, str], Path]) -> None:
    """Snapshots are left out, a checkpoint or log line that finds no room stops the run; then it is resumed."""
    whole = dataclasses.replace(long_run, run_name="whole")
    train_run(whole, fresh=False)
    disk = mount_disk("disk", "size=40m")
    settings = dataclasses.replace(long_run, saved_models_folder=str(disk), snapshot_iterations=1)
    training = Training(settings, tmp_path / "out")
    fold = settings.run_folder / "fold1"
    wait_until(lambda: num_snapshots(fold) >= 6, training)
    status = None
    while status is None:  # whatever old snapshots leave is taken at once
        ballast = fill(disk)
        status = training.poll()
    assert status == 2
    lines = training.text.splitlines()
    assert re.match(
        rf"error: {fold}/\S+: the disk is full; make room and run the same command again, it resumes where", lines[-1]
    )
    assert not list(fold.glob("*.part"))
    assert not list(fold.glob("last/*.part"))
    ballast.unlink()
    train_run(settings, fresh=False)
    assert outcome(settings.run_folder) == outcome(whole.run_folder)


def test_a_snapshot_that_finds_no_room_is_left_out(
    long_run: Settings, mount_disk: Callable[[str, str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """Training continues: there is room for one snapshot and the checkpoints, and not for two."""
    whole = dataclasses.replace(long_run, run_name="whole", epochs=2)
    train_run(whole, fresh=False)
    size = next(whole.run_folder.glob("fold1/last/*/state.pt")).stat().st_size
    disk = mount_disk("disk", f"size={2 * size // 1024 + 200}k")
    settings = dataclasses.replace(whole, run_name="run", saved_models_folder=str(disk))
    capsys.readouterr()
    train_run(settings, fresh=False)
    assert "warning: " in (err := capsys.readouterr().err)
    assert "the disk is full; make room and run the same command again, it resumes where it stopped; until then" in err
    assert num_snapshots(settings.run_folder / "fold1") == 1
    assert outcome(settings.run_folder) == outcome(whole.run_folder)


def test_no_room_from_the_start(long_run: Settings, mount_disk: Callable[[str, str], Path]) -> None:
    disk = mount_disk("disk", "size=64k")
    with pytest.raises(
        UserError, match=r"disk/run: snapshots and checkpoints need 0\.\d\d GB, 0\.00 GB are free; make room"
    ):
        train_run(dataclasses.replace(long_run, saved_models_folder=str(disk)), fresh=False)


def test_a_folder_that_cannot_be_written(long_run: Settings, mount_disk: Callable[[str, str], Path]) -> None:
    disk = mount_disk("disk", "size=64k,ro")
    with pytest.raises(UserError, match=r"disk: cannot be written \(Read-only file system\); set saved_models_folder"):
        train_run(dataclasses.replace(long_run, saved_models_folder=str(disk)), fresh=False)


def test_a_file_larger_than_allowed(long_run: Settings, tmp_path: Path) -> None:
    """A limit of the process: the message does not speak of a full disk."""
    import resource

    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    pid = os.fork()
    if pid == 0:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
        training = Training(dataclasses.replace(long_run, epochs=1), tmp_path / "out")
        os._exit(training.wait())
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 2
    assert "best.pt: the file would be larger than files may be here; make room" in (tmp_path / "out").read_text()


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_damaged_row_fails_with_one_line(cached: Settings, num_workers: int) -> None:
    """From a DataLoader worker as well, with the advice once."""
    data = load_data(cached)
    state = cached.cache_file.stat()
    content = bytearray(cached.cache_file.read_bytes())
    content[-1] ^= 1
    cached.cache_file.write_bytes(content)
    os.utime(cached.cache_file, ns=(state.st_atime_ns, state.st_mtime_ns))
    last = data.rows == data.rows.max()
    loader = create_valid_loader(
        dataclasses.replace(cached, num_workers=num_workers), plain_samples(cached, data, last), torch.device("cpu")
    )
    with pytest.raises(UserError) as error, explain_failures(cached, "fold 0"):
        list(loader)
    assert str(error.value) == (
        f"{cached.cache_file}: damaged: row {data.rows.max()}, {data.uids[last][0]}, is not what was written; run "
        "preproc_npy.py with the same settings"
    )


@pytest.mark.slow
def test_a_run_folder_that_is_removed_fails_with_one_line(cached: Settings, tmp_path: Path) -> None:
    """Neither a traceback of the training nor one of TensorBoard's, nor a part of the folder made again."""
    settings = dataclasses.replace(cached, cosine_epochs=500, snapshot_iterations=1)
    training = Training(settings, tmp_path / "out")
    wait_until(lambda: num_snapshots(settings.run_folder / "fold0") > 3, training)
    settings.run_folder.rename(tmp_path / "gone")
    assert training.wait() == 2, training.text
    assert "Traceback" not in training.text
    assert training.text.splitlines()[-1].startswith(
        f"error: {settings.run_folder}: was removed or renamed while fold 0 was trained ("
    )
    assert not settings.run_folder.exists()
