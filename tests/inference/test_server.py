"""The local page: what it answers, what it turns away, and how it works in a browser."""

import base64
import contextlib
import dataclasses
import http.client
import json
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
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
from tests.browser import PHONE, SCREEN, Browser
from tests.conftest import REPOSITORY, assert_user_error, run_script
from tests.hangs import output_of


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


def silent_upload(port: int) -> socket.socket:
    """One that has announced 1000 bytes and sends none, from the moment on when the page waits for them."""
    connection = socket.create_connection(("127.0.0.1", port))
    connection.sendall(
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\nExpect: 100-continue\r\n\r\n"
    )
    asked = b""
    while not asked.endswith(b"\r\n\r\n"):
        asked += connection.recv(1)
    assert asked.startswith(b"HTTP/1.1 100"), asked
    return connection


def answer_of(connection: socket.socket) -> tuple[int, str]:
    """Status and reason of an answer, after which the connection is closed."""
    answer = b""
    while chunk := connection.recv(1 << 16):
        answer += chunk
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)["reason"]


def post(port: int, data: bytes, **headers: str) -> tuple[int, dict[str, object]]:
    connection = http.client.HTTPConnection("127.0.0.1", port)
    with contextlib.closing(connection):
        connection.request("POST", "/predict", data, headers)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())


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


WITH_LINES = pytest.mark.parametrize("run", ["lines_run"], indirect=True)


@pytest.fixture
def xray_with_lines(lines_run: Path, sample_folder: Path) -> tuple[Path, set[str]]:
    """An X-ray in which the model sees a line, and the device types of its lines."""
    model = catheters.load(lines_run, device="cpu")
    for file in sorted((sample_folder / "train").iterdir()):
        if found := {line.device_type for line in model(file).lines}:
            return file, found
    raise AssertionError("the model sees no line at all")


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


@pytest.mark.parametrize("uploads", [server.Uploads(max_seconds=3600)])
def test_silent_uploads_keep_nobody_out(port: int, xray: Path, connections: contextlib.ExitStack) -> None:
    """Nor does the page wait for them when it is to end, as it is behind this test."""
    for _ in range(server.MAX_WAITING + 4):
        connections.enter_context(silent_upload(port))
    assert post(port, xray.read_bytes())[0] == 200


@pytest.mark.parametrize("uploads", [server.Uploads(max_seconds=0.2)])
def test_an_upload_has_a_deadline(port: int) -> None:
    with silent_upload(port) as connection:
        assert answer_of(connection) == (408, "the upload was not complete after 0.2 s")


@pytest.mark.parametrize("seconds_of_headers", [0.5])
def test_headers_have_a_deadline(port: int) -> None:
    """Silence, half of them, and half of those of a second request: closed, without an answer."""
    whole = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
    for first, half in ((b"", b""), (b"", whole[:20]), (whole, whole[:20])):
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(first)
            received = connection.recv(12) if first else b""
            connection.sendall(half)
            while chunk := connection.recv(1 << 16):
                received += chunk
        assert received.startswith(b"HTTP/1.1 200" if first else b"")
        assert received.count(b"HTTP/1.1 ") == int(bool(first))


@pytest.mark.parametrize("uploads", [server.Uploads(max_seconds=3600)])
def test_so_many_uploads_come_in_at_once(
    port: int, xray: Path, connections: contextlib.ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "MAX_RECEIVING", 2)
    first, _ = [connections.enter_context(silent_upload(port)) for _ in range(2)]
    status, answer = post(port, xray.read_bytes())
    assert (status, answer["reason"]) == (503, "2 uploads come in already; try again in a moment")
    first.sendall(bytes(1000))
    assert first.recv(12) == b"HTTP/1.1 422"
    assert post(port, xray.read_bytes())[0] == 200
    monkeypatch.setattr(server, "MAX_BYTES_RECEIVED", len(xray.read_bytes()) - 1)
    status, answer = post(port, xray.read_bytes())
    assert (status, answer["reason"]) == (503, "too many uploads come in at the same time; try again in a moment")


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


