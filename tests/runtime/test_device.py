"""Devices: what is opened, what is said of a GPU that does not compute, and which process has which."""

import dataclasses
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch.distributed import HashStore

import catheters
from catheters.commands.predict import main as predict
from catheters.config.settings import Settings
from catheters.errors import SettingsError, UserError
from catheters.runs.autotune import choose_batch_size
from catheters.runs.failures import explain_failures
from catheters.runs.run import train_run
from catheters.runtime.device import (
    OLDER_WHEEL,
    OLDER_WHEEL_CAPABILITIES,
    check_own_devices,
    choose_device,
    identity_of,
    is_built_for,
    open_device,
    why_unusable,
)
from catheters.runtime.distributed import TorchrunProcesses
from catheters.runtime.precision import bfloat16_warning, choose_dtype
from tests.conftest import REPOSITORY, assert_user_error, sees_gpu

FROM_PYPI = ("sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120")
UNUSABLE = r"^device=auto: a GPU is counted, but .*; device=cpu computes without a GPU$"


@pytest.fixture
def counted_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """NVML counts a GPU that CUDA cannot use, as with an old driver."""
    monkeypatch.setattr(torch.cuda, "_device_count_nvml", lambda: 1)


@pytest.mark.usefixtures("counted_gpu")
def test_a_gpu_that_is_counted_and_does_not_compute(
    cached: Settings, evaluated_run: Path, sample_folder: Path, tmp_path: Path
) -> None:
    """Training, prediction and the API say so in one line, and none of them computes on the CPU unasked."""
    assert torch.cuda.device_count() == 1
    auto = dataclasses.replace(cached, device="auto")
    with pytest.raises(UserError, match=UNUSABLE):
        train_run(auto, fresh=False)
    assert not auto.run_folder.exists()
    out = tmp_path / "p.csv"
    for more in ([], ["--heatmaps", str(tmp_path / "maps")], ["--serve", "--port", "0"]):
        images = [] if "--serve" in more else [str(sample_folder / "test"), "--out", str(out)]
        with pytest.raises(UserError, match=UNUSABLE):
            predict(["--model", str(evaluated_run), *images, *more])
    assert not out.exists()
    with pytest.raises(UserError, match=UNUSABLE):
        catheters.load(evaluated_run)
    with pytest.raises(UserError, match=r"^device=cuda:0: a GPU is counted"):
        catheters.load(evaluated_run, device="cuda:0")
    assert open_device("cpu") == torch.device("cpu")


