"""A local page to try a model on: X-rays in, sentences, probabilities, heatmaps and lines out.

Nothing is kept: an upload is decoded in a process of its own, predicted, and forgotten. Its file name never leaves the
browser. The page needs nothing from elsewhere.
"""

import asyncio
import functools
import math
import secrets
import socket
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

import jinja2
import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from uvicorn.protocols.http.h11_impl import H11Protocol

from catheters.errors import UserError
from catheters.inference.lines.prediction import device_types_of
from catheters.inference.page_content import TurnedAway, draw_heatmap, draw_lines, predict_upload
from catheters.inference.predictor import Predictor
from catheters.runtime.console import say, warn
from catheters.runtime.shortage import DeviceError
from catheters.viz.lines import colours_of

MAX_UPLOAD_BYTES = 64 << 20
"""Of one X-ray; the largest radiographs have about 30 MB."""
MAX_WAITING = 16
"""X-rays at work or waiting; more are turned away until some are done."""
MAX_RECEIVING = 128
"""Uploads that come in at the same time."""
MAX_BYTES_RECEIVED = 16 * MAX_UPLOAD_BYTES
"""Of all uploads that come in at the same time."""
SECONDS_OF_UPLOAD = 60.0
"""Time that one upload may take: 64 MB at 9 Mbit/s."""
SECONDS_OF_END = 10.0
"""After Ctrl-C, for what is at work and for responses that nobody takes."""
LOOPBACK = ("127.0.0.1", "localhost")


def serve(predictor: Predictor, name: str, host: str, port: int) -> None:
    """Serve until Ctrl-C.

    Args:
        predictor: the models.
        name: of the models, for the page.
        host: address to listen on.
        port: TCP port; 0: any free one.

    Raises:
        UserError: the address cannot be had.
    """
    try:
        listener = socket.create_server((host, port))
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"--serve: cannot listen on {host}:{port}: {reason}; choose another --port") from None
    with listener:
        found = listener.getsockname()[1]
        say(f"open http://{host if host in LOOPBACK else socket.gethostname()}:{found} in a browser; Ctrl-C ends it")
        if host not in LOOPBACK:
            warn(f"everybody who can reach this machine can use the page, since --host is {host}")
        uploads = Uploads()
        app = create_app(predictor, name, (*LOOPBACK, host) if host in LOOPBACK else ("*",), uploads)
        PageServer(app, uploads).run(sockets=[listener])


class _Connection(H11Protocol):
    """One that is closed where the headers of a request are not whole in time.

    uvicorn itself has a deadline for the first byte of a further request alone.
    """

    max_seconds: float
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self._set_deadline()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._set_deadline()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._deadline is not None:
            self._deadline.cancel()

    def _set_deadline(self) -> None:
        is_waiting = self.cycle is None or self.cycle.response_complete
        if is_waiting and self._deadline is None:
            self._deadline = self.loop.call_later(self.max_seconds, self.transport.close)
        elif not is_waiting and self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