HOSTILE_NAME = "=1+1<img src=x onerror=alert(1)>.dcm"
UNTIL = "const until = async (is) => { while (!is()) await new Promise((go) => setTimeout(go, 50)); };"


def drop(browser: Browser, files: dict[str, bytes], num_before: int = 0) -> None:
    """Drop files, by their names, on the page, and wait until it is done with them."""
    encoded = [[name, base64.b64encode(content).decode()] for name, content in files.items()]
    browser.evaluate(
        f"""(async () => {{
        {UNTIL}
        const transfer = new DataTransfer();
        for (const [name, data] of {json.dumps(encoded)})
          transfer.items.add(new File([Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0))], name));
        document.dispatchEvent(new DragEvent("drop", {{dataTransfer: transfer}}));
        await until(() => byId("status").textContent === "{num_before + len(files)} done");
        }})()"""
    )


@pytest.fixture
def used(browser: Browser, port: int, xray: Path) -> Browser:
    """The page in a browser, after an X-ray and a broken file were dropped on it."""
    browser.show(SCREEN)
    browser.open(f"http://127.0.0.1:{port}/")
    drop(browser, {HOSTILE_NAME: xray.read_bytes(), "bad.png": b"nonsense, of some length"})
    return browser


def test_in_a_browser(used: Browser, xray: Path) -> None:
    """It is used as a person would: who points at a label, presses it, and goes back."""
    found = used.evaluate(
        f"""(async () => {{
        {UNTIL}
        const image = document.querySelector("article img"), before = image.src;
        const row = document.querySelector("article tbody tr"), button = row.querySelector("button");
        row.dispatchEvent(new Event("mouseenter"));
        await until(() => image.src !== before);
        await image.decode();
        button.click();  // as a keyboard and a touch screen do
        const pressed = [button.getAttribute("aria-pressed")];
        row.dispatchEvent(new Event("mouseleave"));
        await until(() => image.src !== before && row.className.includes("shown"));
        await until(() => document.querySelector(".figure p").textContent.includes("Grad-CAM"));
        button.dispatchEvent(new KeyboardEvent("keydown", {{key: "Escape", bubbles: true}}));
        pressed.push(button.getAttribute("aria-pressed"), String(image.src === before));
        const texts = (selector) => [...document.querySelectorAll(selector)].map((node) => node.textContent);
        return {{
          pressed, names: texts("article h2"), error: document.querySelector(".error").textContent,
          rows: document.querySelectorAll("article tbody tr").length, sentences: texts(".sentences li"),
          headings: texts("article thead th"), predicted: texts("article tbody td:last-child"),
          size: [image.naturalWidth, image.naturalHeight], csv: csv(), images: document.images.length}};
        }})()"""
    )
    console = [line for line in used.console if "status of 422" not in line]
    assert console == []
    assert sorted(found["names"]) == sorted([HOSTILE_NAME, "bad.png"])
    assert found["error"].startswith("is no image file of a known format")
    assert (found["rows"], found["images"]) == (11, 1)
    assert found["headings"] == ["Label", "Probability", "Threshold", "Predicted"]
    assert {text.removesuffix(", deferred") for text in found["predicted"]} <= {"positive", "negative"}
    assert found["sentences"][0].startswith("ETT: ")
    assert found["size"] == list(cv2.imread(str(xray)).shape[1::-1])
    assert found["pressed"] == ["true", "false", "true"]
    lines = found["csv"].splitlines()
    assert lines[0].startswith('"file","ETT - Abnormal"')
    assert lines[1].startswith('"\'=1+1<img src=x onerror=alert(1)>.dcm",0.')  # no formula
    assert lines[2].startswith('"bad.png",,') and "is no image" in lines[2]


def test_it_can_be_read_on_a_screen_a_phone_and_paper(used: Browser) -> None:
    used.evaluate("document.querySelector('article tbody tr').classList.add('shown', 'positive')")
    used.assert_readable()
    assert used.cut_boxes() == []
    for width in (PHONE, 800, 1000):
        used.show(width)
        assert used.cut_boxes() == []


