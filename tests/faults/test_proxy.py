"""What a link promises in each mode, on real sockets."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tests.faults.proxy import Link, Links


class Echo:
    """A server that sends back what it gets; `ended` counts the connections that ended."""

    def __init__(self) -> None:
        self.ended = 0
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._server.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            threading.Thread(target=self._echo, args=(connection,), daemon=True).start()

    def _echo(self, connection: socket.socket) -> None:
        try:
            while chunk := connection.recv(1024):
                connection.sendall(chunk)
        except OSError:
            pass
        self.ended += 1

    def close(self) -> None:
        self._server.close()


@pytest.fixture
def echo() -> Iterator[Echo]:
    server = Echo()
    yield server
    server.close()


@pytest.fixture
def links() -> Iterator[Links]:
    all_of_them = Links()
    yield all_of_them
    all_of_them.close()


def connect(link: Link) -> socket.socket:
    return socket.create_connection(("127.0.0.1", link.port), timeout=5)


def said(connection: socket.socket, text: bytes) -> bytes:
    connection.sendall(text)
    return connection.recv(1024)


def test_open_forwards_both_ways(links: Links, echo: Echo) -> None:
    with connect(links.add(echo.port)) as one:
        assert said(one, b"hello") == b"hello"


def test_cut_resets_what_is_connected_and_what_connects(links: Links, echo: Echo) -> None:
    link = links.add(echo.port)
    with connect(link) as one:
        assert said(one, b"hello") == b"hello"
        link.set("cut")
        with pytest.raises(OSError, match="reset"):
            said(one, b"there?")
    with pytest.raises(OSError, match=r"reset|refused"), connect(link) as two:
        said(two, b"hello")
    link.set("open")
    with connect(link) as three:
        assert said(three, b"again") == b"again"


def test_a_hole_swallows_and_gives_back_when_it_opens(links: Links, echo: Echo) -> None:
    link = links.add(echo.port)
    with connect(link) as one:
        assert said(one, b"hello") == b"hello"
        link.set("hole")
        one.settimeout(0.3)
        with pytest.raises(TimeoutError):
            said(one, b"anybody?")
        one.settimeout(5)
        link.set("open")
        assert one.recv(1024) == b"anybody?"


def test_slow_delays_and_keeps_the_order(links: Links, echo: Echo) -> None:
    link = links.add(echo.port)
    link.set("slow", delay=0.1)
    with connect(link) as one:
        began = time.monotonic()
        assert said(one, b"a") == b"a"
        assert time.monotonic() - began >= 0.2
        assert said(one, b"b") == b"b"


def test_abandoned_is_dead_for_both_and_only_the_server_knows(links: Links, echo: Echo) -> None:
    link = links.add(echo.port)
    with connect(link) as one:
        assert said(one, b"hello") == b"hello"
        assert link.abandon() == 1
        one.settimeout(0.3)
        with pytest.raises(TimeoutError):
            said(one, b"anybody?")
        with connect(link) as two:
            assert said(two, b"hello") == b"hello"
        links.hang_up()
        one.settimeout(5)
        with pytest.raises(OSError, match="reset"):
            one.recv(1024)
    end = time.monotonic() + 5
    while echo.ended < 1 and time.monotonic() < end:
        time.sleep(0.01)
    assert echo.ended >= 1


def test_retarget_moves_new_connections(links: Links, echo: Echo) -> None:
    other = Echo()
    link = links.add(echo.port)
    with connect(link) as one:
        assert said(one, b"hello") == b"hello"
        link.retarget(other.port)
        with pytest.raises(OSError, match="reset"):
            said(one, b"there?")
    with connect(link) as two:
        assert said(two, b"hello") == b"hello"
    other.close()
