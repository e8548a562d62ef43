"""Callers who hold a connection and ask for nothing do not close the door to others."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from shared import web_server
from shared.http.body import BodyLimit
from shared.web_server import WebServer

HEAD_SECONDS, MOST = 0.5, 5
MUCH = 16 * 1024 * 1024  # more than the kernel takes of an answer nobody reads
HEAD = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n"


async def echo(request: Request) -> Response:
    return Response(await request.body())


async def much(request: Request) -> Response:
    return Response(b"x" * MUCH)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[WebServer]:
    monkeypatch.setattr(web_server, "HEAD_SECONDS", HEAD_SECONDS)
    monkeypatch.setattr(web_server, "MAX_CONNECTIONS", MOST)
    app = Starlette(routes=[Route("/", echo, methods=["POST"]), Route("/much", much)])
    made = WebServer(app, "127.0.0.1", 0, grace=1.0, name="test", fix="")
    made.start()
    yield made
    made.close()


def ask(server: WebServer) -> int:
    return httpx.post(f"http://127.0.0.1:{server.port}/", content=b"hello", timeout=5).status_code


def connect(server: WebServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=5)


def seconds_until_closed(connection: socket.socket) -> float:
    began = time.monotonic()
    while connection.recv(65_536):
        pass
    return time.monotonic() - began


def trickle(connection: socket.socket) -> None:
    for byte in HEAD * 20:
        connection.sendall(bytes([byte]))
        time.sleep(0.05)


@pytest.mark.parametrize("said", [b"", b"P", HEAD[:40], HEAD])
def test_a_head_that_does_not_come_is_given_up(server: WebServer, said: bytes) -> None:
    with closing(connect(server)) as slow:
        slow.sendall(said)
        assert HEAD_SECONDS * 0.5 < seconds_until_closed(slow) < 4


def test_a_byte_now_and_then_buys_no_time(server: WebServer) -> None:
    began = time.monotonic()
    with closing(connect(server)) as slow, pytest.raises(ConnectionError):
        trickle(slow)
    assert time.monotonic() - began < 4


def test_the_next_head_on_the_same_connection_must_come_too(server: WebServer) -> None:
    with closing(connect(server)) as slow:
        slow.sendall(HEAD + b"\r\nabcd")
        assert slow.recv(65_536).startswith(b"HTTP/1.1 200")
        slow.sendall(HEAD)
        assert seconds_until_closed(slow) < 4


def test_a_body_may_take_longer_than_a_head(server: WebServer) -> None:
    with closing(connect(server)) as slow:
        slow.sendall(HEAD + b"\r\nab")
        time.sleep(2 * HEAD_SECONDS)
        slow.sendall(b"cd")
        assert slow.recv(65_536).startswith(b"HTTP/1.1 200")


def test_too_many_connections_are_told_so_and_the_silent_ones_make_room(
    server: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web_server, "HEAD_SECONDS", 3.0)
    silent = [connect(server) for _ in range(MOST)]
    deadline = time.monotonic() + 2
    while ask(server) != 503:  # the last of them may not be counted yet
        assert time.monotonic() < deadline
    deadline = time.monotonic() + 10
    while ask(server) != 200:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    for connection in silent:
        connection.close()


def unread(server: WebServer, requests: bytes) -> socket.socket:
    """A connection that asks and does not read."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.settimeout(20)
    connection.connect(("127.0.0.1", server.port))
    connection.sendall(requests)
    return connection


@pytest.mark.parametrize("requests", [1, 50])
def test_an_answer_that_nobody_reads_is_given_up(
    server: WebServer, monkeypatch: pytest.MonkeyPatch, requests: int
) -> None:
    """However many are asked for at once; the connection counts until it is closed."""
    monkeypatch.setattr(web_server, "UNREAD_SECONDS", 0.5)
    monkeypatch.setattr(web_server, "SLOWEST_BYTES_PER_SECOND", 1 << 30)
    state = server._server.server_state
    get = b"GET /much HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with closing(unread(server, get * requests)):
        wait_until(lambda: len(state.connections) == 1)
        wait_until(lambda: not state.connections)
    assert ask(server) == 200


def test_an_answer_that_is_read_slowly_comes_whole(
    server: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web_server, "UNREAD_SECONDS", 0.5)
    monkeypatch.setattr(web_server, "SLOWEST_BYTES_PER_SECOND", MUCH // 10)
    with closing(unread(server, b"GET /much HTTP/1.1\r\nHost: localhost\r\n\r\n")) as slow:
        time.sleep(1.5)
        came = 0
        while came < MUCH:
            read = len(slow.recv(1 << 20))
            assert read
            came += read


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 15
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


SMUGGLED = b"GET /much HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.mark.parametrize(
    "framing",
    [
        b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n0\r\n\r\n",
        b"Content-Length: 0\r\nContent-Length: 44\r\n\r\n",
        b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        b"Content-Length: +4\r\n\r\nabcd",
        b"Content-Length: 4, 5\r\n\r\nabcd",
    ],
)  # fmt: skip
def test_no_call_hides_in_the_body_of_another(
    monkeypatch: pytest.MonkeyPatch, framing: bytes
) -> None:
    """Whatever the framing leaves open: one answer, of 4xx or 5xx, and the connection ends."""
    monkeypatch.setattr(web_server, "HEAD_SECONDS", HEAD_SECONDS)
    asked: list[str] = []

    async def note(request: Request) -> Response:
        asked.append(request.method)
        await request.body()
        return Response("fine")

    app = BodyLimit(
        Starlette(routes=[Route("/{path:path}", note, methods=["GET", "POST"])]), most=99
    )
    server = WebServer(app, "127.0.0.1", 0, grace=1.0, name="test", fix="")
    server.start()
    try:
        with closing(connect(server)) as connection:
            connection.sendall(b"POST / HTTP/1.1\r\nHost: localhost\r\n" + framing + SMUGGLED)
            answers = b""
            while read := connection.recv(65_536):
                answers += read
    finally:
        server.close()
    assert answers.count(b"HTTP/1.1 ") == 1
    assert answers.split()[1][:1] in (b"4", b"5")
    assert asked == []
