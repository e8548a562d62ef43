"""Refits happen in a thread of their own: a long fit never keeps the consumer from polling."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from functools import partial
from typing import Protocol

from shared.bus.errors import Retryable
from shared.clock import Clock
from shared.core.window import WindowKey
from shared.registry.base import RegistryUnavailable
from shared.telemetry import metrics

log = logging.getLogger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0


class Refit(Protocol):
    def __call__(self, key: WindowKey) -> object: ...


class RefitWorker:
    """Refits in the order submitted; passing faults are retried, a failed fit blocks no other."""

    def __init__(
        self, refit: Refit, *, clock: Clock, failed: Callable[[WindowKey, Exception], None]
    ) -> None:
        self._refit = refit
        self._clock = clock
        self._failed = failed
        self._queue: queue.SimpleQueue[WindowKey] = queue.SimpleQueue()
        threading.Thread(target=self._work, name="refit", daemon=True).start()

    def submit(self, key: WindowKey) -> None:
        self._queue.put(key)

    def _work(self) -> None:
        while True:
            key = self._queue.get()
            try:
                self._retrying(partial(self._refit, key), key)
            except Exception as error:  # whatever one fit raises, the next goes on
                log.exception("refit failed", extra={"task": key.task})
                self._give_up(key, error)

    def _give_up(self, key: WindowKey, error: Exception) -> None:
        metrics.FITS.labels(key.task, "failed").inc()
        try:
            self._retrying(partial(self._failed, key, error), key)
        except Exception:  # it is in the log; the next fit goes on
            log.exception("the failure could not be announced", extra={"task": key.task})

    def _retrying(self, work: Callable[[], object], key: WindowKey) -> None:
        pause = FIRST_PAUSE
        while True:
            try:
                work()
            except (RegistryUnavailable, Retryable, OSError) as error:
                metrics.RETRIES.labels("trainer").inc()
                log.warning("refit will be tried again: %s", error, extra={"task": key.task})
                self._clock.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE)
            else:
                return
