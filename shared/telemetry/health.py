"""Liveness, readiness and metrics over HTTP.

Alive means progress: a consumer whose loop has not turned for `stall_seconds` is dead even when
its process is not. Ready means able to do its work now.
"""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from shared.clock import Clock


class Health:
    """What a service says of itself; shared between its loop and the HTTP thread."""

    def __init__(self, clock: Clock, *, stall_seconds: float = 60.0) -> None:
        self._clock = clock
        self._stall_seconds = stall_seconds
        self._last_beat = clock.monotonic()
        self._not_ready: str | None = "starting"

    def beat(self) -> None:
        """Call once per turn of the main loop."""
        self._last_beat = self._clock.monotonic()

    def ready(self) -> None:
        self._not_ready = None

    def not_ready(self, why: str) -> None:
        self._not_ready = why

    def liveness(self) -> tuple[bool, str]:
        idle = self._clock.monotonic() - self._last_beat
        if idle > self._stall_seconds:
            return False, f"no progress for {idle:.0f} s"
        return True, "alive"

    def readiness(self) -> tuple[bool, str]:
        why = self._not_ready
        return why is None, why or "ready"


class HealthServer:
    """Serves /healthz, /readyz and /metrics until closed. Port 0 picks a free one."""

    def __init__(self, health: Health, host: str, port: int) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path == "/metrics":
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

        self._server = ThreadingHTTPServer((host, port), Handler)
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, name="health", daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