class PageServer(uvicorn.Server):
    """Serves the page; when it is to end, it waits for no upload."""

    def __init__(self, app: Starlette, uploads: "Uploads", max_seconds_of_headers: float = SECONDS_OF_UPLOAD) -> None:
        """Serve `app`, whose uploads these are; a connection is closed whose headers take longer."""
        super().__init__(
            uvicorn.Config(
                app,
                http=type("Connection", (_Connection,), {"max_seconds": max_seconds_of_headers}),
                log_level="warning",
                access_log=False,
                timeout_graceful_shutdown=math.ceil(SECONDS_OF_END),
            )
        )
        self._uploads = uploads

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Turn away what is not at work yet, respond to what is, and end."""
        self._uploads.close()
        await super().shutdown(sockets)


def create_app(predictor: Predictor, name: str, hosts: tuple[str, ...], uploads: "Uploads") -> Starlette:
    """The page as an ASGI application.

    Args:
        predictor: the models.
        name: of the models, for the page.
        hosts: names under which it may be reached, so that no other page can lead a browser here by a name of its own.
        uploads: lets them in.
    """
    template = jinja2.Environment(
        loader=jinja2.PackageLoader("catheters.inference", "."), autoescape=True, undefined=jinja2.StrictUndefined
    ).get_template("page.html.jinja")
    has_lines = any(checkpoint.model.finds_lines for checkpoint in predictor.models.checkpoints)
    colours = colours_of(device_types_of(predictor.models)) if has_lines else {}

    async def page(request: Request) -> Response:
        nonce = secrets.token_urlsafe(16)
        models = predictor.models
        content = template.render(
            nonce=nonce,
            name=name,
            labels=models.labels,
            is_evaluated=models.thresholds is not None,
            is_calibrated=models.is_calibrated,
            colours=colours,
            max_megabytes=MAX_UPLOAD_BYTES >> 20,
        )
        policy = (
            f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; img-src 'self' data: blob:; "
            "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        return HTMLResponse(content, headers={"Content-Security-Policy": policy})

    async def predict(request: Request) -> Response:
        return JSONResponse(await uploads.run(request, functools.partial(predict_upload, predictor)))

    async def heatmap(request: Request) -> Response:
        label = request.query_params.get("label", "")
        if label not in predictor.models.labels:
            raise TurnedAway(404, "no such label")
        drawn = await uploads.run(request, functools.partial(draw_heatmap, predictor, label))
        return Response(drawn, media_type="image/jpeg")

    async def lines(request: Request) -> Response:
        if not has_lines:
            raise TurnedAway(404, "the model has no line decoder")
        drawn, num_lines = await uploads.run(request, functools.partial(draw_lines, predictor))
        return Response(drawn, media_type="image/jpeg", headers={"X-Num-Lines": str(num_lines)})

    return Starlette(
        routes=[
            Route("/", page),
            Route("/predict", _guarded(predict), methods=["POST"]),
            Route("/heatmap", _guarded(heatmap), methods=["POST"]),
            Route("/lines", _guarded(lines), methods=["POST"]),
        ],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))],
    )


class Uploads:
    """Lets uploads in, a limited number and amount of them, and works on one after another.

    An upload takes a place among those that wait only once it is whole: one that is silent keeps nobody out.
    """

    def __init__(self, max_seconds: float = SECONDS_OF_UPLOAD) -> None:
        """Let each upload take so long."""
        self._max_seconds = max_seconds
        self._deadlines: set[asyncio.Timeout] = set()
        self._num_bytes = 0
        self._num_waiting = 0
        self._turn = asyncio.Lock()
        self._is_closed = False

    def close(self) -> None:
        """Turn away the uploads that come in or wait."""
        self._is_closed = True
        for deadline in self._deadlines:
            deadline.reschedule(0.0)

    async def run(self, request: Request, work: Callable[[bytes], Any]) -> Any:
        """Read the upload, take a place, wait for the turn, work in a thread."""
        data = await self._read(request)
        if self._num_waiting >= MAX_WAITING:
            raise TurnedAway(503, f"{MAX_WAITING} X-rays are waiting already; try again in a moment")
        self._num_waiting += 1
        try:
            async with self._turn:
                self._check_open()
                return await run_in_threadpool(work, data)
        finally:
            self._num_waiting -= 1

    async def _read(self, request: Request) -> bytes:
        """The upload; no more of it than is allowed is ever in memory."""
        self._check_open()
        if request.headers.get("content-type", "").startswith("multipart/"):
            raise TurnedAway(415, "send the file itself as the body, as `curl --data-binary @FILE` does, not a form")
        announced = request.headers.get("content-length", "0")
        if not announced.isdecimal() or int(announced) > MAX_UPLOAD_BYTES:
            raise _too_large()
        if len(self._deadlines) >= MAX_RECEIVING:
            raise TurnedAway(503, f"{MAX_RECEIVING} uploads come in already; try again in a moment")
        body = bytearray()
        deadline = asyncio.timeout(self._max_seconds)
        try:
            async with deadline:
                self._deadlines.add(deadline)
                async for chunk in request.stream():
                    body += chunk
                    self._num_bytes += len(chunk)
                    if len(body) > MAX_UPLOAD_BYTES:
                        raise _too_large()
                    if self._num_bytes > MAX_BYTES_RECEIVED:
                        raise TurnedAway(503, "too many uploads come in at the same time; try again in a moment")
        except TimeoutError:
            self._check_open()
            raise TurnedAway(408, f"the upload was not complete after {self._max_seconds:g} s") from None
        finally:
            self._deadlines.discard(deadline)
            self._num_bytes -= len(body)
        if not body:
            raise TurnedAway(422, "the file is empty")
        return bytes(body)

    def _check_open(self) -> None:
        if self._is_closed:
            raise TurnedAway(503, "the page is being closed")


def _too_large() -> TurnedAway:
    return TurnedAway(413, f"is larger than {MAX_UPLOAD_BYTES >> 20} MB")


def _guarded(
    endpoint: Callable[[Request], Awaitable[Response]],
) -> Callable[[Request], Awaitable[Response]]:
    """An endpoint that other sites' pages cannot use, and that says why it does not respond."""

    async def respond(request: Request) -> Response:
        origin = request.headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
            return JSONResponse({"reason": "asked by another site's page"}, status_code=403)
        try:
            return await endpoint(request)
        except TurnedAway as turned_away:
            # The rest of such an upload is not read, so its connection can carry no other request.
            headers = {"Connection": "close"}
            return JSONResponse({"reason": turned_away.reason}, status_code=turned_away.status, headers=headers)
        except DeviceError as error:
            return JSONResponse({"reason": str(error)}, status_code=503)
        except MemoryError:
            return JSONResponse({"reason": "this machine has no memory left; try again in a moment"}, status_code=503)
        except ClientDisconnect:
            return Response(status_code=400)

    return respond