@pytest.mark.slow
def test_train_py_says_it_in_one_line(cached: Settings, write_config: Callable[[Settings], Path]) -> None:
    """The real script, in a process where a GPU is counted."""
    program = (
        "import runpy, sys, torch; torch.cuda._device_count_nvml = lambda: 1; "
        "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    config = write_config(dataclasses.replace(cached, device="auto"))
    command = [sys.executable, "-c", program, str(REPOSITORY / "train.py"), "--config", str(config)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert_user_error(result, "error: device=auto: a GPU is counted, but ", "device=cpu computes without a GPU")


@pytest.mark.parametrize(
    ("error", "gpu", "said", "names_older_wheel"),
    [
        (
            "Found no NVIDIA driver on your system. Please check that you have an NVIDIA GPU and installed a driver",
            None,
            r"no NVIDIA driver responds; install one \(torch .* needs driver R580 or newer\)",
            False,
        ),
        (
            "The NVIDIA driver on your system is too old (found version 12020). Please update your GPU driver by",
            None,
            r"driver is too old: it has CUDA 12\.2, and torch .* needs driver R580 or newer; ",
            True,
        ),
        (
            "CUDA error: no kernel image is available for execution on the device",
            ("Tesla P100-PCIE-16GB", (6, 0)),
            r"Tesla P100-PCIE-16GB \(sm_60\) is none of the cards that torch .* is built for \(sm_75 .* sm_120\); ",
            True,
        ),
        ("no kernel image", ("GeForce GTX 1080", (6, 1)), r"GTX 1080 \(sm_61\) is none of", True),
        ("no kernel image", ("Tesla K80", (3, 7)), r"Tesla K80 \(sm_37\) is none of the cards", False),
        ("no kernel image", ("a later card", (13, 0)), r"a later card \(sm_130\) is none of the cards", False),
        (
            "CUDA error: all CUDA-capable devices are busy or unavailable",
            ("Tesla T4", (7, 5)),
            r"^Tesla T4 is counted, but does not compute \(CUDA error: all CUDA-capable devices are busy",
            False,
        ),
    ],
)
def test_what_keeps_a_gpu_from_computing(
    error: str, gpu: tuple[str, tuple[int, int]] | None, said: str, names_older_wheel: bool
) -> None:
    reason = why_unusable(error, gpu, FROM_PYPI, "13.0")
    assert "\n" not in reason
    assert (OLDER_WHEEL in reason) == names_older_wheel
    with pytest.raises(UserError, match=said):
        raise UserError(reason)


def test_the_older_wheel_is_of_the_same_versions() -> None:
    """As requirements.txt pins them, and for the cards of which torch's own table of its releases speaks."""
    pins = (REPOSITORY / "requirements.txt").read_text().split()
    assert [pin for pin in pins if pin.startswith(("torch==", "torchvision=="))] == OLDER_WHEEL.split()[:2]
    releases = torch.cuda.PYTORCH_RELEASES_CODE_CC
    built = releases["12.6"]["x86_64"]
    assert (min(built), max(built)) == (50, 90)
    left_out = built - releases["13.0"]["x86_64"]
    assert [divmod(number, 10) for number in (min(left_out), max(left_out))] == list(OLDER_WHEEL_CAPABILITIES)


@pytest.mark.parametrize(
    ("capability", "arch_list", "runs"),
    [
        ((7, 5), FROM_PYPI, True),
        ((8, 9), FROM_PYPI, True),  # Ada, by sm_86
        ((12, 1), FROM_PYPI, True),
        ((7, 0), FROM_PYPI, False),
        ((6, 1), ("sm_50", "sm_60"), True),
        ((8, 0), ("sm_86",), False),
        ((11, 0), FROM_PYPI, False),
        ((11, 0), ("sm_80", "compute_80"), True),  # PTX
        ((9, 0), ("sm_90a",), True),
        ((10, 3), ("sm_100a",), False),
    ],
)
def test_code_for_a_card(capability: tuple[int, int], arch_list: Sequence[str], runs: bool) -> None:
    assert is_built_for(capability, arch_list) == runs


def test_bfloat16_before_ampere() -> None:
    assert bfloat16_warning("Tesla T4", (7, 5)).startswith("amp_dtype=bfloat16: Tesla T4 (sm_75) is older than Ampere")
    assert bfloat16_warning("A100", (8, 0)) == ""


def be_process(monkeypatch: pytest.MonkeyPatch, local_rank: int, num_local: int, num_gpus: int) -> None:
    for name, value in (("RANK", local_rank), ("LOCAL_RANK", local_rank)):
        monkeypatch.setenv(name, str(value))
    for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.setenv(name, str(num_local))
    monkeypatch.setattr(torch.cuda, "_device_count_nvml", lambda: num_gpus)


def test_ranks_that_see_one_gpu_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four tasks of a node, each with a CUDA_VISIBLE_DEVICES of its own."""
    for local_rank in range(4):
        be_process(monkeypatch, local_rank, 4, 1)
        assert choose_device("auto") == choose_device("cuda") == torch.device("cuda", 0)
        be_process(monkeypatch, local_rank, 4, 4)
        assert choose_device("auto") == torch.device("cuda", local_rank)
    be_process(monkeypatch, 3, 4, 2)
    with pytest.raises(UserError, match="4 processes of this machine see 2 CUDA GPUs; start one process per GPU, let"):
        choose_device("auto")
    with pytest.raises(SettingsError, match="device=cuda:1: 4 processes need one GPU each"):
        choose_device("cuda:1")


@pytest.mark.parametrize(
    ("identities", "said"),
    [
        (("GPU-a", "GPU-b", "GPU-c"), None),
        (("cpu", "cpu", "cpu"), None),
        (("GPU-a", "GPU-b", "GPU-a"), r"ranks 0 and 2 have the same GPU \(GPU-a\)"),
        (("GPU-a", "cpu", "GPU-b"), "rank 1 sees no GPU, others do"),
    ],
)
def test_no_two_ranks_share_a_gpu(identities: tuple[str, ...], said: str | None) -> None:
    """Each learns it from the others, by the store that they share."""
    store = HashStore()
    outcomes: dict[int, str | None] = {}

    def join(rank: int) -> None:
        try:
            check_own_devices(TorchrunProcesses(rank, len(identities), store).gather("device", identities[rank]))
            outcomes[rank] = None
        except UserError as error:
            outcomes[rank] = str(error)

    threads = [threading.Thread(target=join, args=(rank,)) for rank in range(len(identities))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == len(identities)
    for outcome in outcomes.values():
        if said is None:
            assert outcome is None
        else:
            with pytest.raises(UserError, match=said):
                raise UserError(outcome)


@pytest.mark.parametrize(("name", "owner"), [("mps", "Apple's GPU"), ("xpu", "Intel GPUs"), ("xpu:1", "Intel GPUs")])
def test_accelerators_of_others(name: str, owner: str, evaluated_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings take their names; where there are none, one line says so. Several ranks do not compute on them."""
    said = rf"device={name}: torch .* sees 0 {owner} on this machine; set device=auto"
    assert Settings(device=name).device == name
    with pytest.raises(UserError, match=said):
        catheters.load(evaluated_run, device=name)
    with pytest.raises(UserError, match=said):
        choose_device(name)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SettingsError, match=f"device={name}: several processes compute on CUDA GPUs or CPUs"):
        choose_device(name)


def test_what_other_accelerators_get(cached: Settings) -> None:
    """Of what needs no such device: precision, DataLoader, batch_size="auto", words for what torch lacks."""
    mps, xpu = torch.device("mps"), torch.device("xpu", 0)
    assert choose_dtype(True, "float16", mps) is None
    assert choose_dtype(True, "bfloat16", xpu) == torch.bfloat16
    assert identity_of(mps) == "mps"
    for device in (mps, xpu):
        with pytest.raises(SettingsError, match="batch_size='auto': chosen by memory on CUDA GPUs and CPUs alone"):
            choose_batch_size(dataclasses.replace(cached, batch_size="auto"), None, device, 1, 40)
    said = (
        "The operator 'aten::grid_sampler_3d' is not currently implemented for the MPS device. If you want this op to "
        "be considered for addition please comment on an issue"
    )
    words = r"fold 1: torch lacks an operation on this device \(The operator .*device=cpu runs"
    with pytest.raises(UserError, match=words), explain_failures(cached, "fold 1"):
        raise NotImplementedError(said)
    with pytest.raises(NotImplementedError, match="abstract"), explain_failures(cached, "fold 1"):
        raise NotImplementedError("abstract")


def test_no_process_is_forked_where_a_driver_has_no_fork() -> None:
    """Workers then come from a server; a user's own choice stays."""
    program = (
        "import multiprocessing, sys\n"
        "from catheters.runtime.host import avoid_forks, start_method\n"
        "[multiprocessing.set_start_method(name) for name in sys.argv[1:]]\n"
        "avoid_forks(); print(start_method())"
    )
    for chosen, expected in (([], "forkserver"), (["spawn"], "spawn"), (["fork"], "fork")):
        done = subprocess.run([sys.executable, "-c", program, *chosen], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == expected


def test_no_device_at_all() -> None:
    with pytest.raises(UserError, match="device: 'gpu' came, auto"):
        choose_device("gpu")
    with pytest.raises(UserError, match=r"device=cuda:99: this machine has \d+ CUDA GPUs"):
        choose_device("cuda:99")


@pytest.mark.slow
def test_the_other_tests_see_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many NVML counts; nor do the processes that they start."""
    monkeypatch.setattr(torch.cuda, "_raw_device_count_nvml", lambda: 4)
    assert torch.cuda.device_count() == 0
    assert open_device("auto") == torch.device("cpu")
    program = "import torch; torch.cuda._raw_device_count_nvml = lambda: 4; print(torch.cuda.device_count())"
    seen = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert seen.stdout.strip() == "0"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,2")
    assert torch.cuda.device_count() == 2  # what is patched is what counts


@pytest.mark.parametrize(
    ("mark_expression", "expected"),
    [("gpu", True), ("gpu and not slow", True), ("", False), ("not gpu", False), ("not slow and not gpu", False)],
)
def test_which_tests_see_a_gpu(mark_expression: str, expected: bool) -> None:
    assert sees_gpu(mark_expression) == expected
