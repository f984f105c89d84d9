"""The local page of a small run, and X-rays for it."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from starlette.applications import Starlette
from starlette.testclient import TestClient

import catheters
from catheters.inference import server
from catheters.inference.loading import read_models
from catheters.inference.predictor import Predictor


@pytest.fixture
def uploads() -> server.Uploads:
    return server.Uploads()


@pytest.fixture
def run(request: pytest.FixtureRequest) -> Path:
    """The run folder of the page's model: one without a line decoder unless a test says otherwise."""
    folder: Path = request.getfixturevalue(getattr(request, "param", "evaluated_run"))
    return folder


@pytest.fixture
def app(run: Path, uploads: server.Uploads) -> Starlette:
    predictor = Predictor(read_models([run]), torch.device("cpu"))
    return server.create_app(predictor, "<b>saved_models/run</b>", (*server.LOOPBACK, "testserver"), uploads)


@pytest.fixture
def connections() -> Iterator[contextlib.ExitStack]:
    """Closes them once the page has ended."""
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.fixture
def seconds_of_headers() -> float:
    return server.SECONDS_OF_UPLOAD


@pytest.fixture
def port(
    app: Starlette, uploads: server.Uploads, connections: contextlib.ExitStack, seconds_of_headers: float
) -> Iterator[int]:
    """Of the page, served as the script does."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        page = server.PageServer(app, uploads, seconds_of_headers)
        thread = threading.Thread(target=page.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        page.should_exit = True
        thread.join()


@pytest.fixture
def client(app: Starlette) -> TestClient:
    return TestClient(app)


@pytest.fixture
def xray(sample_folder: Path) -> Path:
    return min((sample_folder / "test").iterdir())


@pytest.fixture
def xray_with_lines(lines_run: Path, sample_folder: Path) -> tuple[Path, set[str]]:
    """An X-ray in which the model sees a line, and the device types of its lines."""
    model = catheters.load(lines_run, device="cpu")
    for file in sorted((sample_folder / "train").iterdir()):
        if found := {line.device_type for line in model(file).lines}:
            return file, found
    raise AssertionError("the model sees no line at all")
