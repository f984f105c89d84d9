"""What the local page answers, and what it turns away."""

import base64
import dataclasses
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.testclient import TestClient

import catheters
from catheters.inference import server
from catheters.inference.loading import read_models
from catheters.inference.predictor import Predictor
from catheters.viz.lines import DEVICE_TYPE_COLOURS
from tests.inference.server.uploads import WITH_LINES


def test_it_says_what_the_model_says(client: TestClient, xray: Path, evaluated_run: Path) -> None:
    answer = client.post("/predict", content=xray.read_bytes()).json()
    result = catheters.load(evaluated_run)(xray)
    assert {row["label"]: row["probability"] for row in answer["labels"]} == pytest.approx(dict(result.probabilities))
    assert {row["label"]: row["threshold"] for row in answer["labels"]} == pytest.approx(dict(result.thresholds))
    assert {row["label"]: row["predicted_positive"] for row in answer["labels"]} == dict(result.predicted_positive)
    assert tuple(row["label"] for row in answer["labels"] if row["deferred"]) == result.deferred
    assert answer["sentences"] == list(result.sentences.values())
    assert answer["quality_flags"] == list(result.quality_flags)
    shown = base64.b64decode(answer["image"].removeprefix("data:image/jpeg;base64,"))
    heat = client.post("/heatmap?label=CVC%20-%20Normal", content=xray.read_bytes())
    assert heat.headers["content-type"] == "image/jpeg"
    shapes = {cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE).shape for data in (shown, heat.content)}
    assert shapes == {cv2.imread(str(xray), cv2.IMREAD_GRAYSCALE).shape}


@pytest.mark.parametrize(
    ("content", "status", "reason"),
    [
        (b"", 422, "the file is empty"),
        (b"nonsense, of some length", 422, "is no image file of a known format"),
        (b"\xff\xd8\xff broken", 422, "damaged JPEG"),
        (b"0" * (1 << 17), 413, "is larger than 0 MB"),
    ],
)
def test_uploads_that_are_turned_away(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, content: bytes, status: int, reason: str
) -> None:
    monkeypatch.setattr(server, "MAX_UPLOAD_BYTES", 1 << 16)
    for path in ("/predict", "/heatmap?label=CVC%20-%20Normal"):
        answer = client.post(path, content=content)
        assert answer.status_code == status
        assert reason in answer.json()["reason"]

    def pieces() -> Iterator[bytes]:
        yield from (content[start : start + 1000] for start in range(0, len(content), 1000))

    assert client.post("/predict", content=pieces()).status_code == status  # no length is announced


def test_a_machine_that_cannot_read(client: TestClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Decoders of PNG need a temporary folder: without one the page says so, not that the X-ray is damaged."""
    png = cv2.imencode(".png", np.arange(64 * 64, dtype=np.uint16).astype(np.uint8).reshape(64, 64))[1].tobytes()
    with monkeypatch.context() as patched:
        patched.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
        for path in ("/predict", "/heatmap?label=CVC%20-%20Normal"):
            answer = client.post(path, content=png)
            assert answer.status_code == 503
            assert answer.json()["reason"] == "this machine cannot read X-rays now: No such file or directory"
    assert client.post("/predict", content=png).status_code == 200


@WITH_LINES
def test_lines(client: TestClient, lines_run: Path, xray_with_lines: tuple[Path, set[str]]) -> None:
    """Drawn over the X-ray as it is shown, in the colours of the legend; each device type is in that."""
    file, found = xray_with_lines
    answer = client.post("/lines", content=file.read_bytes())
    assert answer.headers["content-type"] == "image/jpeg"
    assert answer.headers["X-Num-Lines"] == str(len(catheters.load(lines_run, device="cpu")(file).lines))
    drawn = cv2.cvtColor(cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    assert drawn.shape[:2] == cv2.imread(str(file), cv2.IMREAD_GRAYSCALE).shape
    page = client.get("/").text
    for number, (device_type, colour) in enumerate(DEVICE_TYPE_COLOURS.items()):
        assert f".colour{number} {{ background: rgb{colour}; }}" in page
        if device_type in found:
            assert np.abs(drawn.astype(int) - colour).sum(axis=2).min() < 90  # as far as a JPEG keeps it
    assert 'const DEVICE_TYPES = ["ETT", "NGT", "CVC", "Swan Ganz"]' in page
    broken = client.post("/lines", content=b"nonsense, of some length")
    assert broken.status_code == 422
    assert broken.json()["reason"].startswith("is no image file of a known format")


def test_no_lines_without_a_decoder(client: TestClient, xray: Path) -> None:
    answer = client.post("/lines", content=xray.read_bytes())
    assert (answer.status_code, answer.json()["reason"]) == (404, "the model has no line decoder")
    assert "const DEVICE_TYPES = []" in client.get("/").text


def test_others_pages_and_names(client: TestClient, xray: Path) -> None:
    data = xray.read_bytes()
    assert client.post("/predict", content=data, headers={"Origin": "http://evil.example"}).status_code == 403
    assert client.post("/predict", content=data, headers={"Origin": "http://testserver"}).status_code == 200
    assert client.get("/", headers={"Host": "evil.example"}).status_code == 400
    assert client.get("/predict").status_code == 405
    unknown = client.post("/heatmap?label=../etc", content=data)
    assert (unknown.status_code, unknown.json()["reason"]) == (404, "no such label")
    page = client.get("/")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "<b>saved_models" not in page.text and "&lt;b&gt;saved_models/run" in page.text
    assert "not a medical device" in page.text
    assert not re.findall(r'(?:src|href)="(?!data:)', page.text)


def test_a_form_is_told_what_to_send(client: TestClient, xray: Path) -> None:
    answer = client.post("/predict", files={"file": xray.read_bytes()})
    assert answer.status_code == 415
    assert answer.json()["reason"] == "send the file itself as the body, as `curl --data-binary @FILE` does, not a form"
    plain = {"content-type": "application/x-www-form-urlencoded"}  # as curl calls any data
    assert client.post("/predict", content=xray.read_bytes(), headers=plain).status_code == 200


def test_no_memory_is_an_answer() -> None:
    """Wherever the work of an answer runs out of it."""

    async def greedy(request: Request) -> Response:
        return Response(np.empty(1 << 60, dtype=np.uint8).tobytes())

    answer = TestClient(Starlette(routes=[Route("/", server._guarded(greedy))])).get("/")
    assert answer.status_code == 503
    assert answer.json()["reason"] == "this machine has no memory left; try again in a moment"


def test_the_first_lines_say_what_a_number_means(client: TestClient, evaluated_run: Path) -> None:
    page = " ".join(client.get("/").text.split())
    assert "calibrated on the images of the model's evaluation" in page
    assert "another hospital's" in page and "not a medical device" in page
    unevaluated = dataclasses.replace(read_models([evaluated_run]), calibrator=None, thresholds=None)
    bare = Predictor(unevaluated, torch.device("cpu"))
    app = server.create_app(bare, "run", ("testserver",), server.Uploads())
    page = " ".join(TestClient(app).get("/").text.split())
    assert "It is not calibrated" in page and "From 0.5 on a label is predicted positive" in page
