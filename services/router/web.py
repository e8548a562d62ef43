"""The door on HTTP: routes, guards and metrics around it."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.router.door import MAX_BODY_BYTES, Door, Refusal, refused
from shared.clock import Clock
from shared.http.access import protect
from shared.http.tokens import Tokens
from shared.telemetry import metrics


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
