"""The main loop of a service over a pipe, and its end on a signal."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Protocol

from shared.bus.base import Message, Pipe, Record
from shared.bus.errors import Retryable
from shared.bus.retry import Backoff
from shared.clock import Clock

logger = logging.getLogger(__name__)

_LAG_SECONDS = 1.0
_NAP_SECONDS = 0.5
# A consumer that took in nothing for so long asks the broker what waits; for so long at most.
_QUIET_SECONDS = 5.0
_ASK_SECONDS = 2.0


class Heartbeat(Protocol):
    """What the loop tells the service's health (shared.telemetry.health.Health)."""

    def beat(self) -> None: ...
    def progress(self, consumed: int, waiting: int | None) -> None: ...
    def ready(self) -> None: ...
    def not_ready(self, why: str) -> None: ...


def run_pipe(
    pipe: Pipe,
    handle: Callable[[list[Message]], Sequence[Record]],
    *,
    stop: threading.Event,
    health: Heartbeat,
    clock: Clock,
    max_batch: int,
    max_wait: float,
    on_retry: Callable[[Retryable], None] | None = None,
    on_lag: Callable[[int], None] | None = None,
    on_batch: Callable[[float], None] | None = None,
    backoff: Backoff | None = None,
) -> None:
    """Poll, handle, commit, until `stop` is set; the batch in work is finished first.

    The order of side effects in one turn:

    1. poll: up to `max_batch` messages, waiting at most `max_wait` seconds for the first;
    2. handle: the batch becomes records (it is called again with the same batch when it raises
       Retryable, so what it does besides returning records must bear repeating);
    3. commit: the records are published and the offsets stored, by the pipe's guarantee;
    4. health: a beat, and ready.

    After five seconds without a message the broker is asked whether any wait, because a consumer
    that has died silently does not know of them; health turns what it says into liveness.

    When poll or commit raises Retryable the pipe has gone back to its last commit, and the next
    turn polls the same messages again. After either, the loop waits (doubling, with jitter),
    beating but not ready. Anything else that is raised, Fatal first of all, ends the loop with
    nothing committed. `on_lag` is told the lag about once a second, `on_batch` the seconds
    from a batch's poll to its commit. The caller closes the pipe.
    """
    loop = _Loop(stop, health, clock, on_retry, backoff or Backoff())
    lag_due = clock.monotonic()
    while not stop.is_set():
        with loop.retried():
            messages = pipe.poll(max_batch, max_wait)
            loop.polled(len(messages), pipe)
            if messages:
                polled = clock.monotonic()
                records = loop.insist(handle, messages)
                if records is None:
                    return
                pipe.commit(records)
                if on_batch is not None:
                    on_batch(clock.monotonic() - polled)
            # An empty poll right after a rewind proves nothing yet.
            if messages or pipe.lag() == 0:
                loop.succeeded()
            health.beat()
        if on_lag is not None and clock.monotonic() >= lag_due:
            on_lag(pipe.lag())
            lag_due = clock.monotonic() + _LAG_SECONDS


class _Loop:
    """The health and the patience of one run."""

    def __init__(
        self,
        stop: threading.Event,
        health: Heartbeat,
        clock: Clock,
        on_retry: Callable[[Retryable], None] | None,
        backoff: Backoff,
    ) -> None:
        self._stop = stop
        self._health = health
        self._clock = clock
        self._on_retry = on_retry
        self._backoff = backoff
        self._pauses = backoff.pauses()
        self._ready = False
        self._quiet_since = clock.monotonic()

    def polled(self, count: int, pipe: Pipe) -> None:
        """Tell health what came in, and after a while of nothing what waits at the broker."""
        now = self._clock.monotonic()
        if count:
            self._health.progress(count, None)
        elif now - self._quiet_since >= _QUIET_SECONDS:
            self._health.progress(0, pipe.waiting(_ASK_SECONDS))
        else:
            return
        self._quiet_since = self._clock.monotonic()

    def succeeded(self) -> None:
        if not self._ready:
            self._ready = True
            self._health.ready()
            self._pauses = self._backoff.pauses()

    @contextmanager
    def retried(self) -> Iterator[None]:
        try:
            yield
        except Retryable as error:
            self._wait_after(error)

    def insist(
        self, handle: Callable[[list[Message]], Sequence[Record]], messages: list[Message]
    ) -> Sequence[Record] | None:
        """What `handle` returns, tried again on Retryable; None when told to stop meanwhile."""
        while True:
            try:
                return handle(messages)
            except Retryable as error:
                self._wait_after(error)
                if self._stop.is_set():
                    return None

    def _wait_after(self, error: Retryable) -> None:
        self._ready = False
        self._health.not_ready(str(error))
        self._health.progress(0, None)  # said why, so it waits for others and is not stuck
        if self._on_retry is not None:
            self._on_retry(error)
        left = next(self._pauses)
        logger.warning("trying again in %.1f s: %s", left, error)
        # In naps, so that the wait looks alive and a signal ends it.
        while left > 0 and not self._stop.is_set():
            self._health.beat()
            self._clock.sleep(min(left, _NAP_SECONDS))
            left -= _NAP_SECONDS
        self._health.beat()


def stop_on_signals(stop: threading.Event) -> None:
    """SIGTERM and SIGINT set `stop`; a second one ends the process at once. Main thread only."""

    def on_signal(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            raise SystemExit(128 + number)
        logger.info("%s: finishing the batch in work", signal.Signals(number).name)
        stop.set()

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
