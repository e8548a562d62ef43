"""Refits one after the other in a thread of its own: the consumer goes on polling.

What fails for good is told and blocks nobody; what may pass is tried again after the others.
"""

from __future__ import annotations

import heapq
import logging
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Protocol

from shared.bus.errors import Retryable
from shared.clock import Clock
from shared.core.window import WindowKey
from shared.registry.base import RegistryUnavailable
from shared.telemetry import metrics

log = logging.getLogger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
LOOK_SECONDS = 1.0  # how soon a new window is seen while others wait to be tried again


class Refit(Protocol):
    def __call__(self, key: WindowKey) -> object: ...


@dataclass(order=True)
class _Job:
    """Work on a window, due at a monotonic time; of those due at once the first submitted."""

    due: float
    number: int
    key: WindowKey = field(compare=False)
    work: Callable[[], object] = field(compare=False)
    is_refit: bool = field(compare=False, default=True)
    pause: float = field(compare=False, default=FIRST_PAUSE)


class RefitWorker:
    """Refits in the order submitted; one that waits to be tried again lets the others by."""

    def __init__(
        self, refit: Refit, *, clock: Clock, failed: Callable[[WindowKey, Exception], None]
    ) -> None:
        self._refit = refit
        self._clock = clock
        self._failed = failed
        self._numbers = count()
        self._new: queue.SimpleQueue[_Job] = queue.SimpleQueue()
        self._jobs: list[_Job] = []
        threading.Thread(target=self._run, name="refit", daemon=True).start()

    def submit(self, key: WindowKey) -> None:
        self._new.put(_Job(0.0, next(self._numbers), key, partial(self._refit, key)))

    def _run(self) -> None:
        while True:
            self._do(self._next())

    def _next(self) -> _Job:
        """Waits for the job that is due first."""
        while True:
            with suppress(queue.Empty):
                while True:
                    heapq.heappush(self._jobs, self._new.get(block=not self._jobs))
            wait = self._jobs[0].due - self._clock.monotonic()
            if wait <= 0:
                return heapq.heappop(self._jobs)
            self._clock.sleep(min(wait, LOOK_SECONDS))

    def _do(self, job: _Job) -> None:
        try:
            job.work()
        except (RegistryUnavailable, Retryable, OSError) as error:
            metrics.RETRIES.labels("trainer").inc()
            log.warning("refit will be tried again: %s", error, extra={"task": job.key.task})
            job.due = self._clock.monotonic() + job.pause
            job.pause = min(job.pause * 2, LONGEST_PAUSE)
            heapq.heappush(self._jobs, job)
        except Exception as error:  # whatever one fit raises, the next goes on
            log.exception("refit failed", extra={"task": job.key.task})
            if job.is_refit:
                self._give_up(job.key, error)

    def _give_up(self, key: WindowKey, error: Exception) -> None:
        """Tell of it, before anything else is done."""
        metrics.FITS.labels(key.task, "failed").inc()
        metrics.LAST_FIT.labels(key.task).set(self._clock.now().timestamp())
        told = _Job(0.0, next(self._numbers), key, partial(self._failed, key, error), False)
        self._do(told)
