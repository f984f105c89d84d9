"""The local page: what it answers, what it turns away, and how it works in a browser."""

import base64
import html
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import uvicorn
from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import Response
from starlette.testclient import TestClient

import catheters
from catheters.inference import server
from catheters.inference.models import read_models
from catheters.inference.predictor import Predictor
from tests.conftest import REPOSITORY, assert_user_error, run_script


@pytest.fixture
def app(evaluated_run: Path) -> Starlette:
    predictor = Predictor(read_models([evaluated_run]), torch.device("cpu"))
    return server.create_app(predictor, "<b>saved_models/run</b>", (*server.LOOPBACK, "testserver"))


@pytest.fixture
def client(app: Starlette) -> TestClient:
    return TestClient(app)


@pytest.fixture
def xray(sample_folder: Path) -> Path:
    return min((sample_folder / "test").iterdir())


def test_it_says_what_the_model_says(client: TestClient, xray: Path, evaluated_run: Path) -> None:
    answer = client.post("/predict", content=xray.read_bytes()).json()
    result = catheters.load(evaluated_run)(xray)
    assert {row["label"]: row["probability"] for row in answer["labels"]} == pytest.approx(dict(result.probabilities))
    assert {row["label"]: row["threshold"] for row in answer["labels"]} == pytest.approx(dict(result.thresholds))
    assert {row["label"]: row["called_present"] for row in answer["labels"]} == dict(result.called_present)
    assert tuple(row["label"] for row in answer["labels"] if row["undecided"]) == result.undecided
    assert answer["sentences"] == list(result.sentences.values())
    assert answer["doubts"] == list(result.doubts)
    shown = base64.b64decode(answer["picture"].removeprefix("data:image/jpeg;base64,"))
    heat = client.post("/heatmap?label=CVC%20-%20Normal", content=xray.read_bytes())
    assert heat.headers["content-type"] == "image/jpeg"
    shapes = {cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE).shape for data in (shown, heat.content)}
    assert shapes == {cv2.imread(str(xray), cv2.IMREAD_GRAYSCALE).shape}


