"""uvicorn as every HTTP door of ours runs it: in a thread of its own (`WebServer`), or, from the
same pieces, in the loop of a service that has one.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import Literal

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from shared.bus.errors import Fatal

MAX_CONNECTIONS = 1024
HEAD_SECONDS = 5.0  # from a connection, or the first byte of its next request, to the whole head
# An answer that the caller does not take is given up after so long, and what it takes at so slow a
# rate.
UNREAD_SECONDS = 30.0
SLOWEST_BYTES_PER_SECOND = 64 * 1024


class Punctual(H11Protocol):
    """uvicorn waits for ever for the rest of a request's head, and for callers to read an answer,
    so that 1,024 callers who do neither would close a door to everybody. Here such a connection is
    closed."""

    _head_due: asyncio.TimerHandle | None = None
    _read_due: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        # So that `pause_writing` says at once that an answer is not taken.
        transport.set_write_buffer_limits(high=0)
        super().connection_made(transport)
        self._await_head()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._has_asked():
            self._head_came()
        elif self._head_due is None:
            self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_came()
        self._was_read()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        unread = self.transport.get_write_buffer_size() / SLOWEST_BYTES_PER_SECOND
        self._read_due = self.loop.call_later(UNREAD_SECONDS + unread, self.transport.abort)

    def resume_writing(self) -> None:
        self._was_read()
        super().resume_writing()

    def _was_read(self) -> None:
        if self._read_due is not None:
            self._read_due.cancel()
            self._read_due = None

    def _has_asked(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _await_head(self) -> None:
        self._head_due = self.loop.call_later(HEAD_SECONDS, self._give_up)

    def _head_came(self) -> None:
        if self._head_due is not None:
            self._head_due.cancel()
            self._head_due = None

    def _give_up(self) -> None:
        self._head_due = None
        if not self._has_asked() and not self.transport.is_closing():
            self.transport.close()


def listen(host: str, port: int, *, name: str, fix: str) -> socket.socket:
    """A socket that is bound; port 0 picks a free one. `fix`: what to set where `name` cannot
    listen there.

    Raises Fatal when it cannot listen there.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family, backlog=1024)
    except OSError as error:
        raise Fatal(
            f"the {name} cannot listen on {host}:{port} ({error.strerror}): {fix}"
        ) from error
    # asyncio does so only for sockets made with an explicit protocol. Without it the body waits
    # for the caller's acknowledgement of the head: 40 ms.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


def settings(app: ASGIApp, *, loop: Literal["asyncio", "none"], grace: float) -> uvicorn.Config:
    """`grace`: seconds for the calls in work at the end. Loop "none": the one that runs."""
    return uvicorn.Config(
        app,
        loop=loop,
        http=Punctual,
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


class WebServer:
    """Serves `app` from a thread, on a socket that is bound when this is made."""

    def __init__(
        self, app: ASGIApp, host: str, port: int, *, grace: float, name: str, fix: str
    ) -> None:
        """Port 0 picks a free one. `grace`: seconds for the calls in work at the end. `fix`: what
        to set where `name` cannot listen there.

        Raises Fatal when it cannot listen there.
        """
        self._socket = listen(host, port, name=name, fix=fix)
        self.port: int = self._socket.getsockname()[1]
        self._grace = grace
        self._server = uvicorn.Server(settings(app, loop="asyncio", grace=grace))
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
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
