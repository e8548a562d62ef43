"""The door on HTTP: routes, guards and metrics around it, and uvicorn in a thread of its own."""

from __future__ import annotations

import socket
import threading

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.router.door import MAX_BODY_BYTES, Door, Refusal, refused
from shared.bus.errors import Fatal
from shared.clock import Clock
from shared.http.access import protect
from shared.http.tokens import Tokens
from shared.telemetry import metrics

MAX_CONNECTIONS = 1024


def make_app(door: Door, clock: Clock, *, tokens: Tokens, rate: float) -> ASGIApp:
    """The door as an ASGI application, open to who shows one of `tokens`."""
    routes = [
        Route("/v1/classify", door.classify, methods=["POST"]),
        Route("/openapi.json", door.describe, methods=["GET"]),
    ]
    app = Starlette(routes=routes, exception_handlers={HTTPException: _elsewhere, 500: _failed})
    guarded = protect(
        app,
        tokens=tokens,
        clock=clock,
        setting="TRACER_DOOR_TOKEN",
        rate=rate,
        max_body=MAX_BODY_BYTES,
    )
    return _Observed(guarded, clock)


def _elsewhere(request: Request, error: Exception) -> Response:
    """An unknown path or method."""
    assert isinstance(error, HTTPException)
    fix = "try POST /v1/classify or GET /openapi.json"
    headers = dict(error.headers or {})
    return refused(Refusal(error.status_code, error.detail, fix, headers=headers))


def _failed(request: Request, error: Exception) -> Response:
    """A bug; Starlette raises it on for uvicorn to log."""
    return refused(Refusal(500, "the door failed", "look into the router's log"))


class _Observed:
    """Metrics of every answer."""

    def __init__(self, app: ASGIApp, clock: Clock) -> None:
        self._app = app
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        started = self._clock.monotonic()

        async def observe(message: Message) -> None:
            if message["type"] == "http.response.start":
                metrics.DOOR_CALLS.labels(str(message["status"])).inc()
                metrics.DOOR_SECONDS.observe(self._clock.monotonic() - started)
            await send(message)

        await self._app(scope, receive, observe)


class WebServer:
    """Serves `app` from a thread, on a socket that is bound when this is made."""

    def __init__(self, app: ASGIApp, host: str, port: int, *, grace: float) -> None:
        """Port 0 picks a free one. `grace`: seconds for the calls in work at the end.

        Raises Fatal when it cannot listen there.
        """
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            self._socket = socket.create_server((host, port), family=family, backlog=1024)
        except OSError as error:
            raise Fatal(
                f"the door cannot listen on {host}:{port} ({error.strerror}): "
                "set TRACER_DOOR_PORT to another port, or to 0 for no door"
            ) from error
        # asyncio does so only for sockets made with an explicit protocol. Without it the body waits
        # for the caller's acknowledgement of the head: 40 ms.
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.port: int = self._socket.getsockname()[1]
        self._grace = grace
        self._server = uvicorn.Server(
            uvicorn.Config(
                app,
                loop="asyncio",
                http="h11",
                ws="none",
                lifespan="off",
                log_config=None,
                log_level="warning",
                access_log=False,
                proxy_headers=False,
                server_header=False,
                limit_concurrency=MAX_CONNECTIONS,
                timeout_graceful_shutdown=max(1, round(grace)),
            )
        )
        self._thread = threading.Thread(target=self._run, name="door", daemon=True)
        self._started = False

    def start(self) -> None:
        self._started = True
        self._thread.start()

    def close(self) -> None:
        """Take no more calls, finish those in work."""
        self._server.should_exit = True
        if self._started:
            self._thread.join(self._grace + 2.0)
        self._socket.close()

    def _run(self) -> None:
        self._server.run(sockets=[self._socket])
