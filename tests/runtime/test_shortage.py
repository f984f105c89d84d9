"""A device that is out of memory: what prediction, heatmaps, the page and the API say, and what is kept."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from starlette.testclient import TestClient
from torch import nn
from torch.overrides import TorchFunctionMode

import catheters
from catheters.commands.predict import main as predict
from catheters.errors import UserError
from catheters.inference import server
from catheters.inference.loading import read_models
from catheters.inference.predictor import Predictor
from catheters.runtime.shortage import DeviceError
from tests.conftest import assert_user_error, run_script

OUT_OF_MEMORY = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of")
NO_HANDLE = RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")
NO_WORKSPACE = RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED")
NO_ENGINE = RuntimeError("GET was unable to find an engine to execute this computation")
KINDS = {
    "torch": (OUT_OF_MEMORY, r"the GPU is out of memory \(2\.50 GiB more were asked for\)"),
    "cuBLAS": (NO_HANDLE, r"out of memory \(CUDA error: CUBLAS_STATUS_ALLOC_FAILED"),
    "cuDNN": (NO_WORKSPACE, r"out of memory \(cuDNN error: CUDNN_STATUS_INTERNAL"),
    "no engine": (NO_ENGINE, r"cuDNN has no algorithm, as where memory is short \(GET was unable"),
}
ONE_LINE = r"; (a smaller batch \(--batch-size\), )?fewer models or device=cpu \(--device cpu\) may fit"

Fail = Callable[[RuntimeError, Callable[[torch.Tensor], bool]], None]


@pytest.fixture
def fail() -> Iterator[Fail]:
    """Lets the convolutions of all models raise an error where their input is as a function says."""
    handles = []

    def start(error: RuntimeError, is_too_much: Callable[[torch.Tensor], bool]) -> None:
        def raise_where_too_much(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            if isinstance(module, nn.Conv2d) and is_too_much(inputs[0]):
                raise error

        handles.append(nn.modules.module.register_module_forward_pre_hook(raise_where_too_much))

    yield start
    for handle in handles:
        handle.remove()


class NoRoomForWeights(TorchFunctionMode):
    """As a GPU that is full when a model is sent to it."""

    def __torch_function__(
        self, func: Callable[..., Any], types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.Tensor.to:
            raise OUT_OF_MEMORY
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_that_does_not_fit(
    kind: str, fail: Fail, evaluated_run: Path, sample_folder: Path, tmp_path: Path
) -> None:
    """One line with what takes less; a smaller batch then gives what it would have given."""
    error, said = KINDS[kind]
    command = ["--model", str(evaluated_run), str(sample_folder / "test"), "--device", "cpu", "--workers", "1"]
    whole, out = tmp_path / "whole.csv", tmp_path / "p.csv"
    assert predict([*command, "--out", str(whole), "--batch-size", "1"]) == 0
    fail(error, lambda images: len(images) > 2)
    message = rf"^predicting 4 images at a time on the CPU: {said}.*{ONE_LINE}\. What is done is in .*p.csv.unfinished;"
    with pytest.raises(UserError, match=message) as raised:
        predict([*command, "--out", str(out), "--batch-size", "4"])
    assert "\n" not in str(raised.value)
    assert predict([*command, "--out", str(out), "--batch-size", "1"]) == 0
    assert out.read_bytes() == whole.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_heatmaps_that_do_not_fit_leave_the_predictions(
    kind: str,
    fail: Fail,
    evaluated_run: Path,
    sample_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """They take more than predictions do: all else is written, the missing ones are named, the status is 1.

    The probe before the predictions finds no room either, and stops nothing.
    """
    command = ["--model", str(evaluated_run), str(sample_folder / "test"), "--device", "cpu", "--worklist"]
    command += ["--batch-size", "1"]  # else the order in which images arrive decides the last digits
    maps = ["--heatmaps", str(tmp_path / "maps")]
    assert predict([*command, *maps, "--out", str(tmp_path / "whole.csv")]) == 0
    called = pd.read_csv(tmp_path / "whole_details.csv").groupby("StudyInstanceUID")["predicted_positive"].any()
    num_explained = int(called.sum())
    assert num_explained > 0
    error, said = KINDS[kind]
    fail(error, lambda _: not torch.is_inference_mode_enabled())  # in which predictions are made
    capsys.readouterr()
    maps = ["--heatmaps", str(tmp_path / "none")]
    assert predict([*command, *maps, "--out", str(tmp_path / "p.csv")]) == 1
    for end in ("", "_details", "_worklist"):
        assert (tmp_path / f"p{end}.csv").read_bytes() == (tmp_path / f"whole{end}.csv").read_bytes()
    assert not (tmp_path / "p.csv.unfinished").exists()
    lines = capsys.readouterr().out.splitlines()
    start = lines.index(f"{num_explained} image{'s' * (num_explained != 1)} without heatmaps:")
    with pytest.raises(UserError, match=rf"^  {called.index[called][0]}: heatmaps on the CPU: {said}.*{ONE_LINE}"):
        raise UserError("\n".join(sorted(lines[start + 1 : start + 1 + num_explained])))
    assert list((tmp_path / "none").iterdir()) == []


def test_models_that_do_not_fit_at_once(evaluated_run: Path) -> None:
    said = r"^loading 2 models onto the CPU: the GPU is out of memory .*; fewer models or device=cpu .* may fit$"
    with pytest.raises(DeviceError, match=said), NoRoomForWeights():
        Predictor(read_models([evaluated_run]), torch.device("cpu"))
    with pytest.raises(UserError, match=said), NoRoomForWeights():
        catheters.load(evaluated_run, device="cpu")


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_api_and_the_page(kind: str, fail: Fail, evaluated_run: Path, sample_folder: Path) -> None:
    """The page responds with 503 and the reason, and keeps serving; so does the API with a UserError."""
    xray = min((sample_folder / "test").iterdir())
    model = catheters.load(evaluated_run, device="cpu")
    result = model(xray)
    app = server.create_app(model._predictor, "run", (*server.LOOPBACK, "testserver"), server.Uploads())
    client = TestClient(app)
    content = xray.read_bytes()
    predicted = client.post("/predict", content=content).json()
    is_short = True
    error, said = KINDS[kind]
    fail(error, lambda _: is_short)
    for work in (lambda: model(xray), lambda: result.heatmap("CVC - Normal"), lambda: result.overlay("CVC - Normal")):
        with pytest.raises(DeviceError, match=said):
            work()
    for path in ("/predict", "/heatmap?label=CVC%20-%20Normal"):
        response = client.post(path, content=content)
        assert response.status_code == 503
        with pytest.raises(UserError, match=rf"{said}.*{ONE_LINE}$"):
            raise UserError(response.json()["reason"])
    is_short = False
    assert client.post("/predict", content=content).json() == predicted


def test_other_errors_stay_what_they_are(fail: Fail, evaluated_run: Path, sample_folder: Path) -> None:
    fail(RuntimeError("mat1 and mat2 shapes cannot be multiplied"), lambda _: True)
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        catheters.load(evaluated_run, device="cpu")(min((sample_folder / "test").iterdir()))


@pytest.mark.slow
def test_a_device_of_others(evaluated_run: Path, sample_folder: Path) -> None:
    result = run_script("predict.py", "--model", evaluated_run, sample_folder / "test", "--device", "xpu")
    assert_user_error(result, "device=xpu: torch", "sees 0 Intel GPUs on this machine; set device=auto")
