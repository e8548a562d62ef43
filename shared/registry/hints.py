"""Listening to Redis for hints that some task changed, over connections that may lie."""

from __future__ import annotations

import threading
from typing import Any

import redis

from shared.clock import Clock, SystemClock
from shared.registry.base import Hint
from shared.registry.replies import as_bytes
from shared.registry.scripts import CHANNEL

_SLICE_SECONDS = 0.2
# Beyond so many at once it is simpler to look at all; and whoever may publish could go on for ever.
_MOST_AT_ONCE = 1_000


class HintListener:
    """One subscription, opened at the first wait and opened again after a failure.

    redis-py never notices that a subscription's peer is gone without a word (a half-open
    connection), so after `quiet_seconds` of silence this asks for a sign of life, and gives the
    connection up when none comes for `patience_seconds`.
    """

    def __init__(
        self,
        client: redis.Redis,
        *,
        quiet_seconds: float,
        patience_seconds: float,
        clock: Clock | None = None,
    ) -> None:
        self._client = client
        self._quiet_seconds = quiet_seconds
        self._patience_seconds = patience_seconds
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._pubsub: Any = None
        self._heard_at = 0.0
        self._asked_at: float | None = None

    def wait(self, timeout: float) -> Hint:
        """Of the tasks it heard of; of everything after a new subscription, before which hints
        were lost.

        Raises redis.ConnectionError or redis.TimeoutError.
        """
        deadline = self._clock.monotonic() + timeout
        with self._lock:
            try:
                while not self._closed.is_set():
                    left = deadline - self._clock.monotonic()
                    if hint := self._heard(min(max(left, 0.0), _SLICE_SECONDS)):
                        return hint | self._rest()
                    if left <= 0:
                        return Hint()
            except (redis.ConnectionError, redis.TimeoutError):
                self._drop()
                raise
        return Hint()

    def close(self) -> None:
        """Ends a wait in another thread, too."""
        self._closed.set()
        with self._lock:
            self._drop()
        self._client.close()

    def _heard(self, timeout: float) -> Hint:
        if self._pubsub is None:
            self._pubsub = self._client.pubsub()  # type: ignore[no-untyped-call]
            self._pubsub.subscribe(CHANNEL)
            self._alive()
        message = self._pubsub.get_message(timeout=timeout)
        if message is None:
            self._mind_the_silence()
            return Hint()
        self._alive()
        return _hint_of(message)

    def _rest(self) -> Hint:
        """What has come already besides."""
        hint = Hint()
        for _ in range(_MOST_AT_ONCE):
            message = self._pubsub.get_message(timeout=0.0)
            if message is None:
                return hint
            self._alive()
            hint |= _hint_of(message)
        return Hint(everything=True)

    def _alive(self) -> None:
        self._heard_at = self._clock.monotonic()
        self._asked_at = None

    def _mind_the_silence(self) -> None:
        now = self._clock.monotonic()
        if self._asked_at is None:
            if now - self._heard_at >= self._quiet_seconds:
                self._pubsub.ping()
                self._asked_at = now
        elif now - self._asked_at >= self._patience_seconds:
            raise redis.TimeoutError("the subscription gave no sign of life")

    def _drop(self) -> None:
        if self._pubsub is not None:
            self._pubsub.close()
            self._pubsub = None


def _hint_of(message: dict[str, Any]) -> Hint:
    # redis-py subscribes again by itself when it reconnects, and hints were lost meanwhile.
    if message["type"] == "subscribe":
        return Hint(everything=True)
    if message["type"] != "message":
        return Hint()
    # Whoever may publish here can send any bytes: what names no task is followed by nobody.
    return Hint(frozenset({as_bytes(message["data"]).decode(errors="replace")}))