@WITH_LINES
def test_an_xray_without_lines_in_a_browser(browser: Browser, port: int) -> None:
    browser.show(SCREEN)
    browser.open(f"http://127.0.0.1:{port}/")
    drop(browser, {"black.png": cv2.imencode(".png", np.zeros((64, 64), dtype=np.uint8))[1].tobytes()})
    said = browser.evaluate(
        f"""(async () => {{
        {UNTIL}
        const caption = document.querySelector(".figure p");
        document.querySelector(".key button").click();
        await until(() => caption.textContent.startsWith("Lines and tips: the"));
        return caption.textContent;
        }})()"""
    )
    assert said == "Lines and tips: the model sees none."


@WITH_LINES
def test_lines_in_a_browser(used: Browser, xray_with_lines: tuple[Path, set[str]]) -> None:
    """Pressed, they replace the X-ray, and a legend says whose colours are whose."""
    drop(used, {"seen.jpg": xray_with_lines[0].read_bytes()}, num_before=2)
    found = used.evaluate(
        f"""(async () => {{
        {UNTIL}
        const image = document.querySelector("article img"), before = image.src;
        const button = document.querySelector(".key button"), caption = document.querySelector(".figure p");
        button.click();
        await until(() => image.src !== before);
        await image.decode();
        const shown = [button.getAttribute("aria-pressed"), caption.textContent];
        button.click();
        return {{
          shown, isBack: image.src === before, key: document.querySelector(".key").innerText.split("\\n"),
          colours: [...document.querySelectorAll(".swatch")].map((node) => getComputedStyle(node).backgroundColor)}};
        }})()"""
    )
    assert used.console == [line for line in used.console if "status of 422" in line]
    assert found["shown"][0] == "true"
    assert found["shown"][1].startswith("Lines and tips: what the model sees, a ring at each tip.")
    assert found["isBack"]
    assert [name.strip() for name in found["key"] if name.strip()] == ["Lines and tips", *DEVICE_TYPE_COLOURS]
    assert found["colours"] == 2 * [f"rgb{colour}" for colour in DEVICE_TYPE_COLOURS.values()]
    used.assert_readable()
    for width in (PHONE, 800, SCREEN):
        used.show(width)
        assert used.cut_boxes() == []


def test_the_first_lines_say_what_a_number_means(client: TestClient, evaluated_run: Path) -> None:
    page = " ".join(client.get("/").text.split())
    assert "calibrated on the images of the model's evaluation" in page
    assert "another hospital's" in page and "not a medical device" in page
    unevaluated = dataclasses.replace(read_models([evaluated_run]), calibrator=None, thresholds=None)
    bare = Predictor(unevaluated, torch.device("cpu"))
    app = server.create_app(bare, "run", ("testserver",), server.Uploads())
    page = " ".join(TestClient(app).get("/").text.split())
    assert "It is not calibrated" in page and "From 0.5 on a label is predicted positive" in page


@pytest.mark.slow
def test_the_script_serves_until_it_is_interrupted(evaluated_run: Path) -> None:
    command = [sys.executable, str(REPOSITORY / "predict.py"), "--model", str(evaluated_run), "--serve", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        line = process.stdout.readline()
        address = re.search(r"http://127\.0\.0\.1:(\d+) in a browser", line)
        assert address is not None, line
        # The port listens before its address is printed, so that what comes too early waits.
        with socket.create_connection(("127.0.0.1", int(address[1]))) as connection:
            connection.sendall(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n")
            assert connection.recv(15).startswith(b"HTTP/1.1 200")
        with silent_upload(int(address[1])) as connection:
            process.send_signal(signal.SIGINT)
            assert answer_of(connection) == (503, "the page is being closed")
        _, errors = output_of(process)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors


@pytest.mark.slow
def test_an_address_that_is_taken(evaluated_run: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run_script("predict.py", "--model", evaluated_run, "--serve", "--port", str(port))
        assert_user_error(done, f"--serve: cannot listen on 127.0.0.1:{port}: Address already in use", "another --port")
