"""Uploads to the local page, whole and silent ones."""

import contextlib
import http.client
import json
import socket

import pytest


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


WITH_LINES = pytest.mark.parametrize("run", [pytest.param("lines_run", marks=pytest.mark.slow)], indirect=True)
