"""The main loop of a service over a pipe, and its end on a signal."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Protocol

from shared.bus.base import Message, Pipe, Record
from shared.bus.errors import Retryable
from shared.bus.retry import Backoff
from shared.clock import Clock

logger = logging.getLogger(__name__)

_LAG_SECONDS = 1.0
_NAP_SECONDS = 0.5
# While a commit is in flight, what comes in is handled in portions of this long: nothing is lost
# by waiting, for the next commit cannot begin earlier, and larger portions cost less each.
_GATHER_SECONDS = 0.005
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
    """Poll, handle, commit, until `stop` is set; what was handled is committed first.

    One turn:

    1. poll: up to `max_batch` messages, waiting at most `max_wait` seconds for the first;
    2. handle: they become records (it is called again with the same messages when it raises
       Retryable, so what it does besides returning records must bear repeating);
    3. commit, beginning when the one before has ended: the records are published and the offsets
       stored, by the pipe's guarantee. It goes on while the next turns poll and handle, up to
       `max_batch` messages, which share the commit after it;
    4. health: a beat, and ready once a commit has succeeded or nothing waits.

    After five seconds without a message the broker is asked whether any wait, because a consumer
    that has died silently does not know of them; health turns what it says into liveness.

    When a commit fails with Retryable the pipe has gone back to the last that succeeded, and the
    next turn polls the same messages again. Then, and when `handle` did, the loop waits (doubling,
    with jitter), beating but not ready. Anything else that is raised, Fatal first of all, ends the
    loop with nothing more committed. `on_lag` is told the lag about once a second, `on_batch` the
    seconds from a commit's first poll to its end. The caller closes the pipe.
    """
    loop = _Loop(pipe, handle, stop, health, clock, on_retry, on_batch, backoff or Backoff())
    lag_due = clock.monotonic()
    while not stop.is_set():
        with loop.retried():
            loop.turn(max_batch, max_wait)
        if on_lag is not None and clock.monotonic() >= lag_due:
            on_lag(pipe.lag())
            lag_due = clock.monotonic() + _LAG_SECONDS
    loop.finish()


@dataclass
class _Work:
    """What one commit covers: `messages` polled from the moment `since`, and their records."""

    since: float
    messages: int = 0
    records: list[Record] = field(default_factory=list)


class _Loop:
    """The work, the health and the patience of one run."""

    def __init__(
        self,
        pipe: Pipe,
        handle: Callable[[list[Message]], Sequence[Record]],
        stop: threading.Event,
        health: Heartbeat,
        clock: Clock,
        on_retry: Callable[[Retryable], None] | None,
        on_batch: Callable[[float], None] | None,
        backoff: Backoff,
    ) -> None:
        self._pipe = pipe
        self._handle = handle
        self._stop = stop
        self._health = health
        self._clock = clock
        self._on_retry = on_retry
        self._on_batch = on_batch
        self._backoff = backoff
        self._pauses = backoff.pauses()
        self._ready = False
        self._quiet_since = clock.monotonic()
        self._handled: _Work | None = None
        self._in_flight: _Work | None = None

    def turn(self, max_batch: int, max_wait: float) -> None:
        """Raises Retryable, after which the work is forgotten, as the pipe comes back to it."""
        room = max_batch - (self._handled.messages if self._handled else 0)
        if room:
            self._take_in(room, max_wait)
        if self._handled is None:
            # An empty poll right after a rewind proves nothing yet.
            if self._landed(0.0) and self._pipe.lag() == 0:
                self._succeeded()
        elif self._landed(_GATHER_SECONDS if room else _NAP_SECONDS):
            self._send()
        self._health.beat()

    def finish(self) -> None:
        """Commit what was handled; what fails is left to the successor."""
        try:
            self._wait_landed()
            self._send()
            self._wait_landed()
        except Retryable as error:
            logger.warning("ending without the last commit: %s", error)

    @contextmanager
    def retried(self) -> Iterator[None]:
        try:
            yield
        except Retryable as error:
            self._handled = self._in_flight = None
            self._wait_after(error)

    def _take_in(self, room: int, max_wait: float) -> None:
        """Poll and handle, for as long as there is nothing better to do."""
        if self._handled is not None:
            wait = 0.0
        elif self._in_flight is not None:
            wait = min(max_wait, _GATHER_SECONDS)
        else:
            wait = max_wait
        messages = self._pipe.poll(room, wait)
        began = self._clock.monotonic()
        self._polled(len(messages))
        self._landed(0.0)  # one that failed takes these messages with it
        if not messages:
            return
        records = self._insist(messages)
        if records is None:
            self._handled = None  # a commit would cover these messages too
            return
        self._handled = self._handled or _Work(began)
        self._handled.messages += len(messages)
        self._handled.records += records

    def _send(self) -> None:
        if self._handled is not None:
            self._pipe.begin_commit(self._handled.records)
            self._in_flight, self._handled = self._handled, None

    def _landed(self, timeout: float) -> bool:
        """Whether no commit is in flight, and what follows from it. Raises Retryable."""
        if not self._pipe.settled(timeout):
            return False
        if self._in_flight is not None:
            if self._on_batch is not None:
                self._on_batch(self._clock.monotonic() - self._in_flight.since)
            self._in_flight = None
            self._succeeded()
        return True

    def _wait_landed(self) -> None:
        while not self._landed(_NAP_SECONDS):
            self._health.beat()

    def _polled(self, count: int) -> None:
        """Tell health what came in, and after a while of nothing what waits at the broker."""
        now = self._clock.monotonic()
        if count:
            self._health.progress(count, None)
        elif now - self._quiet_since >= _QUIET_SECONDS:
            self._health.progress(0, self._pipe.waiting(_ASK_SECONDS))
        else:
            return
        self._quiet_since = self._clock.monotonic()

    def _succeeded(self) -> None:
        if not self._ready:
            self._ready = True
            self._health.ready()
            self._pauses = self._backoff.pauses()

    def _insist(self, messages: list[Message]) -> Sequence[Record] | None:
        """What `handle` returns, tried again on Retryable; None when told to stop meanwhile."""
        while True:
            try:
                return self._handle(messages)
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
