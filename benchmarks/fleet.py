"""A fleet of routers as Redis sees it: their connections and what they send, without what they do.

A thousand router processes do not fit on one machine. Each is simulated by the two connections a
router's following holds: one that is subscribed to hints, one that sends the very bytes a router's
poll sends. One thread serves them all, so that what it needs is in every time measured here.
"""

from __future__ import annotations

import heapq
import random
import selectors
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import redis

from services.router.models import JITTER, POINTERS_PER_POLL
from shared.registry.scripts import ACTIVE_FIELDS, CHANNEL, Keys

_CHUNK = 1 << 18
# Closes a poll, so that its answer's end is seen without reading the answer: one command in 201.
_END = b"+PONG\r\n"


@dataclass
class Fleet:
    """`routers` pairs of connections to the server at host and port, over `tasks`."""

    host: str
    port: int
    tasks: Sequence[str]
    routers: int
    hints_heard: dict[int, float] = field(default_factory=dict)  # router -> monotonic time
    poll_seconds: list[float] = field(default_factory=list)
    _hearing: list[socket.socket] = field(default_factory=list)
    _asking: list[socket.socket] = field(default_factory=list)
    _selector: selectors.BaseSelector = field(default_factory=selectors.DefaultSelector)
    _sent: dict[int, float] = field(default_factory=dict)  # router -> when its poll was due

    def __enter__(self) -> Fleet:
        self._requests = polls(self.tasks)
        subscribe = packed([("SUBSCRIBE", CHANNEL)])
        for router in range(self.routers):
            hearing, asking = self._connected(), self._connected()
            hearing.sendall(subscribe)
            self._selector.register(hearing, selectors.EVENT_READ, ("hint", router))
            self._selector.register(asking, selectors.EVENT_READ, ("poll", router))
            self._hearing.append(hearing)
            self._asking.append(asking)
        self.hear(30.0)  # that each is subscribed
        return self

    def __exit__(self, *raised: object) -> None:
        self._selector.close()
        for connection in (*self._hearing, *self._asking):
            connection.close()

    def hear(self, seconds: float) -> None:
        """Until every router has heard something since the last call. Raises TimeoutError."""
        deadline = time.monotonic() + seconds
        while len(self.hints_heard) < self.routers:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{len(self.hints_heard)} of {self.routers} routers heard of it")
            self._read(0.2)

    def forget(self) -> None:
        self.hints_heard.clear()

    def poll(self, seconds: float, interval: float, rng: random.Random) -> float:
        """As the routers do for so long; returns polls a second that were answered."""
        begun = time.monotonic()
        due = [(begun + rng.uniform(0, interval), router) for router in range(self.routers)]
        heapq.heapify(due)
        turn = [rng.randrange(len(self._requests)) for _ in range(self.routers)]
        self.poll_seconds.clear()
        while (now := time.monotonic()) < begun + seconds:
            while due and due[0][0] <= now:
                when, router = heapq.heappop(due)
                if router in self._sent:  # still unanswered: the server does not keep up
                    heapq.heappush(due, (now + interval, router))
                    continue
                self._sent[router] = when
                self._asking[router].sendall(self._requests[turn[router] % len(self._requests)])
                turn[router] += 1
                again = interval * rng.uniform(1 - JITTER, 1 + JITTER)
                heapq.heappush(due, (when + again, router))
            self._read(max(0.0, min(due[0][0] - now, 0.05)))
        answered = len(self.poll_seconds) / (time.monotonic() - begun)
        deadline = time.monotonic() + 30
        while self._sent and time.monotonic() < deadline:
            self._read(0.2)
        return answered

    def _read(self, timeout: float) -> None:
        for key, _ in self._selector.select(timeout):
            kind, router = key.data
            connection = key.fileobj
            assert isinstance(connection, socket.socket)
            data = connection.recv(_CHUNK)
            now = time.monotonic()
            if not data:
                raise ConnectionError("Redis closed a router's connection")
            if kind == "hint":
                self.hints_heard.setdefault(router, now)
            elif data.endswith(_END):
                self.poll_seconds.append(now - self._sent.pop(router))

    def _connected(self) -> socket.socket:
        connection = socket.create_connection((self.host, self.port), timeout=30)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection


def polls(tasks: Sequence[str]) -> list[bytes]:
    """What a router sends, poll after poll, until every task had its turn."""
    return [
        packed(
            [("HMGET", Keys.of(task).active, *ACTIVE_FIELDS) for task in tasks[start : start + n]]
            + [("PING",)]
        )
        for n in (POINTERS_PER_POLL,)
        for start in range(0, len(tasks), n)
    ]


def packed(commands: Sequence[tuple[Any, ...]]) -> bytes:
    """As redis-py sends them."""
    return b"".join(redis.Connection().pack_commands(commands))