@pytest.mark.parametrize(
    ("content", "status", "reason"),
    [
        (b"", 422, "the file is empty"),
        (b"nonsense, of some length", 422, "is no image that is known here"),
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
    assert "Calibrated probabilities." in page.text
    assert not re.findall(r'(?:src|href)="(?!data:)', page.text)


def test_many_at_once(client: TestClient, xray: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All are answered: some with a word that they have to wait."""
    monkeypatch.setattr(server, "MAX_WAITING", 3)
    data = xray.read_bytes()
    with ThreadPoolExecutor(12) as threads, client:
        answers = list(threads.map(lambda _: client.post("/predict", content=data), range(12)))
    statuses = [answer.status_code for answer in answers]
    assert set(statuses) == {200, 503}
    assert statuses.count(200) >= 3
    reason = next(answer for answer in answers if answer.status_code == 503).json()["reason"]
    assert reason == "3 X-rays are waiting already; try again in a moment"


class _AddScript(BaseHTTPMiddleware):
    """Uses the page as a person would: drops files on it, points at a label."""

    script = ""

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        response = await call_next(request)
        if request.url.path != "/":
            return response
        page = b"".join([chunk async for chunk in response.body_iterator]).decode()  # type: ignore[attr-defined]
        nonce = re.search(r'<script nonce="([^"]+)"', page)
        assert nonce is not None
        page = page.replace("</body>", f'<script nonce="{nonce[1]}">{self.script}</script></body>')
        del response.headers["content-length"]
        return Response(page, headers=dict(response.headers), media_type="text/html")


HOSTILE_NAME = "=1+1<img src=x onerror=alert(1)>.dcm"


def test_in_a_browser(app: Starlette, xray: Path, tmp_path: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("Chromium is not installed")
    data = base64.b64encode(xray.read_bytes()).decode()
    _AddScript.script = f"""
    const bytes = Uint8Array.from(atob("{data}"), (letter) => letter.charCodeAt(0));
    const until = async (is) => {{ while (!is()) await new Promise((go) => setTimeout(go, 50)); }};
    (async () => {{
      const transfer = new DataTransfer();
      transfer.items.add(new File([bytes], {json.dumps(HOSTILE_NAME)}));
      transfer.items.add(new File(["nonsense, of some length"], "bad.png"));
      document.dispatchEvent(new DragEvent("drop", {{dataTransfer: transfer}}));
      await until(() => byId("status").textContent === "2 done");
      const image = document.querySelector("article img"), before = image.src;
      document.querySelector("article tbody tr").dispatchEvent(new Event("mouseenter"));
      await until(() => image.src !== before);
      await image.decode();
      document.title = JSON.stringify({{
        names: [...document.querySelectorAll("article h2")].map((node) => node.textContent),
        error: document.querySelector(".error").textContent,
        rows: document.querySelectorAll("article tbody tr").length,
        sentences: [...document.querySelectorAll(".sentences li")].map((node) => node.textContent),
        size: [image.naturalWidth, image.naturalHeight], csv: csv(), images: document.images.length,
        fits: document.documentElement.scrollWidth <= document.documentElement.clientWidth}});
      console.log("the test was here");
    }})();
    """
    app.add_middleware(_AddScript)
    listener = socket.create_server(("127.0.0.1", 0))
    uvicorn_server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
    thread = threading.Thread(target=uvicorn_server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        done = subprocess.run(
            [
                browser,
                *("--headless", "--no-sandbox", "--no-first-run", "--disable-gpu", "--disable-background-networking"),
                *("--disable-component-update", "--disable-sync", "--disable-extensions"),
                f"--user-data-dir={tmp_path / 'profile'}",
                *("--enable-logging=stderr", "--timeout=60000", "--virtual-time-budget=30000", "--dump-dom"),
                f"http://127.0.0.1:{listener.getsockname()[1]}/",
            ],
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )
    finally:
        uvicorn_server.should_exit = True
        thread.join()
        listener.close()
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line and "status of 422" not in line]
    assert len(console) == 1 and "the test was here" in console[0], console
    title = re.search(r"<title>(.*?)</title>", done.stdout)
    assert title is not None
    found = json.loads(html.unescape(title[1]))
    assert sorted(found["names"]) == sorted([HOSTILE_NAME, "bad.png"])
    assert found["error"].startswith("is no image that is known here")
    assert (found["rows"], found["images"]) == (11, 1)
    assert found["sentences"][0].startswith("ETT: ")
    assert found["size"] == list(cv2.imread(str(xray)).shape[1::-1])
    assert found["fits"]
    lines = found["csv"].splitlines()
    assert lines[0].startswith('"file","ETT - Abnormal"')
    assert lines[1].startswith('"\'=1+1<img src=x onerror=alert(1)>.dcm",0.')  # no formula
    assert lines[2].startswith('"bad.png",,') and "is no image" in lines[2]


def test_the_script_serves_until_it_is_interrupted(evaluated_run: Path) -> None:
    command = [sys.executable, str(REPOSITORY / "predict.py"), "--model", str(evaluated_run), "--serve", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        line = process.stdout.readline()
        address = re.search(r"http://127\.0\.0\.1:(\d+) in a browser", line)
        assert address is not None, line
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                with socket.create_connection(("127.0.0.1", int(address[1])), timeout=5) as connection:
                    connection.sendall(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n")
                    assert connection.recv(15).startswith(b"HTTP/1.1 200")
                    break
            except OSError:
                continue
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors


def test_an_address_that_is_taken(evaluated_run: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run_script("predict.py", "--model", evaluated_run, "--serve", "--port", str(port))
        assert_user_error(done, f"--serve: cannot listen on 127.0.0.1:{port}: Address already in use", "another --port")
