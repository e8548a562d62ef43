"""The OTLP door's web server, in ingest's own event loop: its producer lives there."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.applications import Starlette
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.ingest.otlp_door import OtlpDoor
from shared.clock import Clock
from shared.http.access import protect
from shared.http.tokens import Tokens
from shared.telemetry.metrics import OTLP_CALLS
from shared.web_server import listen, settings


def make_app(door: OtlpDoor, *, tokens: Tokens, rate: float, clock: Clock) -> ASGIApp:
    """`door` on its path, behind tokens, rates and the bound on bodies."""
    app = Starlette(routes=[Route("/v1/traces", door.traces, methods=["POST"])])
    guarded = protect(
        app,
        tokens=tokens,
        clock=clock,
        setting="TRACER_OTLP_TOKEN",
        rate=rate,
        max_body=door.limits.body,
    )
    return _Counted(guarded)


class _Counted:
    """Counts every answer by its status."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                OTLP_CALLS.labels(status=str(message["status"])).inc()
            await send(message)

        await self._app(scope, receive, counted)


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the service's."""
        yield


class OtlpServer:
    """Serves `app` in the running loop, on a socket that is bound when this is made."""

    def __init__(self, app: ASGIApp, host: str, port: int, *, grace: float) -> None:
        """Port 0 picks a free one. Raises Fatal when it cannot listen there."""
        self._socket = listen(
            host,
            port,
            name="OTLP door",
            fix="set TRACER_OTLP_PORT to another port, or leave it out for no door",
        )
        self.port: int = self._socket.getsockname()[1]
        self._server = _Server(settings(app, loop="none", grace=grace))
        self._serving: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._serving = asyncio.create_task(self._server.serve(sockets=[self._socket]))

    async def close(self) -> None:
        """Take no more calls, finish those in work."""
        self._server.should_exit = True
        if self._serving is not None:
            await self._serving
        self._socket.close()
