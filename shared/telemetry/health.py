"""Liveness, readiness and metrics over HTTP.

Alive means progress. A consumer dies in two ways while its process lives on: its loop does not
turn any more, or it turns and takes in nothing although messages wait. Either is fatal after
`stall_seconds`. A broker that cannot be asked is neither: a restart would not bring it back.
Ready means able to do its work now.
"""

from __future__ import annotations

import logging
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from shared.clock import Clock
from shared.telemetry.metrics import ALIVE, READY

log = logging.getLogger(__name__)

# From a connection to the end of its one answer. Probes wait for a second, scrapes for ten.
PROBE_SECONDS = 15.0
# At once; more are closed unheard, lest strangers take the process's last file descriptors.
MAX_PROBES = 256

# Why not, None when all is well. Called from the HTTP thread, so it must not block.
Condition = Callable[[], str | None]


class Health:
    """What a service says of itself; shared between its loop and the HTTP thread."""

    def __init__(self, clock: Clock, *, stall_seconds: float = 60.0) -> None:
        self._clock = clock
        self._stall_seconds = stall_seconds
        self._last_beat = clock.monotonic()
        self._not_ready: str | None = "starting"
        self._behind: tuple[float, int] | None = None  # since when, by how many messages
        self._alive_if: list[Condition] = []
        self._ready_if: list[Condition] = []

    def require(self, *, alive: Condition | None = None, ready: Condition | None = None) -> None:
        """Ask this, too, at every probe."""
        if alive is not None:
            self._alive_if.append(alive)
        if ready is not None:
            self._ready_if.append(ready)

    def beat(self) -> None:
        """Call once per turn of the main loop."""
        self._last_beat = self._clock.monotonic()

    def progress(self, consumed: int, waiting: int | None) -> None:
        """What was taken in since the last call, and how many messages wait for this consumer.

        `waiting` None: not known, the broker is away. The time to stall runs from the first call
        in a row that took in nothing while messages waited.
        """
        if consumed or not waiting:
            self._behind = None
        elif self._behind is None:
            self._behind = (self._clock.monotonic(), waiting)
        else:
            self._behind = (self._behind[0], waiting)

    def ready(self) -> None:
        self._not_ready = None

    def not_ready(self, why: str) -> None:
        self._not_ready = why

    def liveness(self) -> tuple[bool, str]:
        now = self._clock.monotonic()
        idle = now - self._last_beat
        if idle > self._stall_seconds:
            return False, f"no progress for {idle:.0f} s: the loop does not turn"
        behind = self._behind
        if behind is not None and now - behind[0] > self._stall_seconds:
            seconds = f"{now - behind[0]:.0f} s"
            return False, f"no progress for {seconds}: nothing consumed, {behind[1]} messages wait"
        why = _first(self._alive_if)
        return why is None, why or "alive"

    def readiness(self) -> tuple[bool, str]:
        why = self._not_ready or _first(self._ready_if)
        return why is None, why or "ready"


def _first(conditions: list[Condition]) -> str | None:
    """The first reason that one of them gives."""
    return next((why for each in conditions if (why := each()) is not None), None)


class _Server(ThreadingHTTPServer):
    """A thread for each connection, of which none lasts."""

    daemon_threads = True

    def __init__(self, *arguments: Any) -> None:
        self._lock = threading.Lock()
        self._began: dict[socket.socket, float] = {}
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            room = len(self._began) < MAX_PROBES
            if room:
                self._began[request] = time.monotonic()
        if room:
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._began.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """Twice a second: end what takes too long; its thread then closes it."""
        late = time.monotonic() - PROBE_SECONDS
        with self._lock:
            for connection, began in self._began.items():
                if began < late:
                    with suppress(OSError):
                        connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Who goes before the answer is no news; anything else is a bug."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            log.error("a probe could not be answered", exc_info=error)


class HealthServer:
    """Serves /healthz, /readyz and /metrics until closed. Port 0 picks a free one."""

    def __init__(self, health: Health, host: str, port: int) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path == "/metrics":
                    ALIVE.set(health.liveness()[0])
                    READY.set(health.readiness()[0])
                    self._answer(200, CONTENT_TYPE_LATEST, generate_latest())
                    return
                checks = {"/healthz": health.liveness, "/readyz": health.readiness}
                check = checks.get(self.path)
                if check is None:
                    self._answer(404, "text/plain", b"try /healthz, /readyz or /metrics\n")
                    return
                good, text = check()
                self._answer(200 if good else 503, "text/plain", f"{text}\n".encode())

            def _answer(self, status: int, kind: str, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """Probes every few seconds are not news."""

        self._server = _Server((host, port), Handler)
        self.port: int = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, name="health", daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
