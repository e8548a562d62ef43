"""The laws of liveness and readiness."""

from __future__ import annotations

import http.client
import socket
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from shared.clock import FakeClock
from shared.telemetry import health as health_module
from shared.telemetry.health import Health, HealthServer

STALL = 60.0


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def health(clock: FakeClock) -> Health:
    return Health(clock, stall_seconds=STALL)


def turn(health: Health, clock: FakeClock, seconds: int, waiting: int | None) -> None:
    """The loop turns once a second and takes in nothing."""
    for _ in range(seconds):
        clock.sleep(1.0)
        health.progress(0, waiting)
        health.beat()


def test_a_loop_that_does_not_turn_is_dead(health: Health, clock: FakeClock) -> None:
    clock.sleep(STALL)
    assert health.liveness() == (True, "alive")
    clock.sleep(1.0)
    assert health.liveness() == (False, "no progress for 61 s: the loop does not turn")
    health.beat()
    assert health.liveness()[0]


def test_a_loop_that_turns_and_consumes_nothing_is_dead_only_when_messages_wait(
    health: Health, clock: FakeClock
) -> None:
    turn(health, clock, 300, waiting=0)
    assert health.liveness()[0]
    turn(health, clock, 61, waiting=7)
    assert health.liveness()[0]  # for 60 s
    turn(health, clock, 1, waiting=9)
    assert health.liveness() == (
        False, "no progress for 61 s: nothing consumed, 9 messages wait",
    )  # fmt: skip


def test_anything_consumed_is_progress_however_much_waits(health: Health, clock: FakeClock) -> None:
    for _ in range(10):
        turn(health, clock, 50, waiting=1_000_000)
        health.progress(1, None)
    assert health.liveness()[0]


def test_a_broker_that_cannot_be_asked_is_no_stall(health: Health, clock: FakeClock) -> None:
    turn(health, clock, 50, waiting=5)
    turn(health, clock, 500, waiting=None)
    assert health.liveness()[0]
    turn(health, clock, 50, waiting=5)  # it is back: the time runs anew
    assert health.liveness()[0]
    turn(health, clock, 20, waiting=5)
    assert not health.liveness()[0]


def test_conditions_are_asked_at_every_probe(health: Health) -> None:
    alive: list[str | None] = [None]
    ready: list[str | None] = ["registry not reached"]
    health.require(alive=lambda: alive[0], ready=lambda: ready[0])
    assert health.readiness() == (False, "starting")
    health.ready()
    assert health.readiness() == (False, "registry not reached")
    ready[0] = None
    assert health.readiness() == (True, "ready")
    assert health.liveness() == (True, "alive")
    alive[0] = "worker stuck"
    assert health.liveness() == (False, "worker stuck")
    health.not_ready("broker away")
    assert health.readiness() == (False, "broker away")


@pytest.fixture
def server(health: Health) -> Iterator[HealthServer]:
    made = HealthServer(health, "127.0.0.1", 0)
    yield made
    made.close()


def ask(server: HealthServer, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
    connection.request("GET", path)
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, text


def test_probes_get_the_reason(health: Health, clock: FakeClock, server: HealthServer) -> None:
    assert ask(server, "/readyz") == (503, "starting\n")
    assert ask(server, "/healthz") == (200, "alive\n")
    turn(health, clock, 70, waiting=2)
    assert ask(server, "/healthz") == (
        503, "no progress for 69 s: nothing consumed, 2 messages wait\n",
    )  # fmt: skip


def test_the_probes_are_metrics_too(health: Health, clock: FakeClock, server: HealthServer) -> None:
    assert {"tracer_alive 1.0", "tracer_ready 0.0"} <= set(ask(server, "/metrics")[1].splitlines())
    health.ready()
    assert "tracer_ready 1.0" in ask(server, "/metrics")[1].splitlines()
    turn(health, clock, 70, waiting=2)
    assert "tracer_alive 0.0" in ask(server, "/metrics")[1].splitlines()


@pytest.mark.parametrize("said", [b"", b"GET /healthz HTTP/1.1\r\nX: "])
def test_who_asks_nothing_is_not_listened_to_for_long(
    server: HealthServer, monkeypatch: pytest.MonkeyPatch, said: bytes
) -> None:
    monkeypatch.setattr(health_module, "PROBE_SECONDS", 0.5)
    with closing(socket.create_connection(("127.0.0.1", server.port), timeout=10)) as slow:
        slow.sendall(said)
        assert slow.recv(1) == b""
    assert ask(server, "/healthz") == (200, "alive\n")


def test_silent_connections_are_bounded_and_make_room(
    server: HealthServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health_module, "MAX_PROBES", 3)
    monkeypatch.setattr(health_module, "PROBE_SECONDS", 1.5)
    silent = [socket.create_connection(("127.0.0.1", server.port), timeout=10) for _ in range(3)]
    with closing(socket.create_connection(("127.0.0.1", server.port), timeout=10)) as fourth:
        assert fourth.recv(1) == b""  # at once, not when the others end
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            assert ask(server, "/healthz") == (200, "alive\n")
            break
        except (ConnectionError, http.client.HTTPException):
            time.sleep(0.1)
    else:
        pytest.fail("there was never room again")
    for connection in silent:
        connection.close()


def test_a_probe_that_fails_is_said_and_ends_no_server(
    server: HealthServer, health: Health, caplog: pytest.LogCaptureFixture
) -> None:
    answers = iter((ZeroDivisionError("nobody thought of this"),))

    def broken() -> str | None:
        for error in answers:
            raise error
        return None

    health.require(alive=broken)
    with pytest.raises((ConnectionError, http.client.HTTPException)):
        ask(server, "/healthz")
    assert ask(server, "/healthz") == (200, "alive\n")
    assert "nobody thought of this" in caplog.text
