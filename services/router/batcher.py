"""Concurrent calls put together: one worker thread, a bounded queue, no waiting when idle."""

from __future__ import annotations

import logging
import math
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Generic, TypeVar

from shared.bus.errors import Fatal, Retryable
from shared.clock import Clock

log = logging.getLogger(__name__)

T = TypeVar("T")
R = TypeVar("R")


class Full(Exception):
    """So much is waiting that more would only wait in vain."""


class Closed(Exception):
    """The worker takes nothing any more."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Of items: `batch` in one go, `queued` waiting for it. `linger`: seconds from a call's arrival
    for which the worker, under load, waits for others to fill its batch. `weight`: of one batch."""

    batch: int
    queued: int
    linger: float
    weight: float = math.inf


@dataclass(slots=True, eq=False)
class _Call(Generic[T, R]):
    items: Sequence[T]
    arrived: float
    answer: Future[list[R]]
    weight: int


class Batcher(Generic[T, R]):
    """Hands the items of waiting calls to `work`, in the order they came; a call is never split.

    What came while the worker was busy makes the next batch, so batches grow with the load. A
    call that meets an idle worker is worked at once.
    """

    def __init__(
        self,
        work: Callable[[list[T]], Sequence[R]],
        limits: Limits,
        *,
        clock: Clock,
        on_fatal: Callable[[Fatal], None],
        weigh: Callable[[T], int] = lambda item: 0,
    ) -> None:
        """`work` gives one result an item. `on_fatal` is told when it can never succeed again.
        `weigh`: an item's share of a batch's weight."""
        self._work = work
        self._limits = limits
        self._clock = clock
        self._on_fatal = on_fatal
        self._weigh = weigh
        self._changed = threading.Condition()
        self._waiting: deque[_Call[T, R]] = deque()
        self._queued = 0
        self._closed = False
        self._busy_since: float | None = None
        self._thread = threading.Thread(target=self._run, name="door-worker", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def submit(self, items: Sequence[T]) -> Future[list[R]]:
        """The results of `items` to come, in their order, or what `work` raised.

        Cancel it to take the call back while it waits. Raises Full or Closed.
        """
        with self._changed:
            if self._closed:
                raise Closed
            if self._queued + len(items) > self._limits.queued:
                raise Full
            weight = sum(map(self._weigh, items))
            call = _Call[T, R](items, self._clock.monotonic(), Future(), weight)
            self._waiting.append(call)
            self._queued += len(items)
            self._changed.notify()
        call.answer.add_done_callback(lambda answer: self._forget(call, answer))
        return call.answer

    def busy_seconds(self) -> float:
        """How long the worker has been at its batch, 0 when it is idle."""
        since = self._busy_since
        return 0.0 if since is None else self._clock.monotonic() - since

    def close(self, timeout: float) -> None:
        """Finish what was submitted, for at most `timeout` seconds; the rest is answered Closed."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread.ident is not None:
            self._thread.join(timeout)
        with self._changed:
            while self._waiting:
                call = self._waiting.popleft()
                if call.answer.set_running_or_notify_cancel():
                    call.answer.set_exception(Closed())

    def _forget(self, call: _Call[T, R], answer: Future[list[R]]) -> None:
        """A call that was taken back holds no room."""
        with self._changed:
            if answer.cancelled() and call in self._waiting:
                self._waiting.remove(call)
                self._queued -= len(call.items)

    def _run(self) -> None:
        while (calls := self._next()) is not None:
            self._busy_since = self._clock.monotonic()
            self._answer(calls)
            self._busy_since = None

    def _next(self) -> list[_Call[T, R]] | None:
        """The calls of the next batch; None when there will be none."""
        with self._changed:
            loaded = bool(self._waiting)  # some came while the last batch was in work
            while not self._waiting:
                if self._closed:
                    return None
                self._changed.wait()
            if loaded:
                self._fill()
            return self._take()

    def _fill(self) -> None:
        deadline = self._waiting[0].arrived + self._limits.linger
        while self._queued < self._limits.batch and not self._closed:
            left = deadline - self._clock.monotonic()
            if left <= 0:
                return
            self._changed.wait(left)

    def _take(self) -> list[_Call[T, R]]:
        """Whole calls up to the limits of a batch, one at least; not those taken back."""
        taken: list[_Call[T, R]] = []
        size = weight = 0
        while self._waiting:
            call = self._waiting[0]
            if taken and (
                size + len(call.items) > self._limits.batch
                or weight + call.weight > self._limits.weight
            ):
                break
            self._waiting.popleft()
            self._queued -= len(call.items)
            if call.answer.set_running_or_notify_cancel():
                taken.append(call)
                size += len(call.items)
                weight += call.weight
        return taken

    def _answer(self, calls: Sequence[_Call[T, R]]) -> None:
        """Every call is answered, whatever happens; the worker goes on."""
        items = [item for call in calls for item in call.items]
        if not items:
            return
        try:
            results = list(self._work(items))
            if len(results) != len(items):
                raise RuntimeError(f"{len(results)} results for {len(items)} items")
        except Exception as error:
            _fail(calls, error)
            if isinstance(error, Fatal):
                self._on_fatal(error)
            elif not isinstance(error, Retryable):
                log.exception("a batch of %d failed", len(items))
            return
        start = 0
        for call in calls:
            call.answer.set_result(results[start : start + len(call.items)])
            start += len(call.items)


def _fail(calls: Sequence[_Call[T, R]], error: Exception) -> None:
    for call in calls:
        call.answer.set_exception(error)
