"""The local page under load: many X-rays at once, silent connections, deadlines, and its end."""

import contextlib
import re
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from catheters.inference import server
from tests.conftest import REPOSITORY, assert_user_error, run_script
from tests.hangs import output_of
from tests.inference.server.uploads import answer_of, post, silent_upload


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
