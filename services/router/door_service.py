"""The door, wired: a batcher over the router, a publisher of its own, a web server."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from services.router.batcher import Batcher, Limits
from services.router.calls import Told, decide
from services.router.config import RouterSettings
from services.router.door import Door
from services.router.handlers import Router
from services.router.openapi import openapi
from services.router.web import make_app
from shared.bus.base import Message, Publisher
from shared.bus.errors import Fatal
from shared.clock import Clock
from shared.contracts.topics import schemas_folder
from shared.telemetry import metrics
from shared.web_server import WebServer

# Of a call's time, what its batch may spend on the broker; the rest is for the queue.
PUBLISHING = 0.8
_LAST_SECONDS = 1.0
# Of a batch: 256 long texts take a core 23 s, and none of their calls would be answered in time.
BATCH_BYTES = 64 * 1024


class DoorService:
    """Answers calls between `start` and `close`, whatever the pipe's loop does meanwhile."""

    def __init__(
        self, settings: RouterSettings, router: Router, publisher: Publisher, clock: Clock
    ) -> None:
        """Raises Fatal when it cannot listen."""
        self.failure: Fatal | None = None
        self._router = router
        self._publisher = publisher
        self._stall_seconds = settings.stall_seconds
        self._stop = threading.Event()
        self._batcher = Batcher[Message, Told](
            self._work,
            Limits(
                batch=settings.door_max_batch,
                queued=settings.door_max_queued,
                linger=settings.door_max_wait_ms / 1000.0,
                weight=BATCH_BYTES,
            ),
            clock=clock,
            on_fatal=self._fail,
            weigh=lambda message: len(message.value),
        )
        door = Door(
            submit=self._batcher.submit,
            check=router.check,
            clock=clock,
            timeout=settings.door_timeout,
            openapi=openapi(schemas_folder()),
        )
        self._server = WebServer(
            make_app(door, clock, tokens=settings.tokens(), rate=settings.door_rate),
            settings.door_host,
            settings.door_port or 0,
            grace=settings.door_timeout + _LAST_SECONDS,
            name="door",
            fix="set TRACER_DOOR_PORT to another port, or to 0 for no door",
        )

    @property
    def port(self) -> int:
        return self._server.port

    def start(self, stop: threading.Event) -> None:
        """`stop` is set when the door can never publish again; `failure` says why then."""
        self._stop = stop
        self._batcher.start()
        self._server.start()

    def stuck(self) -> str | None:
        """For liveness: why it does not answer any more."""
        busy = self._batcher.busy_seconds()
        if busy > self._stall_seconds:
            return f"the door has been at one batch for {busy:.0f} s"
        return None

    def close(self) -> None:
        """Finish the calls in work; no longer than the longest of them may take."""
        self._server.close()
        self._batcher.close(_LAST_SECONDS)
        self._publisher.close()

    def _work(self, messages: list[Message]) -> Sequence[Told]:
        metrics.DOOR_BATCH_SIZE.observe(len(messages))
        return decide(messages, self._router, self._publisher)

    def _fail(self, error: Fatal) -> None:
        self.failure = error
        self._stop.set()
